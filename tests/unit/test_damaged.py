"""A damaged file of the study is moved aside by the job that finds it, and by nothing else."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from factrecall.cli import main
from factrecall.models.loading import load_model
from factrecall.parameters.sets import ParameterSet, read_sets, write_sets
from factrecall.parameters.space import ParameterSpace
from factrecall.runtime import safetensors_writer
from factrecall.runtime.errors import DamagedFile, FactRecallError
from factrecall.runtime.safetensors_writer import read_tensors, write_tensors
from factrecall.runtime.storage import read_table, write_table
from tests.conftest import Workspace

PLACES = {"bio.parquet": b"no table", "base/tokenizer.json": b"{", "base/model.safetensors": b""}


@pytest.fixture
def job(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The workspace as a study's results folder, in which a workflow runs."""
    folder = workspace.folder
    (folder / "studies").mkdir()
    shutil.copy(workspace.study, folder / "studies" / "0.json")
    monkeypatch.setenv("FACTRECALL_STUDY", str(folder / "studies" / "0.json"))
    monkeypatch.setenv("FACTRECALL_RUN", "0000000001")
    return folder


@pytest.mark.parametrize("name", PLACES)
def test_a_job_moves_a_damaged_file_aside(
    job: Path, workspace: Workspace, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    damaged = job / name.split("/")[0]  # a model folder goes as a whole
    for _ in range(2):  # what was moved aside before gives way
        whole = job / "whole"
        copy = shutil.copytree if damaged.is_dir() else shutil.copy
        copy(damaged, whole)
        (job / name).write_bytes(PLACES[name])
        assert main(workspace.command("recall")) == 2
        said = capsys.readouterr().err
        assert f"remedy: run again: it was moved to {damaged}.damaged" in said
        assert not damaged.exists() and not (job / "out").exists()
        whole.rename(damaged)
    aside = job / (f"{name}.damaged" if "/" not in name else name.replace("/", ".damaged/"))
    assert aside.read_bytes() == PLACES[name]
    assert main(workspace.command("recall")) == 0


def test_nothing_is_moved_without_a_workflow_or_outside_the_study(
    job: Path,
    workspace: Workspace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (job / "bio.parquet").rename(tmp_path / "mine.parquet")
    (tmp_path / "mine.parquet").write_bytes(b"mine")
    for place in ("../mine.parquet", "bio.parquet"):
        if place == "bio.parquet":  # a link out of the study
            (job / place).symlink_to(tmp_path / "mine.parquet")
        assert main(workspace.command("recall", bio=place)) == 2
        assert "remedy: delete it" in capsys.readouterr().err
        assert (tmp_path / "mine.parquet").read_bytes() == b"mine" and (job / place).exists()
    monkeypatch.delenv("FACTRECALL_RUN")
    (job / "qa.parquet").write_bytes(b"")
    (job / "bio.parquet").unlink()
    assert main(workspace.command("recall", bio="qa.parquet")) == 2
    assert "remedy: delete it" in capsys.readouterr().err
    assert (job / "qa.parquet").exists() and not list(job.rglob("*.damaged"))


def test_what_cannot_be_moved_is_told_as_before(
    job: Path,
    workspace: Workspace,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    (job / "bio.parquet").write_bytes(b"")
    monkeypatch.setattr("factrecall.cli.os.replace", refuse)
    monkeypatch.setattr("factrecall.cli.Lease.__enter__", lambda lease: lease)
    monkeypatch.setattr("factrecall.cli.Lease.__exit__", lambda *_: None)
    assert main(workspace.command("recall")) == 2
    assert "remedy: delete it" in capsys.readouterr().err
    assert (job / "bio.parquet").exists()


def test_a_table_of_another_version_is_moved_aside(
    job: Path, workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    table = pq.read_table(job / "qa.parquet")
    pq.write_table(table.drop_columns(["terminator_end"]), job / "qa.parquet")
    assert main(workspace.command("recall")) == 2
    said = capsys.readouterr().err
    assert "column 'terminator_end' is missing" in said and "was moved to" in said
    assert (job / "qa.parquet.damaged").exists()


# --- what is damaged, and what is not ------------------------------------------------------------


@pytest.mark.parametrize("kind", ["table", "tensors"])
def test_no_flipped_bit_changes_what_is_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x"
    numbers = np.random.default_rng(0).random(500)
    if kind == "table":
        write_table(path, pd.DataFrame({"a": numbers}), {"a": "float64"})
    else:
        write_tensors(path, {"a": torch.from_numpy(numbers)}, {"n": 500})
    content, told = path.read_bytes(), 0
    places = range(4, 4_000, 37)
    for place in places:
        flipped = bytearray(content)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        try:
            table = kind == "table"
            back = read_table(path)["a"] if table else read_tensors(path)[0]["a"].numpy()
        except DamagedFile:
            told += 1
        else:  # not all that a file says of its content is of use
            np.testing.assert_array_equal(back, numbers)
    assert told >= 0.9 * len(places)


def test_a_machine_that_fails_to_read_makes_no_file_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(error: BaseException) -> Callable[..., None]:
        def read(*_: object, **__: object) -> None:
            raise error

        return read

    (tmp_path / "x").write_bytes(b"x")
    no_memory = pa.ArrowMemoryError("malloc of size 64 failed")
    for error in (OSError(errno.EIO, "Input/output error"), PermissionError(13, "no"), no_memory):
        monkeypatch.setattr(pq, "read_table", fail(error))
        with pytest.raises(FactRecallError, match="it cannot be read") as caught:
            read_table(tmp_path / "x")
        assert not isinstance(caught.value, DamagedFile)
    for error in (OSError("Input/output error"), FileNotFoundError("permission denied")):
        monkeypatch.setattr(safetensors_writer, "safe_open", fail(error))
        with pytest.raises(FactRecallError, match="it cannot be read") as caught:
            read_tensors(tmp_path / "x")
        assert not isinstance(caught.value, DamagedFile)


def test_a_model_that_a_library_fails_to_open_is_not_damaged(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", fail)
    with pytest.raises(FactRecallError) as caught:
        load_model(workspace.folder / "base")
    assert not isinstance(caught.value, DamagedFile)
    (workspace.folder / "base" / "model.safetensors").unlink()
    with pytest.raises(DamagedFile):
        load_model(workspace.folder / "base")


def test_an_intact_file_of_another_model_is_told_with_both_fingerprints_and_stays(
    tmp_path: Path,
) -> None:
    one, other = (ParameterSpace(("a",), ((size,),)) for size in (3, 4))
    write_sets(tmp_path / "S", {"S": ParameterSet.empty(one)})
    with pytest.raises(FactRecallError) as caught:
        read_sets(tmp_path / "S", other)
    assert not isinstance(caught.value, DamagedFile)
    assert caught.value.where == str(tmp_path / "S")
    assert one.fingerprint in caught.value.why and other.fingerprint in caught.value.why
    assert "delete them and run the workflow again" in caught.value.remedy
