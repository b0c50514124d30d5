"""Full and read-only disks: one message, the file of before, and nothing half-written."""

from __future__ import annotations

import gc
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from factrecall import cli
from factrecall.cli import main
from factrecall.models.loading import save_model
from factrecall.report.style import new_figure, save_figure
from factrecall.runtime.checkpoint import Checkpoint
from factrecall.runtime.errors import FactRecallError
from factrecall.runtime.safetensors_writer import read_tensors, write_tensors
from factrecall.runtime.storage import write_table, write_text
from tests.conftest import Tiny, Workspace

NUMBERS = np.random.default_rng(0).random(200_000)


def mount(*words: str) -> None:
    done = subprocess.run(["mount", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"mounting is not permitted here: {done.stderr.strip()}")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 8 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        mount("-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder))
    except FileNotFoundError:
        pytest.skip("there is no mount here")
    yield folder
    gc.collect()  # tracebacks keep states open
    subprocess.run(["umount", str(folder)], check=True)


def fill(disk: Path, but: int) -> None:
    """Leave so many bytes free."""
    with (disk / "filler").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            os.truncate(disk / "filler", file.tell() - but)


WRITERS: dict[str, Callable[[Path], object]] = {
    "table": lambda path: write_table(path, pd.DataFrame({"a": NUMBERS}), {"a": "float64"}),
    "tensors": lambda path: write_tensors(path, {"a": torch.from_numpy(NUMBERS)}, {}),
    "page": lambda path: write_text(path, "x" * 9_000_000),
}


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("refusal", ["full", "read-only"])
def test_what_was_there_stays_when_a_disk_refuses(disk: Path, kind: str, refusal: str) -> None:
    target = disk / "x"
    target.write_text("old")
    if refusal == "full":
        fill(disk, but=50_000)
    else:
        mount("-o", "remount,ro", str(disk))
    with pytest.raises(FactRecallError) as caught:
        WRITERS[kind](target)
    assert caught.value.where == f"cannot write {target}"
    said = {"full": "No space left on device", "read-only": "Read-only file system"}
    assert said[refusal] in caught.value.why
    assert target.read_text() == "old"
    assert {path.name for path in disk.iterdir()} <= {"x", "filler"}


def test_a_figure_on_a_full_disk_is_told(disk: Path) -> None:
    fill(disk, but=8192)
    data = pd.DataFrame({"a": NUMBERS})
    with new_figure(3) as figure, pytest.raises(FactRecallError, match="No space left"):
        figure.add_subplot().plot(NUMBERS[:999])
        save_figure(figure, data, disk / "recall", {"a": "float64"})
    assert [path.name for path in disk.iterdir()] == ["filler"]


@pytest.mark.parametrize("free", [0, 4096, 8192, 100_000])
def test_a_model_folder_is_whole_or_the_old_one(disk: Path, tiny: Tiny, free: int) -> None:
    """Weights, configuration and tokenizer each fail in a way of their library's own."""

    class NoWeights:
        def save_pretrained(self, folder: Path) -> None:
            folder.mkdir()

    (disk / "model").mkdir()
    (disk / "model" / "weights").write_text("old")
    fill(disk, but=free)
    for model in (tiny.model, NoWeights()) if free < 100_000 else (tiny.model,):
        with pytest.raises(FactRecallError, match="No space left"):
            save_model(disk / "model", model, tiny.tokenizer)  # type: ignore[arg-type]
    assert (disk / "model" / "weights").read_text() == "old"
    assert sorted(path.name for path in disk.iterdir()) == ["filler", "model"]


def test_a_state_that_cannot_be_saved_leaves_the_one_before(disk: Path) -> None:
    before = torch.arange(1000)
    checkpoint = Checkpoint(disk / "state.safetensors", seconds=0)
    with checkpoint:
        checkpoint.save({"a": before}, {"update": 1})
        fill(disk, but=4096)
        with pytest.raises(FactRecallError, match="what was there before is untouched"):
            checkpoint.save({"a": before + 1}, {"update": 2})
    tensors, values = read_tensors(disk / "state.safetensors")
    assert torch.equal(tensors["a"], before) and values == {"update": 1}


def test_a_training_stops_on_a_full_disk_and_goes_on_when_there_is_space(
    disk: Path, workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    command = workspace.command("fine-tune")
    assert main(command) == 0
    files = [path for path in (workspace.folder / "out").rglob("*") if path.is_file()]
    wanted = {path: path.read_bytes() for path in files}
    # Every update is saved, and the disk fills up between two of them.
    study = workspace.study.read_text(encoding="utf-8")
    workspace.study.write_text(
        study.replace("checkpoint_interval_s: 60.0", "checkpoint_interval_s: 0.000001")
    )
    command[command.index("--state") + 1] = str(disk)
    fill(disk, but=0)
    capsys.readouterr()
    assert main(command) == 2
    assert "No space left on device" in capsys.readouterr().err
    (disk / "filler").unlink()
    assert main(command) == 0
    assert {path: path.read_bytes() for path in wanted} == wanted


def test_any_refusal_of_a_disk_is_one_message(
    disk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mount("-o", "remount,ro", str(disk))
    monkeypatch.setattr(cli, "_validate", lambda _: (disk / "claim").write_text("mine"))
    assert main(["validate", "x"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"factrecall: cannot write {disk / 'claim'}\n  why:    Read-only")
