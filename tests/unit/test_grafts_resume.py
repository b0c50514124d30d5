"""A graft job that is killed, or leaves when asked to, ends with the bytes of one that did not."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from factrecall.evaluation.batching import Answers
from factrecall.experiments.grafting.settings import DualAveraging, GraftingSettings, SigmoidSGD
from factrecall.runtime.checkpoint import Checkpoint
from factrecall.runtime.signals import Interrupted, handle_signals
from tests.conftest import Tiny
from tests.unit.test_grafts import run_graft, run_without, write_study

DUAL = GraftingSettings(
    alphas=[0.02, 0.2],
    fit_individuals=3,
    objectives=["gold", "distilled"],
    exclude_embeddings=False,
    target_recovery=0.01,  # the smaller mask is chosen, so that later fits have both sizes too
    optimiser=DualAveraging(method="dual_averaging", updates=2, batch_size=6),
)
SIGMOID = DUAL.model_copy(
    update={
        "optimiser": SigmoidSGD(
            method="sigmoid_sgd", updates=8, check=4, batch_size=2, learning_rate=1e5
        )
    }
)
BOTH = pytest.mark.parametrize("settings", [DUAL, SIGMOID], ids=["dual averaging", "sigmoid"])


class Jobs:
    """Both jobs of a model, and what they write when nothing disturbs them."""

    def __init__(self, folder: Path, settings: GraftingSettings) -> None:
        self.folder, self.settings = folder, settings
        self.descents = 0
        with self.at_each_descent(lambda: None):
            self.run()
            self.total = self.descents
        self.whole = self.files()

    def run(
        self, checkpoint_interval_s: float = 1e9, settings: GraftingSettings | None = None
    ) -> None:
        """Run those that are not done, as a workflow does."""
        for job, last in ((run_graft, "checks"), (run_without, "shares")):
            if not (self.folder / "3" / last).exists():
                job(
                    self.folder,
                    settings or self.settings,
                    checkpoint_interval_s=checkpoint_interval_s,
                )

    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in sorted((self.folder / "3").iterdir())}

    @property
    def states(self) -> list[Path]:
        return sorted((self.folder / "state").iterdir())

    @contextmanager
    def at_each_descent(self, act: Callable[[], None]) -> Iterator[None]:
        """Count the descents of a block and do something before each."""
        self.descents = 0
        descend = Answers.descend

        def counted(answers: Answers, model: torch.nn.Module) -> float:
            self.descents += 1
            act()
            return descend(answers, model)  # type: ignore[arg-type]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Answers, "descend", counted)
            yield

    def leave_at(self, descent: int) -> None:
        """Start anew and ask to leave at a descent."""
        shutil.rmtree(self.folder / "3")

        def act() -> None:
            if self.descents == descent:
                os.kill(os.getpid(), signal.SIGTERM)

        with (
            self.at_each_descent(act),
            pytest.raises(Interrupted, match="SIGTERM") as left,
            handle_signals(),
        ):
            self.run()
        assert left.value.code == 128 + signal.SIGTERM
        assert self.descents == descent and self.states

    def go_on(self) -> int:
        """Run again, to the end; return how many descents that took."""
        with self.at_each_descent(lambda: None):
            self.run()
        assert not self.states
        return self.descents


@pytest.fixture
def jobs(tiny: Tiny, tmp_path: Path, settings: GraftingSettings) -> Jobs:
    write_study(tiny, tmp_path)
    return Jobs(tmp_path, settings)


@BOTH
def test_killed_again_and_again_grafting_ends_with_the_same_bytes(jobs: Jobs) -> None:
    shutil.rmtree(jobs.folder / "3")
    stride = jobs.total // 6

    def kill() -> None:
        if jobs.descents == stride:
            os.kill(os.getpid(), signal.SIGKILL)

    kills, status = 0, -1
    while status != 0:
        child = os.fork()
        if child == 0:
            try:
                torch.set_num_threads(1)
                with jobs.at_each_descent(kill):
                    jobs.run(checkpoint_interval_s=0.0)
                os._exit(0)
            except BaseException:
                os._exit(1)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status) or status == 0
        kills += status != 0
    assert not jobs.states
    # The descent before which a process is killed is the only one that is made again.
    assert kills == (jobs.total - 1) // (stride - 1)
    assert jobs.files() == jobs.whole


@BOTH
def test_asked_to_leave_grafting_saves_and_goes_on(jobs: Jobs) -> None:
    for part in (0.1, 0.4, 0.6, 0.9):  # in each of the fits
        descent = round(part * jobs.total)
        jobs.leave_at(descent)
        # The update that was under way when the wish came is the last one.
        assert jobs.go_on() == jobs.total - descent
        assert jobs.files() == jobs.whole


@pytest.mark.parametrize("settings", [DUAL])
def test_a_state_is_taken_up_by_its_own_work_alone(jobs: Jobs) -> None:
    jobs.leave_at(3 * jobs.total // 10)  # of five fits
    assert len(jobs.states) == 2  # the first fit is done, the second under way
    kept = {path: path.read_bytes() for path in jobs.states}
    other = jobs.settings.model_copy(update={"alphas": [0.02, 0.3]})
    jobs.run(settings=other)
    assert {path: path.read_bytes() for path in jobs.states} == kept
    found = jobs.files()
    shutil.rmtree(jobs.folder / "3")
    shutil.rmtree(jobs.folder / "state")
    jobs.run(settings=other)
    assert jobs.files() == found != jobs.whole


@pytest.mark.parametrize("settings", [DUAL])
def test_with_damaged_states_grafting_begins_anew(
    jobs: Jobs, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs.leave_at(3 * jobs.total // 10)
    for path in jobs.states:
        path.write_bytes(path.read_bytes()[:3000])
    assert jobs.go_on() == jobs.total
    assert capsys.readouterr().err.count("starting over") == 2
    assert jobs.files() == jobs.whole


class _Stopped(Exception):
    pass


def test_anything_of_the_inputs_makes_another_state(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_study(tiny, tmp_path)
    for seed in ("3", "4"):  # masks without S read the table of those that may hold anything
        (tmp_path / seed).mkdir()
        (tmp_path / seed / "table").write_bytes(b"any")
    keys: list[str] = []

    def stop(checkpoint: Checkpoint, path: Path, seconds: float) -> None:
        keys.append(path.name)
        raise _Stopped

    monkeypatch.setattr(Checkpoint, "__init__", stop)

    def key(job: Callable[..., None], seed: int = 3, settings: GraftingSettings = DUAL) -> str:
        with pytest.raises(_Stopped):
            job(tmp_path, settings, seed)
        return keys[-1]

    for job in (run_graft, run_without):
        usual = key(job)
        assert key(job) == usual
        assert len({usual, key(job, 4), key(job, settings=SIGMOID)}) == 3
        inputs = {"base/config.json", "tuned/tokenizer.json", "qa.parquet"}
        without_shared = {"sets.safetensors", "3/table"}
        for name in sorted(inputs | without_shared):
            path = tmp_path / name
            content = path.read_bytes()
            path.write_bytes(content + b" ")
            # What may hold anything knows nothing of S.
            assert (key(job) == usual) == (job is run_graft and name in without_shared)
            path.write_bytes(content)
    assert key(run_graft) != key(run_without)
