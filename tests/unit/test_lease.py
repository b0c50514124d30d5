"""Of two writers of the same outputs one leaves, and loses nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from factrecall.runtime import lease, signals
from factrecall.runtime.lease import Lease, begin_run, is_over
from factrecall.runtime.signals import TAKEN_OVER, Interrupted, defer_shutdown, handle_signals
from factrecall.runtime.storage import write_text

HOLDER = """
import sys, time
from pathlib import Path
from factrecall.runtime import signals, lease
from factrecall.runtime.lease import Lease
from factrecall.runtime.storage import write_text
lease.HEARTBEAT = 0.1
folder, output, run, seconds = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], float(sys.argv[4])
try:
    with signals.handle_signals(), Lease(folder, output, run):
        print("holds", flush=True)
        time.sleep(seconds)
        write_text(output, run)
except signals.Interrupted as left:
    sys.exit(left.code)
"""

SAVING = """with signals.defer_shutdown():
            while not signals.shutdown_requested():
                time.sleep(0.05)
            time.sleep(3)
            write_text(Path({state!r}), "saved")
            signals.exit_if_requested()"""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "HEARTBEAT", 0.1)
    monkeypatch.setattr(lease, "STALE", 1.0)


def holder(folder: Path, run: str, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLDER, str(folder / "claims"), str(folder / "out.txt"), run]
    child = subprocess.Popen([*command, str(seconds)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None and child.stdout.readline() == "holds\n"
    return child


def test_starts_are_counted(tmp_path: Path) -> None:
    runs = [begin_run(tmp_path) for _ in range(12)]
    assert runs == sorted(set(runs))


def test_a_later_start_takes_over_and_the_earlier_one_leaves(tmp_path: Path) -> None:
    first = holder(tmp_path, "1", 60)
    with Lease(tmp_path / "claims", tmp_path / "out.txt", "2"):
        assert len(list((tmp_path / "claims").glob("*.beat"))) == 1, "both hold the lease"
        assert first.wait(600) == TAKEN_OVER
        write_text(tmp_path / "out.txt", "2")
    assert (tmp_path / "out.txt").read_text() == "2"


def test_a_job_of_an_earlier_start_is_refused_even_later(tmp_path: Path) -> None:
    with Lease(tmp_path / "claims", tmp_path / "out.txt", "2"):
        write_text(tmp_path / "out.txt", "2")
    with (
        pytest.raises(Interrupted, match="later start"),
        Lease(tmp_path / "claims", tmp_path / "out.txt", "1"),
    ):
        pytest.fail("it was let in")
    assert not list((tmp_path / "claims").glob("*.beat"))


def test_the_same_start_may_try_again(tmp_path: Path) -> None:
    for text in ("once", "twice"):
        with Lease(tmp_path / "claims", tmp_path / "out.txt", "1"):
            write_text(tmp_path / "out.txt", text)
    assert (tmp_path / "out.txt").read_text() == "twice"


@pytest.mark.parametrize("waited", [True, False])
def test_a_killed_holder_is_known_to_be_dead_at_once(
    tmp_path: Path, waited: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether or not the process that started it has noticed (until then it is a zombie)."""
    monkeypatch.setattr(lease, "STALE", 600.0)
    first = holder(tmp_path, "1", 60)
    first.kill()
    if waited:
        first.wait()
    begin = time.monotonic()
    with Lease(tmp_path / "claims", tmp_path / "out.txt", "1"):
        assert time.monotonic() - begin < 300  # not by waiting for beats
    first.wait()
    assert not list((tmp_path / "claims").glob("*.beat"))


def test_a_holder_that_stood_still_can_write_nothing_any_more(tmp_path: Path) -> None:
    first = holder(tmp_path, "1", 1.0)
    os.kill(first.pid, signal.SIGSTOP)
    with Lease(tmp_path / "claims", tmp_path / "out.txt", "2"):
        write_text(tmp_path / "out.txt", "2")
    os.kill(first.pid, signal.SIGCONT)
    assert first.wait() != 0
    assert (tmp_path / "out.txt").read_text() == "2"


