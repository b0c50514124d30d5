"""Graceful shutdown: finish the current step, save, exit.

A scheduler asks by SIGUSR1 some time before it takes the machine away and by SIGTERM when it does,
a user by Ctrl-C, a later start of the workflow through the lease (`factrecall.runtime.lease`). Work
that keeps a checkpoint (`factrecall.runtime.checkpoint`) only notes the request, and its loop saves
and exits at its next step. All other work ends at once, since it is short and starts over; at
SIGUSR1 it continues, since it may finish in time. A second Ctrl-C ends anything at once.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)

TAKEN_OVER = 75
"""Exit code of a command whose outputs another one has taken over (EX_TEMPFAIL)."""


class Interrupted(BaseException):
    """The command was asked to leave.

    Parameters
    ----------
    reason : str
        Who asked.
    code : int
        The exit code: 128 and the signal's number, as shells have it, or `TAKEN_OVER`.
    """

    def __init__(self, reason: str, code: int) -> None:
        super().__init__(reason)
        self.reason, self.code = reason, code


@dataclass
class _Requests:
    asked: Interrupted | None = None
    keepers: int = 0


_requests = _Requests()


@contextmanager
def handle_signals() -> Iterator[None]:
    """Turn signals into `Interrupted` within a block of the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _requests.asked = None
    before = {number: signal.signal(number, _signalled) for number in SIGNALS}
    try:
        # The fork server holds back those that came before they could be handled.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _requests.asked = None


@contextmanager
def defer_shutdown() -> Iterator[None]:
    """Only note requests within a block: its loop calls `exit_if_requested` where it can."""
    _requests.keepers += 1
    try:
        yield
    finally:
        _requests.keepers -= 1
    exit_if_requested()


@contextmanager
def shield() -> Iterator[None]:
    """Put requests off to the end of a block, which is short, wherever they are not only noted."""
    _requests.keepers += 1
    try:
        yield
    finally:
        _requests.keepers -= 1
    asked = _requests.asked
    if asked is not None and not _requests.keepers and asked.code != 128 + signal.SIGUSR1:
        raise asked


def asked() -> bool:
    """Say whether the command is to leave."""
    return _requests.asked is not None


def exit_code() -> int:
    """Return the code that the command is to leave with; 0 if it is not to leave."""
    return 0 if _requests.asked is None else _requests.asked.code


def request_of(code: int) -> Interrupted:
    """Return the shutdown request that another process of the same work exited with."""
    if code == TAKEN_OVER:
        return Interrupted("another job has taken over", code)
    return _by_signal(code - 128)


def note(request: Interrupted) -> None:
    """Note a request that came to another process of the same work, if there is none yet."""
    _requests.asked = _requests.asked or request


def _by_signal(number: int) -> Interrupted:
    name = "from the keyboard" if number == signal.SIGINT else signal.Signals(number).name
    return Interrupted(f"interrupted ({name})", 128 + number)


def exit_if_requested() -> None:
    """Raise `Interrupted` if the command is to leave."""
    if _requests.asked is not None:
        raise _requests.asked


def ask(reason: str) -> None:
    """Ask the main thread to leave; for other threads of a `handle_signals` command."""
    _requests.asked = Interrupted(reason, TAKEN_OVER)
    main = threading.main_thread().ident
    if main is not None:
        signal.pthread_kill(main, signal.SIGUSR1)


def _signalled(number: int, frame: FrameType | None) -> None:
    again = _requests.asked is not None and number == signal.SIGINT
    if _requests.asked is None:
        _requests.asked = _by_signal(number)
    in_time = number == signal.SIGUSR1 and _requests.asked.code != TAKEN_OVER
    if again or not (_requests.keepers or in_time):
        raise _requests.asked
