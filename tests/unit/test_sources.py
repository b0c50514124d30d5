"""Pre-trained models: pinned at first use, refused when they differ, nothing but data copied."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from factrecall.config.model import Folder, Hub
from factrecall.models.loading import load_model, load_tokenizer, save_model
from factrecall.models.sources import fetch
from factrecall.runtime.errors import FactRecallError
from tests.conftest import Tiny, scratch

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OTHER = "f" * 40
TRAINING = scratch("llama").training


@pytest.fixture
def model(tiny: Tiny, tmp_path: Path) -> Path:
    """A model folder named by a commit, with things in it that must stay behind."""
    folder = tmp_path / "snapshots" / COMMIT
    save_model(folder, tiny.model, tiny.tokenizer)
    (folder / "modeling.py").write_text("raise SystemExit")
    (folder / "README.md").write_text("")
    torch.save({}, folder / "pytorch_model.bin")
    (folder / "pytorch_model.bin.index.json").write_text("{}")
    (folder / "original").mkdir()
    (folder / "original" / "params.json").write_text("{}")
    return folder


def from_folder(path: Path) -> Folder:
    return Folder(source="folder", path=path, training=TRAINING)


def from_hub(revision: str | None = None) -> Hub:
    return Hub(source="hub", repository="some/model", revision=revision, training=TRAINING)


def only_lock(tmp_path: Path) -> Path:
    (lock,) = (tmp_path / "locks").iterdir()
    return lock


def test_the_first_use_writes_the_lock_and_copies_data_only(model: Path, tmp_path: Path) -> None:
    fetch(from_folder(model), tmp_path / "locks", tmp_path / "out")
    copied = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= copied
    assert not copied & {"modeling.py", "README.md", "pytorch_model.bin", "original"}
    assert "pytorch_model.bin.index.json" not in copied
    lock = json.loads(only_lock(tmp_path).read_text())
    assert set(lock["files"]) == copied
    assert lock["revision"] is None
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (
        model / "model.safetensors"
    ).read_bytes()
    load_model(tmp_path / "out")
    load_tokenizer(tmp_path / "out")


def test_the_second_use_agrees_with_the_lock(model: Path, tmp_path: Path) -> None:
    fetch(from_folder(model), tmp_path / "locks", tmp_path / "out")
    lock = only_lock(tmp_path).read_bytes()
    fetch(from_folder(model), tmp_path / "locks", tmp_path / "again")
    assert only_lock(tmp_path).read_bytes() == lock
    assert (tmp_path / "again" / "config.json").exists()


@pytest.mark.parametrize("change", ["changed", "added", "removed"])
def test_a_file_that_differs_from_the_lock_is_refused(
    model: Path, tmp_path: Path, change: str
) -> None:
    fetch(from_folder(model), tmp_path / "locks", tmp_path / "out")
    name = {"changed": "model.safetensors", "added": "model-2.safetensors"}.get(
        change, "generation_config.json"
    )
    if change == "removed":
        (model / name).unlink()
    else:
        weights = bytearray((model / "model.safetensors").read_bytes())
        weights[-1] ^= 1
        (model / name).write_bytes(weights)
    with pytest.raises(FactRecallError) as caught:
        fetch(from_folder(model), tmp_path / "locks", tmp_path / "again")
    assert name in caught.value.why and str(only_lock(tmp_path)) in caught.value.why
    assert not (tmp_path / "again").exists()


def test_pickled_weights_are_refused(model: Path, tmp_path: Path) -> None:
    (model / "model.safetensors").unlink()
    with pytest.raises(FactRecallError, match="pickled weights"):
        fetch(from_folder(model), tmp_path / "locks", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "locks").exists()


def test_a_model_that_cannot_be_used_is_not_locked(model: Path, tmp_path: Path) -> None:
    (model / "tokenizer.json").write_text("{")
    with pytest.raises(FactRecallError, match="tokenizer"):
        fetch(from_folder(model), tmp_path / "locks", tmp_path / "out")
    assert not (tmp_path / "locks").exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"name": 1, "revision": 2}'])
def test_a_damaged_lock_is_told(model: Path, tmp_path: Path, content: str) -> None:
    fetch(from_folder(model), tmp_path / "locks", tmp_path / "out")
    lock = only_lock(tmp_path)
    lock.write_text(content)
    with pytest.raises(FactRecallError) as caught:
        fetch(from_folder(model), tmp_path / "locks", tmp_path / "again")
    assert caught.value.where == str(lock)


def test_two_folders_of_one_name_have_locks_of_their_own(model: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere" / model.name
    save_model(other, load_model(model), load_tokenizer(model))
    fetch(from_folder(model), tmp_path / "locks", tmp_path / "a")
    fetch(from_folder(other), tmp_path / "locks", tmp_path / "b")
    assert len(list((tmp_path / "locks").iterdir())) == 2


def test_the_hub_is_asked_for_the_locked_revision(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str | None]] = []

    def download(repository: str, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((repository, revision))
        assert not any(".bin" in p or ".py" in p or p == "*" for p in allow_patterns)
        return str(model)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    fetch(from_hub(), tmp_path / "locks", tmp_path / "a")
    assert json.loads(only_lock(tmp_path).read_text())["revision"] == COMMIT
    fetch(from_hub(), tmp_path / "locks", tmp_path / "b")
    assert asked == [("some/model", None), ("some/model", COMMIT)]


def test_a_revision_other_than_the_locked_one_is_refused(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *a, **k: str(model))
    fetch(from_hub(COMMIT), tmp_path / "locks", tmp_path / "a")
    moved = model.rename(model.with_name(OTHER))
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *a, **k: str(moved))
    with pytest.raises(FactRecallError, match=f"revision {OTHER}, locked {COMMIT}"):
        fetch(from_hub(OTHER), tmp_path / "locks", tmp_path / "b")


@pytest.mark.parametrize(
    "error",
    [
        OSError("Cannot access gated repo for url https://x.\nAccess is restricted."),
        ConnectionError("offline mode is enabled"),
        ValueError(""),
    ],
)
def test_a_download_that_fails_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def download(*_: object, **__: object) -> str:
        raise error

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    with pytest.raises(FactRecallError) as caught:
        fetch(from_hub(), tmp_path / "locks", tmp_path / "out")
    assert caught.value.where == "model some/model"
    assert (str(error).split("\n")[0] or "ValueError") in caught.value.why
    assert "\n" not in caught.value.why
    assert "hf auth login" in caught.value.remedy and "source: folder" in caught.value.remedy
    assert list(tmp_path.iterdir()) == []
