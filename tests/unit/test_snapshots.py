"""Snapshots: the weights of the moment, whatever happened to the run in between."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from factrecall.models import loading
from factrecall.models.loading import load_model, save_model
from factrecall.models.scratch import build_model
from factrecall.runtime import progress as progress_module
from factrecall.runtime.checkpoint import Checkpoint
from factrecall.runtime.errors import DamagedFile, FactRecallError
from factrecall.runtime.safetensors_writer import read_tensors
from factrecall.training import snapshots
from factrecall.training.snapshots import load_weights
from tests.conftest import Tiny, scratch
from tests.unit.test_resume import Study

UPDATES = 10


@contextmanager
def watching(monkeypatch: pytest.MonkeyPatch, watch: Callable[[int], None]) -> Iterator[None]:
    """Call a function with the number of updates done after each of them."""

    @contextmanager
    def progress(total: int, title: str, unit: str) -> Iterator[Callable[..., None]]:
        yield lambda update, loss: watch(update)

    with monkeypatch.context() as patch:
        patch.setattr(progress_module, "progress", progress)
        yield


@contextmanager
def stopping(monkeypatch: pytest.MonkeyPatch, at: int) -> Iterator[None]:
    """Stop a training after some updates, before it saves."""

    def stop(update: int) -> None:
        if update == at:
            raise RuntimeError("stopped")

    with watching(monkeypatch, stop), pytest.raises(RuntimeError, match="stopped"):
        yield


def outputs(study: Study, name: str) -> dict[str, bytes]:
    assert not list(study.state(name).iterdir())
    return study.files(name)


@pytest.mark.parametrize(("count", "moments"), [(0, []), (1, [5]), (3, [2, 5, 8])])
def test_they_are_the_weights_after_their_updates(
    tiny: Tiny,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    count: int,
    moments: list[int],
) -> None:
    study = Study(tiny, tmp_path)
    weights: list[dict[str, torch.Tensor]] = []
    live: list[torch.nn.Module] = []

    def load(*arguments: object) -> torch.nn.Module:
        live.append(load_model(*arguments))  # type: ignore[arg-type]
        return live[-1]

    with watching(monkeypatch, lambda _: weights.append(copy.deepcopy(live[-1].state_dict()))):
        monkeypatch.setattr(loading, "load_model", load)
        study.run("one", UPDATES, snapshots=count)
    assert len(weights) == UPDATES + 1
    assert len(list((tmp_path / "one").glob("*of*.safetensors"))) == count
    for i, (path, moment) in enumerate(zip(study.snapshots("one", count), moments, strict=True)):
        tensors, metadata = read_tensors(path)
        assert metadata["share"] == (i + 1) / (count + 1) and metadata["update"] == moment
        assert metadata["provenance"] == {"test": True}
        assert set(tensors) == {name for name, _ in live[-1].named_parameters()}
        assert all(torch.equal(t, weights[moment][name]) for name, t in tensors.items())
        model = copy.deepcopy(tiny.model)
        load_weights(model, path)
        assert all(torch.equal(p, weights[moment][n]) for n, p in model.named_parameters())
    model = copy.deepcopy(tiny.model)
    load_weights(model, tmp_path / "one/model")
    assert all(torch.equal(p, weights[-1][n]) for n, p in model.named_parameters())
    assert outputs(study, "one")


def test_more_moments_than_updates_fall_together(llama: Tiny, tmp_path: Path) -> None:
    study = Study(llama, tmp_path)
    study.run("one", 3, snapshots=6)
    taken = [read_tensors(path) for path in study.snapshots("one", 6)]
    assert [metadata["update"] for _, metadata in taken] == [0, 1, 1, 2, 2, 3]
    start = load_model(study.start)
    assert all(torch.equal(taken[0][0][n], p) for n, p in start.named_parameters())


@pytest.mark.parametrize("checkpoint_interval_s", [0.0, 1e9])
def test_a_run_that_goes_on_has_the_same(
    llama: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoint_interval_s: float
) -> None:
    study = Study(llama, tmp_path)
    study.run("whole", UPDATES)
    for at in (3, 4, 8, UPDATES):  # moments are 3 and 7
        with stopping(monkeypatch, at):
            study.run("broken", UPDATES, checkpoint_interval_s=checkpoint_interval_s)
        assert not any(path.exists() for path in study.snapshots("broken"))
    study.run("broken", UPDATES, checkpoint_interval_s=checkpoint_interval_s)
    assert outputs(study, "broken") == outputs(study, "whole")


def test_stopped_while_they_are_put_in_place(
    llama: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = Study(llama, tmp_path)
    study.run("whole", UPDATES)
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "remove", lambda self: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            study.run("broken", UPDATES)
    assert all(path.exists() for path in study.snapshots("broken"))
    # The workflow deletes the outputs of a job that failed.
    shutil.rmtree(tmp_path / "broken/model")
    for path in (tmp_path / "broken").glob("*.*"):
        path.unlink()
    study.run("broken", UPDATES)
    assert outputs(study, "broken") == outputs(study, "whole")


def test_without_its_snapshots_a_run_begins_anew(
    llama: Tiny,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    study = Study(llama, tmp_path)
    study.run("whole", UPDATES)
    with stopping(monkeypatch, 5):
        study.run("broken", UPDATES, checkpoint_interval_s=0.0)
    (part,) = study.state("broken").glob("*.snapshot1.safetensors")
    part.unlink()
    study.run("broken", UPDATES)
    assert "a snapshot of it is gone" in capsys.readouterr().err
    assert outputs(study, "broken") == outputs(study, "whole")


def test_half_written_parts_are_removed(
    llama: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = Study(llama, tmp_path)
    with stopping(monkeypatch, 3):
        study.run("one", UPDATES)
    (part,) = study.state("one").glob("*.snapshot1.safetensors")
    part.with_name(f".{part.name}.17-abc.tmp").write_bytes(b"half")
    study.run("one", UPDATES)
    assert outputs(study, "one")


def test_another_number_than_the_study_asks_for_is_told(
    llama: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = Study(llama, tmp_path)
    monkeypatch.setattr(study, "snapshots", lambda name, count: [tmp_path / "x"])
    with pytest.raises(FactRecallError, match=r"1 files\n.* asks for 2 \(trace.checkpoints\)"):
        study.run("one", UPDATES)


def test_weights_that_do_not_fit_are_told(tiny: Tiny, tmp_path: Path) -> None:
    study = Study(tiny, tmp_path)
    study.run("one", 3)
    (path, _) = study.snapshots("one")
    other = build_model(scratch(tiny.architecture, hidden_size=16), tiny.tokenizer, seed=1)
    save_model(tmp_path / "other", other, tiny.tokenizer)
    before = copy.deepcopy(other.state_dict())
    for found in (path, tmp_path / "one/model"):
        with pytest.raises(FactRecallError, match="different parameter spaces"):
            load_weights(other, found)
    assert all(torch.equal(tensor, before[name]) for name, tensor in other.state_dict().items())
    with pytest.raises(FactRecallError, match="no such file"):
        load_weights(tiny.model, tmp_path / "none")
    with pytest.raises(DamagedFile, match="no 'share'"):
        load_weights(tiny.model, tmp_path / "one/trace.safetensors")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DamagedFile):
        snapshots.load_weights(tiny.model, path)