def test_another_machine_is_judged_by_its_beats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = holder(tmp_path, "1", 60)
    monkeypatch.setattr(lease, "_place", lambda: "elsewhere")
    first.kill()
    first.wait()
    begin = time.monotonic()
    with Lease(tmp_path / "claims", tmp_path / "out.txt", "2"):
        assert time.monotonic() - begin > 0.9


def test_losing_the_lease_stops_every_write(tmp_path: Path) -> None:
    with (
        pytest.raises(Interrupted, match="another job has taken"),
        Lease(tmp_path / "claims", tmp_path / "out.txt", "1"),
    ):
        lease.HEARTBEAT = 60.0  # before the heart would notice
        for beat in (tmp_path / "claims").glob("*.beat"):
            beat.unlink()
        write_text(tmp_path / "out.txt", "late")
    assert not (tmp_path / "out.txt").exists()
    assert not list(tmp_path.glob(".*.tmp"))


def test_other_outputs_are_free(tmp_path: Path) -> None:
    first = holder(tmp_path, "1", 0.5)
    with Lease(tmp_path / "claims", tmp_path / "other.txt", "2"):
        pass
    assert first.wait() == 0 and (tmp_path / "out.txt").read_text() == "1"


def test_a_holder_that_needs_long_to_save_is_waited_for(tmp_path: Path) -> None:
    state = tmp_path / "state.txt"
    slow = HOLDER.replace("time.sleep(seconds)", SAVING.format(state=str(state)))
    command = [sys.executable, "-c", slow, str(tmp_path / "claims"), str(tmp_path / "out.txt")]
    first = subprocess.Popen([*command, "1", "60"], stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None and first.stdout.readline() == "holds\n"
    with Lease(tmp_path / "claims", tmp_path / "out.txt", "2"):  # STALE is a third of the saving
        assert state.read_text() == "saved"
    assert first.wait(600) == TAKEN_OVER


def test_an_earlier_start_that_comes_late_cannot_take_over(tmp_path: Path) -> None:
    with Lease(tmp_path / "claims", tmp_path / "out.txt", "2"):
        early = Lease(tmp_path / "claims", tmp_path / "out.txt", "1")
        early._refuse_if_late = lambda: None  # type: ignore[method-assign]  # it has just looked
        with pytest.raises(Interrupted, match="taken"), early:
            pytest.fail("it was let in")
        write_text(tmp_path / "out.txt", "2")
    assert (tmp_path / "out.txt").read_text() == "2"


def test_a_start_is_over_when_a_later_one_has_begun(tmp_path: Path) -> None:
    assert not is_over(tmp_path, "0")
    first = begin_run(tmp_path)
    assert not is_over(tmp_path, first)
    begin_run(tmp_path)
    assert is_over(tmp_path, first)


def test_a_notice_ends_nothing_that_keeps_no_state() -> None:
    with handle_signals():
        signal.raise_signal(signal.SIGUSR1)
        assert signals.shutdown_requested()
        with pytest.raises(Interrupted), defer_shutdown():
            pass  # what keeps a state leaves at its first chance


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_command_at_once(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(Interrupted) as left, handle_signals():
        signal.raise_signal(number)
        time.sleep(1)
        pytest.fail("it went on")
    assert left.value.code == 128 + number
    assert signal.getsignal(number) is before


def test_where_a_state_is_kept_a_signal_waits_until_it_is_saved() -> None:
    saved = False
    with pytest.raises(Interrupted), handle_signals(), defer_shutdown():
        signal.raise_signal(signal.SIGTERM)
        assert signals.shutdown_requested()
        saved = True
        signals.exit_if_requested()
        pytest.fail("it went on")
    assert saved


def test_a_second_wish_from_the_keyboard_ends_anything_at_once() -> None:
    with pytest.raises(Interrupted), handle_signals(), defer_shutdown():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        pytest.fail("it went on")
