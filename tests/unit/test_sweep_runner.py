"""A job of interventions that is stopped goes on where it was, and ends with the same bytes."""

from __future__ import annotations

import hashlib
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from factrecall.data.tables import FactTables
from factrecall.evaluation.batching import Batch
from factrecall.experiments.circuits import sweep_runner
from factrecall.experiments.circuits.settings import AdaptiveSteps, AllSteps, NodesPerStep
from factrecall.experiments.circuits.sweep_runner import SweepRunner
from factrecall.runtime import signals
from factrecall.runtime.signals import Interrupted
from tests.conftest import ARCHITECTURES, tiny_of
from tests.unit.test_circuits import files_of, prepared, run

AFRESH = 4
EACH = AllSteps(method="all")
BENT = AdaptiveSteps(method="adaptive", intervals=3, tolerance=0.01, held_out=3)
JOBS = {
    "each": ("attention", "shared", NodesPerStep(forward=1, backward=2), EACH),
    "adaptive": ("unit", "baseline", NodesPerStep(forward=2, backward=3), BENT),
}


@pytest.fixture(scope="module", params=ARCHITECTURES)
def folder(
    request: pytest.FixtureRequest, facts: FactTables, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return prepared(tiny_of(request.param, facts), tmp_path_factory.mktemp(request.param))


class Watch:
    """Which steps of which sweeps a job asks, with a hash of all logits that answer each.

    At the step whose number is `stop`, counted from 1, the process sends itself `by`. `points` are
    the steps that were asked afresh, `lost` counts those asked since the last.
    """

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.asked: dict[tuple[int, int], str] = {}
        self.stop, self.by = 0, signal.SIGTERM
        self.points: set[tuple[int, int]] = set()
        self.lost = 0
        self._hash = hashlib.sha256()
        self._ask, self._logits = SweepRunner.__call__, Batch.logits
        patch.setattr(sweep_runner, "AFRESH", AFRESH)  # whole passes
        patch.setattr(SweepRunner, "__call__", lambda asker, step: self._called(asker, step))
        patch.setattr(Batch, "logits", lambda batch, model: self._said(batch, model))

    def _called(self, asker: SweepRunner, step: int) -> float:
        if step in asker.outcomes:
            return self._ask(asker, step)
        self._hash = hashlib.sha256()
        if len(self.asked) + 1 == self.stop:
            os.kill(os.getpid(), self.by)
        try:
            return self._ask(asker, step)
        finally:
            self.asked[asker._present, step] = self._hash.hexdigest()
            self.lost = len(asker.outcomes) - asker._safe
            self.points.add((asker._present, asker._safe))

    def _said(self, batch: Batch, model: Any) -> torch.Tensor:
        found = self._logits(batch, model)
        self._hash.update(found.numpy().tobytes())
        return found

    def again(self, stop: int = 0, by: signal.Signals = signal.SIGTERM) -> dict[Any, str]:
        """Begin to count anew; return what fills up."""
        self.asked, self.stop, self.by = {}, stop, by
        self.points = set()
        return self.asked


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    return Watch(monkeypatch)


def content(folder: Path, job: str, name: str, **more: Any) -> list[bytes]:
    """Run a job and return the bytes of its tables."""
    return [path.read_bytes() for path in files_of(run(folder, *JOBS[job], name=name, **more))]


def leave(folder: Path, job: str, name: str) -> None:
    """Run a job that is asked to leave on its way."""
    with signals.handle_signals(), pytest.raises(Interrupted):
        run(folder, *JOBS[job], name=name)


def states(folder: Path) -> list[Path]:
    return list((folder / "state").iterdir())


@pytest.mark.parametrize("job", JOBS)
def test_asked_to_leave_a_job_goes_on_where_it_was(folder: Path, watch: Watch, job: str) -> None:
    every = watch.again()
    expected = content(folder, job, "whole")
    total = len(every)
    sweeps = {sweep for sweep, _ in every}
    assert len(watch.points) > len(sweeps) + 3 and not states(folder)
    for stop in (1, 7, total // 3, total // 2, total):
        first = watch.again(stop)
        leave(folder, job, "broken")
        assert len(first) == stop  # it left at once
        assert len(states(folder)) == 1
        lost = watch.lost
        rest = watch.again()
        assert content(folder, job, "broken") == expected
        assert not states(folder)
        # What was found up to the last point is not asked again; all else is, to the last bit.
        assert list(rest) == list(every)[stop - lost :]
        assert {**first, **rest} == {**rest, **first} == every


@pytest.mark.parametrize("job", JOBS)
def test_killed_again_and_again_a_job_ends_with_the_same_bytes(
    folder: Path, watch: Watch, job: str
) -> None:
    whole = run(folder, *JOBS[job], name="whole")
    total, killed = len(watch.asked), 0
    while True:
        child = os.fork()
        if child == 0:
            try:
                watch.again(16 + killed % 3, signal.SIGKILL)
                run(folder, *JOBS[job], name="broken", checkpoint_interval_s=0.0)
                os._exit(0)
            except BaseException:
                os._exit(1)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            break
        killed += 1
        assert killed < total  # each goes on further
    assert os.WEXITSTATUS(status) == 0 and killed >= 2
    broken = (folder / "broken" / path.name for path in files_of(whole))
    assert [path.read_bytes() for path in broken] == [path.read_bytes() for path in files_of(whole)]
    assert not states(folder)


def test_another_job_does_not_take_up_the_state(folder: Path, watch: Watch) -> None:
    watch.again(20)
    leave(folder, "each", "broken")
    known = 20 - watch.lost
    kind, by, size, steps = JOBS["each"]
    others: list[tuple[Any, ...]] = [
        (kind, "baseline", size, steps),
        (kind, by, NodesPerStep(forward=1, backward=3), steps),
        (kind, by, size, BENT),
        (kind, by, size, steps, 2),
    ]
    for number, other in enumerate(others):
        clean = watch.again()
        run(folder, *other, name=f"clean{number}")
        asked = watch.again()
        run(folder, *other, name="broken")
        assert asked == clean
    # Nor does a job of another S or starting model, or one whose tables go elsewhere.
    for change in (folder / "mix.sets", folder / "base" / "config.json"):
        kept = change.read_bytes()
        other_bytes = (folder / "stage.sets").read_bytes()
        change.write_bytes(other_bytes if change.suffix == ".sets" else kept + b" ")
        asked = watch.again()
        run(folder, *JOBS["each"], name="broken")
        assert next(iter(asked)) == (0, 0)
        change.write_bytes(kept)
    asked = watch.again()
    run(folder, *JOBS["each"], name="elsewhere")
    assert next(iter(asked)) == (0, 0)
    (state,) = states(folder)
    rest = watch.again()
    run(folder, *JOBS["each"], name="broken")
    assert len(rest) == len(asked) - known < len(asked) and not state.exists()


def test_progress_begins_with_what_is_known(
    folder: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch.again(20)
    leave(folder, "each", "broken")
    known, told = 20 - watch.lost, list[int]()
    monkeypatch.setattr("factrecall.runtime.progress._lines", lambda *_: told.append)
    monkeypatch.setattr("sys.stderr.isatty", lambda: False)
    watch.again()
    run(folder, *JOBS["each"], name="broken")
    assert told[0] == known > 0 and told == sorted(told)
