"""Pre-trained models from the hub, a folder or a GGUF file: pinned, hashed, copied.

At first use the revision and the hash of every file are written to a models lock; later a file
that differs is refused. The reason is not only malice: public reports say that some branches of
EleutherAI/pythia-2.8b hold wrong weights (EleutherAI/pythia#205).
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from factrecall.models.gguf import dequantise
from factrecall.models.loading import load_tokenizer
from factrecall.runtime.errors import FactRecallError
from factrecall.runtime.storage import atomic, write_text

if TYPE_CHECKING:
    from factrecall.config.model import Fetched

WANTED = ("*.json", "*.safetensors", "*.model", "*.txt")
"""What a model folder needs: weights as safetensors only, never pickles, never code."""


def fetch(settings: Fetched, locks: Path, out: Path) -> None:
    """Copy a pre-trained model to `out`, checked against its lock.

    Parameters
    ----------
    settings : Hub, Folder or Gguf
        Where the model is.
    locks : Path
        Folder of the models locks (``envs/models``).
    out : Path
        The model folder to write; weights keep their stored precision, those of a GGUF file become
        float32.

    Raises
    ------
    FactRecallError
        When the model cannot be had, has no safetensors weights or no fast tokenizer, differs from
        its lock, or is a GGUF file that the library does not read as it is.
    """
    lock = locks / f"{_lock_name(settings)}.json"
    locked = _read_lock(lock)
    if settings.source == "hub":
        name = settings.repository
        revision = settings.revision or (locked["revision"] if locked else None)
        source = _download(name, revision)
        revision = source.name  # a snapshot folder is named by the commit it holds
    else:
        name, revision, source = str(settings.path), None, settings.path
    files = _files(source)
    if settings.source != "gguf" and not any(file.endswith(".safetensors") for file in files):
        raise FactRecallError(
            name,
            "it holds no safetensors weights; pickled weights can run code and are not opened",
            "convert it once with transformers (from_pretrained, then save_pretrained) and use "
            "source: folder",
        )
    entry: dict[str, Any] = {"name": name, "revision": revision, "files": files}
    if locked is not None:
        _compare(lock, locked, entry)
    with atomic(out) as temporary:
        temporary.mkdir()
        if settings.source == "gguf":
            dequantise(source, temporary)
        else:
            for file in files:
                shutil.copyfile(source / file, temporary / file)
        load_tokenizer(temporary)
    if locked is None:
        write_text(lock, json.dumps(entry, indent=2, sort_keys=True) + "\n")


def _files(source: Path) -> dict[str, str]:
    """Return the hash of a model's file, or of each file of its folder that is needed."""
    if source.is_file():
        return {source.name: _sha256(source)}
    return {
        path.name: _sha256(path)
        for pattern in WANTED
        for path in sorted(source.glob(pattern))
        if not path.name.endswith(".index.json") or "safetensors" in path.name
    }


def _read_lock(lock: Path) -> dict[str, Any] | None:
    if not lock.exists():
        return None
    try:
        locked: dict[str, Any] = json.loads(lock.read_text(encoding="utf-8"))
        return {key: locked[key] for key in ("name", "revision", "files")}
    except (ValueError, KeyError, TypeError) as error:
        raise FactRecallError(
            str(lock),
            f"it is no models lock ({type(error).__name__}: {error})",
            "restore it from version control; to trust the model as it is now, delete it",
        ) from error


def _download(repository: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(repository, revision=revision, allow_patterns=list(WANTED))
        ).resolve()
    except Exception as error:  # network, authorisation and look-up errors share no base class
        first = (str(error) or type(error).__name__).strip().splitlines()[0][:200]
        raise FactRecallError(
            f"model {repository}",
            f"the hub does not give it: {first}",
            "check the name, the network and, for gated models such as Llama, that you accepted "
            "the licence and are logged in (`hf auth login`); or download it elsewhere and use "
            "source: folder",
        ) from error


def _compare(lock: Path, locked: dict[str, Any], found: dict[str, Any]) -> None:
    names = sorted(set(locked["files"]) | set(found["files"]))
    changed = [n for n in names if locked["files"].get(n) != found["files"].get(n)]
    if found["revision"] != locked["revision"]:
        changed.append(f"revision {found['revision']}, locked {locked['revision']}")
    if changed:
        raise FactRecallError(
            f"model {found['name']}",
            f"it differs from {lock}: {', '.join(changed)}",
            "if the change is intended, delete that lock file and run again; else restore the "
            "model or its revision",
        )


def _lock_name(settings: Fetched) -> str:
    """Return a file name for a lock: readable, and safe whatever the name holds."""
    if settings.source == "hub":
        text = settings.repository
    else:  # a file may lie in the project: its lock is to hold in every copy of it
        text = str(settings.path if settings.source == "gguf" else settings.path.resolve())
    readable = "".join(c if c.isalnum() or c in "-." else "-" for c in text.split("/")[-1])
    return f"{readable[:40]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
