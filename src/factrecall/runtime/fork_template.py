"""A process that has imported the libraries of jobs, and forks one for each job.

It imports nothing of this package, so that edited code is never stale. It passes signals on to the
processes that it has forked, kills one whose client is gone, and returns their exit codes. A fork
is safe where no thread runs and CUDA is not initialised.
"""

from __future__ import annotations

import ctypes
import gc
import os
import select
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

from factrecall.runtime.fork_client import NUMBER, Request, receive
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

BACKGROUND = {"jemalloc_bg_thd"}
"""Threads of libraries that handle forks themselves."""

_PDEATHSIG = 1


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
                elif safe and not self._fork(request := Request.from_json(content), descriptors):
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
        with suppress(OSError):  # a full disk; only the benchmark needs it
            (self.folder / str(request.pid)).write_text(str(pid), encoding="ascii")
        self.names[pid] = request.pid
        _tell(client, pid)
        return pid

    def _reap(self) -> None:
        for pid in list(self.clients):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                with suppress(OSError):
                    (self.folder / str(self.names.pop(pid))).unlink()
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
