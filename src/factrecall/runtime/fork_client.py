"""Client of the fork server: hands a command over and stands for it.

A job of a local workflow asks the server (`factrecall.runtime.fork_server`) to run it, passes
signals on, and exits as the forked process does. If there is no server, or it ends before the
process does, the job runs the command itself. Nothing heavy is imported here.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import FrameType

from factrecall.runtime.signals import SIGNALS, ended

ADDRESS = "FACTRECALL_FORK_SERVER"
"""Environment variable: the server's socket, or ``off``."""

NUMBER = struct.Struct("=i")
"""What a client is told: the number of its process, then its exit code."""

_LENGTH = struct.Struct("=Q")

_OWN = ("FACTRECALL_", "SHLVL=", "PWD=", "OLDPWD=", "_=")
_AT_START = ("PYTHON", "LC_", "LANG", "LD_")


@dataclass(frozen=True)
class Request:
    """A command to run as its client would: with its folder, environment and umask.

    Attributes
    ----------
    ignored : list of int
        Signals that the client ignored when it was started.
    installation : str
        Of Python: where it is, and its version.
    pid : int
        Of the client.
    """

    arguments: list[str]
    installation: str
    environment: dict[str, str]
    folder: str
    umask: int
    ignored: list[int]
    pid: int

    @classmethod
    def of(cls, arguments: Sequence[str]) -> Request:
        """Return the request of this process."""
        umask = os.umask(0)
        os.umask(umask)
        ignored = [int(n) for n in SIGNALS if signal.getsignal(n) == signal.SIG_IGN]
        environment = dict(os.environ)
        folder, pid = os.getcwd(), os.getpid()
        installation = f"{sys.prefix} {sys.version}"  # `python` and `python3` are the same
        return cls([*arguments], installation, environment, folder, umask, ignored, pid)

    @classmethod
    def from_json(cls, content: bytes) -> Request:
        """Read what `to_json` returned."""
        return cls(**json.loads(content))

    def to_json(self) -> bytes:
        """Return the request as it is sent."""
        return json.dumps(vars(self)).encode()

    @property
    def libraries(self) -> frozenset[tuple[str, str]]:
        """The variables that libraries may read when they are imported."""
        return frozenset(v for v in self.environment.items() if not f"{v[0]}=".startswith(_OWN))

    @property
    def interpreter(self) -> frozenset[tuple[str, str]]:
        """What an interpreter depends on when it starts, too early for a fork to change it."""
        read = (v for v in self.environment.items() if v[0].startswith(_AT_START))
        return frozenset({*read, ("", self.installation)})


def run(arguments: Sequence[str]) -> int | None:
    """Run a command by the fork server; return its exit code, or None if there is no server.

    Parameters
    ----------
    arguments : sequence of str
        The command line, without the program.
    """
    # Processes that the command starts are none of the server's.
    address = os.environ.pop(ADDRESS, "")
    if not os.path.isabs(address):
        return None
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(address)
            send(connection, Request.of(arguments).to_json(), [0, 1, 2])
        except OSError:
            return None
        return _wait(connection)


def _wait(connection: socket.socket) -> int | None:
    """Pass signals on until the command's process has ended; return its exit code."""
    requested: list[int] = []

    def forward(number: int, frame: FrameType | None) -> None:
        requested.append(number)
        with suppress(OSError):
            connection.send(bytes([number]))

    before = {number: signal.signal(number, forward) for number in SIGNALS}
    pid = _number(connection)
    code = None if pid is None else _number(connection)
    for number, handler in before.items():
        signal.signal(number, handler)
    if code is not None and code < 0:
        with suppress(OSError):  # SIGKILL has no handler
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    if code is None:
        if pid is not None:  # it dies with the process that forked it
            while not ended(pid):
                time.sleep(0.05)
        ending = [number for number in requested if number != signal.SIGUSR1]
        if ending:
            return 128 + ending[0]
        if pid is not None:
            print("the fork server was killed: starting again without it", file=sys.stderr)
    return code


def _number(connection: socket.socket) -> int | None:
    """Return the next number that is told; None if nothing comes any more."""
    content = _exactly(connection, NUMBER.size)
    return int(NUMBER.unpack(content)[0]) if content else None


def send(connection: socket.socket, content: bytes, descriptors: Sequence[int]) -> None:
    """Send some bytes with open files."""
    head = _LENGTH.pack(len(content))
    sent = socket.send_fds(connection, [head], list(descriptors))
    connection.sendall(head[sent:] + content)


def receive(connection: socket.socket, count: int) -> tuple[bytes, list[int]]:
    """Receive bytes and `count` open files (see `send`); nothing if the other end is gone."""
    try:
        head, files, _, _ = socket.recv_fds(connection, 1, count, socket.MSG_CMSG_CLOEXEC)
        head += _exactly(connection, _LENGTH.size - 1)
        content = _exactly(connection, *_LENGTH.unpack(head)) if len(head) == _LENGTH.size else b""
    except OSError:
        return b"", []
    if content and len(files) == count:
        return content, files
    for file in files:
        os.close(file)
    return b"", []


def _exactly(connection: socket.socket, size: int) -> bytes:
    """Return that many bytes; none if the other end is closed before."""
    content = b""
    while len(content) < size:
        try:
            part = connection.recv(size - len(content))
        except OSError:
            part = b""
        if not part:
            return b""
        content += part
    return content
