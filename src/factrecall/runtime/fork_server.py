"""Fork server: forks a process with all libraries loaded for each job of a local workflow.

Importing PyTorch and transformers takes seconds, a fork milliseconds. The workflow starts the
server; a command that is a job (`factrecall.runtime.fork_client`) sends its arguments, environment
and standard streams over a Unix socket in a private folder. The server keeps a *template* for each
environment: a process that has imported `LIBRARIES` and nothing of this package, so that edited
code is never stale. The template forks the command's process, passes signals on to it, kills it if
its client is killed, and returns its exit code. Without a thread and without CUDA, a fork is safe;
where that does not hold, the template closes the connection and the client runs the command itself.

The server ends with the workflow, a template when its last process has ended, and a process with
its template. The module is long: server, template and process read each other's messages.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

from factrecall.runtime.fork_client import ADDRESS, NUMBER, receive, send
from factrecall.runtime.signals import SIGNALS

LIBRARIES = (
    "yaml",
    "pydantic.json_schema",
    "pydantic.types",
    "pandas",
    "pyarrow.dataset",
    "pyarrow.parquet",
    "safetensors.torch",
    "tokenizers",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.llama.modeling_llama",
    "captum.attr",
    "seaborn",
)
"""What a template imports; all else is imported by the jobs that need it."""

TEMPLATES = 4
"""How many environments have a template; jobs with others run without one."""

OWN = ("FACTRECALL_", "SHLVL", "PWD", "OLDPWD", "_=")
"""Beginnings of variables that no library reads when it is imported."""

AT_START = ("PYTHON", "LC_", "LANG", "LD_")
"""Beginnings of variables that an interpreter reads when it starts: a fork is too late for them."""

BACKGROUND = {"jemalloc_bg_thd"}
"""Threads of libraries that handle forks themselves."""

_PDEATHSIG = 1

_running: list[subprocess.Popen[bytes]] = []
"""The server of this workflow; it ends when its standard input is closed."""


def start() -> None:
    """Start a fork server for the jobs of this process, and tell them by the environment.

    It is switched off by ``FACTRECALL_FORK_SERVER=off``, and absent where there is no Linux.
    """
    if sys.platform != "linux" or os.environ.get(ADDRESS) == "off":
        return
    os.environ.pop(ADDRESS, None)
    folder = tempfile.mkdtemp(prefix="factrecall-")
    address = f"{folder}/socket"
    with socket.socket(socket.AF_UNIX) as listener:
        try:
            listener.bind(address)
        except OSError:  # the path is too long
            shutil.rmtree(folder, ignore_errors=True)
            return
        listener.listen(128)
        command = [sys.executable, "-m", "factrecall.runtime.fork_server"]
        _running[:] = [
            subprocess.Popen(
                [*command, str(listener.fileno()), folder],
                pass_fds=[listener.fileno()],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for the clients, which pass it on
            )
        ]
    os.environ[ADDRESS] = address


@dataclass(frozen=True)
class Request:
    """A command to run: arguments, folder and environment of the client."""

    arguments: list[str]
    executable: str
    environment: dict[str, str]
    folder: str
    umask: int
    ignored: list[int]
    pid: int

    @property
    def libraries(self) -> frozenset[tuple[str, str]]:
        """The variables on which imported libraries may depend."""
        return frozenset(_without(self.environment, OWN).items())

    @property
    def interpreter(self) -> dict[str, str]:
        """What has to be as it is in the server."""
        return _matching(self.environment, AT_START) | {"": self.executable}


def _matching(environment: dict[str, str], starts: tuple[str, ...]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if f"{name}=".startswith(starts)}


def _without(environment: dict[str, str], starts: tuple[str, ...]) -> dict[str, str]:
    return {n: v for n, v in environment.items() if not f"{n}=".startswith(starts)}


def serve(listener: socket.socket, alive: int, folder: Path) -> Request | None:
    """Hand requests to templates until the workflow ends; return, in a forked process, its request.

    Parameters
    ----------
    listener : socket
        Where clients connect.
    alive : int
        The reading end of a pipe whose other end the workflow holds.
    folder : Path
        Has the file ``<pid of client>`` with the number of its forked process.
    """
    templates: dict[frozenset[tuple[str, str]], tuple[int, socket.socket]] = {}
    here = _matching(dict(os.environ), AT_START) | {"": sys.executable}
    watched: list[socket.socket | int] = [listener, alive]
    while alive not in select.select(watched, [], [])[0]:
        connection, _ = listener.accept()
        connection.settimeout(10)
        content, streams = receive(connection, 3)
        request = Request(**json.loads(content)) if content else None
        while request is not None and request.interpreter == here:
            if request.libraries not in templates:
                if len(templates) == TEMPLATES:
                    break
                ours, theirs = socket.socketpair()
                if not (pid := os.fork()):
                    for other in (listener, connection, ours, *(o for _, o in templates.values())):
                        other.close()
                    for stream in streams:
                        os.close(stream)
                    return Template(theirs, folder, request.environment).run()
                theirs.close()
                templates[request.libraries] = pid, ours
            pid, control = templates[request.libraries]
            try:
                send(control, content, [connection.fileno(), *streams])
                break
            except OSError:  # it was killed; another takes its place
                control.close()
                os.waitpid(pid, 0)
                del templates[request.libraries]
        connection.close()
        for stream in streams:
            os.close(stream)
    listener.close()
    for pid, control in templates.values():
        control.close()
        os.waitpid(pid, 0)
    shutil.rmtree(folder, ignore_errors=True)
    return None


@dataclass
class Template:
    """A process that has imported the libraries, and forks.

    Parameters
    ----------
    control : socket
        Where the server hands requests over, with the client's connection and streams.
    folder : Path
        See `serve`.
    environment : dict
        In which the libraries are imported.
    """

    control: socket.socket
    folder: Path
    environment: dict[str, str]
    clients: dict[int, socket.socket] = field(default_factory=dict)
    names: dict[int, int] = field(default_factory=dict)

    def run(self) -> Request | None:
        """Fork until the server is gone and all is done; return, in a fork, its request."""
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in range(3):
            os.dup2(nowhere, stream)
        os.environ.clear()
        os.environ.update(self.environment)
        woken, wake = os.pipe()
        for end in (woken, wake):
            os.set_blocking(end, False)
        safe = _import_libraries()
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        controls = [self.control]
        while controls or self.clients:
            owners = {client.fileno(): pid for pid, client in self.clients.items()}
            watched: list[socket.socket | int] = [*controls, *owners, woken]
            ready = select.select(watched, [], [])[0]
            if woken in ready:
                with suppress(BlockingIOError):
                    os.read(woken, 4096)
            for descriptor in owners.keys() & set(ready):
                _pass_on(self.clients[owners[descriptor]], owners[descriptor])
            self._reap()
            if self.control in ready:
                content, descriptors = receive(self.control, 4)
                if not content:
                    controls.clear()
                elif safe and not self._fork(
                    request := Request(**json.loads(content)), descriptors
                ):
                    for end in (woken, wake):
                        os.close(end)
                    return request
                for descriptor in descriptors:
                    os.close(descriptor)
        return None

    def _fork(self, request: Request, descriptors: list[int]) -> int:
        """Fork a process for a request; return its number, and 0 in the process itself."""
        client = socket.socket(fileno=os.dup(descriptors[0]))
        client.setblocking(True)
        parent = os.getpid()
        # They wait until the command can handle them (`factrecall.runtime.signals`).
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        if not (pid := os.fork()):
            ctypes.CDLL(None).prctl(_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(1)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for other in (self.control, client, *self.clients.values()):
                other.close()
            _become(request, descriptors)
            return 0
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        self.clients[pid] = client
        (self.folder / str(request.pid)).write_text(str(pid), encoding="ascii")
        self.names[pid] = request.pid
        _tell(client, pid)
        return pid

    def _reap(self) -> None:
        for pid in list(self.clients):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                (self.folder / str(self.names.pop(pid))).unlink(missing_ok=True)
                client = self.clients.pop(pid)
                _tell(client, os.waitstatus_to_exitcode(status))
                client.close()


def _tell(client: socket.socket, number: int) -> None:
    with suppress(OSError):  # it may be gone
        client.sendall(NUMBER.pack(number))


def _pass_on(client: socket.socket, pid: int) -> None:
    """Give a process the signals that its client was given; kill it if that is gone."""
    try:
        numbers = client.recv(64)
    except OSError:
        numbers = b""
    for number in numbers or bytes([signal.SIGKILL]):
        os.kill(pid, number)  # it is not yet waited for, so its number is its own


def _import_libraries() -> bool:
    """Import what jobs need; say whether this process may fork."""
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # the other check would start CUDA
    with suppress(ImportError), _package_forgotten():
        from factrecall.runtime.quiet import quiet

        quiet()
    for library in LIBRARIES:
        with suppress(ImportError):
            import_module(library)
    gc.collect()
    gc.freeze()  # a collection would copy the pages that processes share
    torch = sys.modules.get("torch")
    # Threads of OpenBLAS end before the first fork, and are there again when they are needed.
    if not (pid := os.fork()):
        os._exit(0)
    os.waitpid(pid, 0)
    threads = {
        path.read_text(encoding="ascii").strip()
        for path in Path("/proc/self/task").glob("*/comm")
        if path.parent.name != str(os.getpid())
    }
    return not threads - BACKGROUND and (torch is None or not torch.cuda.is_initialized())


@contextmanager
def _package_forgotten() -> Iterator[None]:
    """Import modules of this package in a block only, so that jobs import them anew."""
    before = dict(sys.modules)
    yield
    for name in [n for n in sys.modules if n.partition(".")[0] == "factrecall"]:
        if name not in before:
            del sys.modules[name]


def _become(request: Request, descriptors: list[int]) -> None:
    """Take over a client's streams, folder, environment and handling of signals."""
    for stream, descriptor in enumerate(descriptors[1:]):
        os.dup2(descriptor, stream)
    for descriptor in descriptors:
        os.close(descriptor)
    os.chdir(request.folder)
    os.umask(request.umask)
    os.environ.clear()
    os.environ.update(request.environment)
    for number in SIGNALS:
        usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, signal.SIG_IGN if number in request.ignored else usual)


def main(listener: int, folder: str) -> None:
    """Serve; in a forked process, run the package as ``python -m factrecall`` does."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    request = serve(socket.socket(fileno=listener), sys.stdin.fileno(), Path(folder))
    if request is None:
        return
    for name in [n for n in sys.modules if n.partition(".")[0] == "factrecall"]:
        del sys.modules[name]
    sys.path[0] = request.folder
    sys.argv = ["factrecall", *request.arguments]
    runpy.run_module("factrecall", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
