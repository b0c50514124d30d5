"""A run that is killed and started again ends with the bytes of one that never was."""

from __future__ import annotations

import copy
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from factrecall.cli import main
from factrecall.config.training import TraceSettings
from factrecall.data.files import BIO_COLUMNS, INDIVIDUAL_COLUMNS, QA_COLUMNS
from factrecall.models.loading import save_model
from factrecall.runtime import progress as progress_module
from factrecall.runtime.checkpoint import Checkpoint, work_key
from factrecall.runtime.job import Job
from factrecall.runtime.safetensors_writer import read_tensors
from factrecall.runtime.storage import write_table
from factrecall.training.execution import Execution
from factrecall.training.loop import train
from factrecall.training.stages import fine_tune
from factrecall.training.trace import GradientTrace
from tests.conftest import Tiny, Workspace, recipe
from tests.unit.test_trace import sides
from tests.unit.test_training import mix_of

UPDATES = 80
KILLS = 6


class Study:
    """A tiny study on disk whose mix fine-tuning can be run in a child process."""

    def __init__(self, tiny: Tiny, folder: Path) -> None:
        self.folder = folder
        self.start = folder / "base"
        save_model(self.start, tiny.model, tiny.tokenizer)
        tables = (
            ("individuals", tiny.facts.individuals, INDIVIDUAL_COLUMNS),
            ("bio", tiny.facts.bio, BIO_COLUMNS),
            ("qa", tiny.facts.qa, QA_COLUMNS),
        )
        for name, frame, schema in tables:
            write_table(folder / f"{name}.parquet", frame, schema)
        self.facts = [folder / f"{name}.parquet" for name, _, _ in tables]

    def state(self, name: str) -> Path:
        return self.folder / name / "state"

    def snapshots(self, name: str, count: int = 2) -> list[Path]:
        return [self.folder / name / f"{i + 1}of{count}.safetensors" for i in range(count)]

    def run(
        self,
        name: str,
        updates: int = UPDATES,
        snapshots: int = 2,
        checkpoint_interval_s: float = 0.05,
    ) -> None:
        out = self.folder / name
        fine_tune(
            Job(torch.device("cpu"), {"test": True}, self.state(name), checkpoint_interval_s),
            recipe=recipe(updates=updates, batch_size=12),
            tracing=TraceSettings(in_distribution=2, out_of_distribution=2, checkpoints=snapshots),
            precision="float32",
            mode=Execution(),
            study_seed=0,
            tuning="mix",
            seed=1,
            start=self.start,
            facts=self.facts,
            out=out / "model",
            history=out / "history.parquet",
            trace=out / "trace.safetensors",
            snapshots=self.snapshots(name, snapshots),
        )

    def start_child(self, name: str) -> int:
        """Fork: the child has everything imported, so a kill falls into the run itself."""
        child = os.fork()
        if child == 0:
            try:
                torch.set_num_threads(1)
                self.run(name)
                os._exit(0)
            except BaseException:
                os._exit(1)
        return child

    def files(self, name: str) -> dict[str, bytes]:
        out = self.folder / name
        return {
            str(path.relative_to(out)): path.read_bytes()
            for path in sorted(out.rglob("*"))
            if path.is_file()
        }


def test_killed_again_and_again_a_run_ends_with_the_same_bytes(llama: Tiny, tmp_path: Path) -> None:
    study = Study(llama, tmp_path)
    begin = time.monotonic()
    study.run("whole")
    whole = time.monotonic() - begin
    draw = random.Random(0)
    killed, resumable = 0, 0
    while killed < KILLS:
        child = study.start_child("broken")
        time.sleep(draw.uniform(0.1, 0.35) * whole)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        # A run that ended before the kill begins anew, so that every kill hits a living run.
        if os.WIFSIGNALED(status):
            killed += 1
            resumable += any(study.state("broken").glob("*.safetensors"))
        else:
            assert os.WEXITSTATUS(status) == 0
            (study.folder / "broken" / "history.parquet").unlink()
    assert resumable >= KILLS // 2
    study.run("broken")
    assert study.files("broken") == study.files("whole")
    assert not list(study.state("broken").iterdir())


def test_stopped_at_any_update_a_run_goes_on_where_it_was(tiny: Tiny, tmp_path: Path) -> None:
    examples = mix_of(tiny)
    settings = recipe(updates=5)
    whole = copy.deepcopy(tiny.model)
    trace = GradientTrace(whole, sides(tiny))
    history = train(whole, examples, settings, 4, trace=trace)
    for stop in range(1, 5):
        path = tmp_path / f"{stop}.safetensors"

        def interrupt(update: int, loss: float, stop: int = stop) -> None:
            if update == stop + 1:
                raise KeyboardInterrupt

        first = copy.deepcopy(tiny.model)
        watched = GradientTrace(first, sides(tiny))
        with pytest.raises(KeyboardInterrupt):
            train(
                first,
                examples,
                settings,
                4,
                trace=watched,
                checkpoint=Checkpoint(path, 0.0),
                watch=interrupt,
            )
        second = copy.deepcopy(tiny.model)
        resumed = GradientTrace(second, sides(tiny))
        seen: list[int] = []
        result = train(
            second,
            examples,
            settings,
            4,
            trace=resumed,
            checkpoint=Checkpoint(path, 1e9),
            watch=lambda update, loss, seen=seen: seen.append(update),
        )
        assert seen[0] == stop
        assert result.tobytes() == history.tobytes()
        assert all(
            torch.equal(a, b) for a, b in zip(second.parameters(), whole.parameters(), strict=True)
        )
        assert resumed.counts == trace.counts
        assert all(torch.equal(resumed.sums[key], trace.sums[key]) for key in trace.sums)


