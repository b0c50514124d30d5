"""Graceful shutdown: finish the current step, save, exit.

A scheduler requests it by SIGUSR1 some time before it takes the machine away and by SIGTERM when
it does, a user by Ctrl-C, a later start of the workflow by the lease (`runtime.lease`). Work with
a checkpoint (`runtime.checkpoint`) saves and exits at its loop's next step. Other work exits at
once; at SIGUSR1 it continues, since it may finish in time. A second Ctrl-C ends anything at once.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)

TAKEN_OVER = 75
"""Exit code of a command whose outputs another one has taken over (EX_TEMPFAIL)."""


class Interrupted(BaseException):
    """A shutdown was requested.

    Parameters
    ----------
    reason : str
        Who requested it.
    code : int
        The exit code: 128 and the signal's number, as shells have it, or `TAKEN_OVER`.
    """

    def __init__(self, reason: str, code: int) -> None:
        super().__init__(reason)
        self.reason, self.code = reason, code


@dataclass
class _Requests:
    pending: Interrupted | None = None
    deferring: int = 0


_requests = _Requests()


@contextmanager
def handle_signals() -> Iterator[None]:
    """Turn signals into `Interrupted` within a block of the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _requests.pending = None
    before = {number: signal.signal(number, _signalled) for number in SIGNALS}
    try:
        # The fork server holds back those that came before they could be handled.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _requests.pending = None


@contextmanager
def _deferring() -> Iterator[None]:
    _requests.deferring += 1
    try:
        yield
    finally:
        _requests.deferring -= 1


@contextmanager
def defer_shutdown() -> Iterator[None]:
    """Record requests within a block, whose loop calls `exit_if_requested` where it can."""
    with _deferring():
        yield
    exit_if_requested()


@contextmanager
def shield() -> Iterator[None]:
    """Postpone requests to the end of a short block, where they are not deferred already."""
    with _deferring():
        yield
    pending = _requests.pending
    if pending is not None and not _requests.deferring and pending.code != 128 + signal.SIGUSR1:
        raise pending


def shutdown_requested() -> bool:
    """Say whether a shutdown is requested."""
    return _requests.pending is not None


def exit_code() -> int:
    """Return the exit code of the request; 0 if there is none."""
    return 0 if _requests.pending is None else _requests.pending.code


def request_of(code: int) -> Interrupted:
    """Return the shutdown request that another process of the same work exited with."""
    if code == TAKEN_OVER:
        return Interrupted("another job has taken over", code)
    return _by_signal(code - 128)


def note(request: Interrupted) -> None:
    """Record a request that came to another process of the same work, if there is none yet."""
    _requests.pending = _requests.pending or request


def _by_signal(number: int) -> Interrupted:
    name = "from the keyboard" if number == signal.SIGINT else signal.Signals(number).name
    return Interrupted(f"interrupted ({name})", 128 + number)


def exit_if_requested() -> None:
    """Raise `Interrupted` if a shutdown is requested."""
    if _requests.pending is not None:
        raise _requests.pending


def request_shutdown(reason: str) -> None:
    """Request a shutdown from another thread of a `handle_signals` command."""
    _requests.pending = Interrupted(reason, TAKEN_OVER)
    main = threading.main_thread().ident
    if main is not None:
        signal.pthread_kill(main, signal.SIGUSR1)


def ended(pid: int) -> bool:
    """Say whether a process has ended, on Linux; its parent may not know it yet (a zombie)."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return True
    return status.rpartition(") ")[2][:1] in "ZX"


def _signalled(number: int, frame: FrameType | None) -> None:
    again = _requests.pending is not None and number == signal.SIGINT
    if _requests.pending is None:
        _requests.pending = _by_signal(number)
    in_time = number == signal.SIGUSR1 and _requests.pending.code != TAKEN_OVER
    if again or not (_requests.deferring or in_time):
        raise _requests.pending
