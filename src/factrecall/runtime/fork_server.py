"""Fork server: forks a process with all libraries loaded for each job of a local workflow.

Importing PyTorch and transformers takes seconds, a fork milliseconds. The workflow starts the
server; a command that is a job (`factrecall.runtime.fork_client`) sends its arguments, environment
and standard streams over a Unix socket in a private folder. The server hands them to a process
that has imported the libraries in that environment (`factrecall.runtime.fork_template`), which
forks. Where this cannot be done safely, the connection is closed and the client runs the command
itself. The server ends with the workflow, a template when its last process has ended, and a process
with its template.
"""

from __future__ import annotations

import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from factrecall.runtime.fork_client import ADDRESS, Request, receive, send
from factrecall.runtime.fork_template import Template
from factrecall.runtime.signals import SIGNALS

TEMPLATES = 4
"""How many environments have a template; jobs with others run without one."""

_running: list[subprocess.Popen[bytes]] = []
"""The server of this workflow; it ends when its standard input is closed."""


def start() -> None:
    """Start a fork server for the jobs of this process, and tell them by the environment.

    It is switched off by ``FACTRECALL_FORK_SERVER=off``, and absent where there is no Linux or no
    folder for the socket: jobs then run without it.
    """
    if sys.platform != "linux" or os.environ.get(ADDRESS) == "off":
        return
    os.environ.pop(ADDRESS, None)
    try:
        folder = tempfile.mkdtemp(prefix="factrecall-")
    except OSError:  # a full or read-only disk
        return
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
    here = Request.of([]).interpreter
    watched: list[socket.socket | int] = [listener, alive]
    while alive not in select.select(watched, [], [])[0]:
        connection, _ = listener.accept()
        connection.settimeout(10)
        content, streams = receive(connection, 3)
        request = Request.from_json(content) if content else None
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


def main(listener: int, folder: str) -> None:
    """Serve; in a forked process, run the package as ``python -m factrecall`` does."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    request = serve(socket.socket(fileno=listener), sys.stdin.fileno(), Path(folder))
    if request is None:
        return
    for name in [n for n in sys.modules if n.partition(".")[0] == "factrecall"]:
        del sys.modules[name]
    if not sys.flags.safe_path:
        sys.path[0] = request.folder
    sys.argv = ["factrecall", *request.arguments]
    runpy.run_module("factrecall", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