def test_states_that_take_long_to_write_are_written_rarely(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, lasts = 0.0, iter((0.5, 3.0, 0.1))

    def write(*_: object) -> None:
        nonlocal now
        now += next(lasts)

    monkeypatch.setattr("factrecall.runtime.checkpoint.time.monotonic", lambda: now)
    monkeypatch.setattr("factrecall.runtime.checkpoint.write_tensors", write)
    checkpoint = Checkpoint(tmp_path / "state.safetensors", 10.0)
    for pause in (10.0, 150.0, 10.0):
        checkpoint.save({}, {})
        now += pause - 1
        assert not checkpoint.due() and checkpoint.due(last=True)
        now += 1
        assert checkpoint.due()


def test_the_key_depends_on_settings_and_on_the_bytes_of_files(tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_text("one")
    key = work_key({"updates": 3}, [file])
    assert key == work_key({"updates": 3}, [file])
    assert key != work_key({"updates": 4}, [file])
    file.write_text("two")
    assert key != work_key({"updates": 3}, [file])


def test_another_recipe_does_not_take_up_the_state(llama: Tiny, tmp_path: Path) -> None:
    study = Study(llama, tmp_path)
    child = study.start_child("mixed")
    saved = 0
    while saved < 12:  # past the warm-up, which both recipes share
        time.sleep(0.01)
        for path in study.state("mixed").glob("*.safetensors"):
            saved = read_tensors(path)[1]["update"]
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    study.run("mixed", updates=20)
    study.run("clean", updates=20)
    left = {f: b for f, b in study.files("mixed").items() if not f.startswith("state")}
    assert left != {} and left == study.files("clean")


@pytest.mark.parametrize("damage", [b"", b"not a tensor file", None])
def test_a_damaged_state_is_put_aside(llama: Tiny, tmp_path: Path, damage: bytes | None) -> None:
    path = tmp_path / "state.safetensors"
    examples = mix_of(llama)
    first = copy.deepcopy(llama.model)
    expected = train(first, examples, recipe(), 4, checkpoint=Checkpoint(path, 0.0))
    path.write_bytes(path.read_bytes()[:5000] if damage is None else damage)
    (tmp_path / f".{path.name}.1-abc.tmp").write_bytes(b"half")
    second = copy.deepcopy(llama.model)
    again = train(second, examples, recipe(), 4, checkpoint=Checkpoint(path, 1e9))
    assert again.tobytes() == expected.tobytes()
    assert not list(tmp_path.glob("*.tmp")) and not list(tmp_path.glob(".*.tmp"))


def test_two_runs_share_no_state_and_anything_of_the_start_makes_another(
    llama: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = Study(llama, tmp_path)
    keys: list[str] = []

    class Stop(Exception):
        pass

    def stop(checkpoint: Checkpoint, path: Path, seconds: float) -> None:
        keys.append(path.name)
        raise Stop

    monkeypatch.setattr(Checkpoint, "__init__", stop)

    def key(name: str = "one", updates: int = 3) -> str:
        with pytest.raises(Stop):
            study.run(name, updates)
        return keys[-1]

    usual = key()
    assert key() == usual
    assert len({usual, key("two"), key(updates=4)}) == 3
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        path = study.start / name
        text = path.read_text(encoding="utf-8")
        path.write_text(f"{text} ", encoding="utf-8")
        assert key() != usual
        path.write_text(text, encoding="utf-8")
    assert key() == usual


def test_half_written_outputs_of_a_killed_run_are_removed(llama: Tiny, tmp_path: Path) -> None:
    study = Study(llama, tmp_path)
    out = tmp_path / "one"
    (out / ".model.17-abc.tmp").mkdir(parents=True)
    (out / ".model.17-abc.tmp" / "model.safetensors").write_bytes(b"half")
    for name in ("history.parquet", "trace.safetensors", "2of2.safetensors"):
        (out / f".{name}.17-abc.tmp").write_bytes(b"half")
    study.run("one", updates=3)
    assert {path.name for path in out.iterdir()} == {
        "model",
        "history.parquet",
        "trace.safetensors",
        "1of2.safetensors",
        "2of2.safetensors",
        "state",
    }


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_asked_to_leave_a_command_saves_its_state_and_goes_on_later(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    tune = workspace.command("fine-tune")
    names = ("history.parquet", "trace.safetensors", "1of2.safetensors", "2of2.safetensors")
    outputs = [workspace.folder / "out" / name for name in names]
    outputs.append(workspace.folder / "out/model/model.safetensors")
    assert main(tune) == 0
    whole = [path.read_bytes() for path in outputs]
    shutil.rmtree(workspace.folder / "out")

    @contextmanager
    def signalled(total: int, title: str, unit: str) -> Iterator[Callable[..., None]]:
        def watch(done: int, loss: float = 0.0) -> None:
            if done == 2:
                signal.raise_signal(number)

        yield watch

    with monkeypatch.context() as patch:
        patch.setattr(progress_module, "progress", signalled)
        assert main(tune) == 128 + number
    assert not (workspace.folder / "out").exists()
    (state,) = (workspace.folder / "state").glob("?" * 32 + ".safetensors")
    assert read_tensors(state)[1]["update"] == 2
    assert main(tune) == 0
    assert [path.read_bytes() for path in outputs] == whole
    assert not list((workspace.folder / "state").iterdir())
