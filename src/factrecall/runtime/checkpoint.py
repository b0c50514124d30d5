"""Checkpoints: interrupted work resumes from its last saved state.

The state of a long loop is one file outside the outputs of its workflow rule, which the workflow
deletes before each start. It is named by a hash of everything that determines the work, so that
stale state is never resumed from.
"""

from __future__ import annotations

import glob
import hashlib
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from factrecall.runtime import signals
from factrecall.runtime.errors import DamagedFile
from factrecall.runtime.safetensors_writer import read_tensors, write_tensors
from factrecall.runtime.storage import APART, remove_leftovers, to_json, unreadable

if TYPE_CHECKING:
    import torch

State = tuple[dict[str, "torch.Tensor"], dict[str, Any]]
"""Tensors by name, and plain values."""


def work_key(identity: Mapping[str, Any], files: Sequence[Path]) -> str:
    """Hash settings, versions and the bytes of input files.

    Raises
    ------
    FactRecallError
        When a file is missing or cannot be read.
    """
    digest = hashlib.sha256(to_json(dict(identity)).encode())
    for path in files:
        try:
            with path.open("rb") as handle:
                digest.update(hashlib.file_digest(handle, "sha256").digest())
        except OSError as error:
            raise unreadable(path, "file", error, damaged=False) from error
    return digest.hexdigest()[:32]


def files_of(paths: Sequence[Path]) -> list[Path]:
    """Return files, and of folders all files that are not hidden, by name."""
    found: list[Path] = []
    for path in paths:
        members = sorted(path.iterdir()) if path.is_dir() else [path]
        found += [p for p in members if p == path or (p.is_file() and p.name[0] != ".")]
    return found


class Checkpoint:
    """The state file of one piece of work.

    Within its block a shutdown request (`factrecall.runtime.signals`) makes the state due, and the
    work ends when it is saved.

    Parameters
    ----------
    path : Path
        The file; its name holds the work's key.
    seconds : float
        How often it is written; less often if it takes over a second (see `APART`).
    """

    def __init__(self, path: Path, seconds: float) -> None:
        self.path = path
        self._seconds, self._pause = seconds, seconds
        self._last = time.monotonic()
        self._block = ExitStack()

    @classmethod
    def of(
        cls, folder: Path, identity: Mapping[str, Any], files: Sequence[Path], seconds: float
    ) -> Checkpoint:
        """Return the checkpoint of what settings, versions and input files determine."""
        return cls(folder / f"{work_key(identity, files)}.safetensors", seconds)

    def __enter__(self) -> Checkpoint:
        self._block.enter_context(signals.defer_shutdown())
        return self

    def __exit__(self, *raised: Any) -> None:
        self._block.__exit__(*raised)

    def due(self, *, last: bool = False) -> bool:
        """Say whether the state should be written now."""
        waited = time.monotonic() - self._last
        return last or signals.shutdown_requested() or waited >= self._pause

    def save(self, tensors: Mapping[str, torch.Tensor], values: Mapping[str, Any]) -> None:
        """Write the state atomically; then raise `Interrupted` if a shutdown is requested."""
        begin = time.monotonic()
        write_tensors(self.path, tensors, values)
        self._last = time.monotonic()
        took = self._last - begin
        self._pause = max(self._seconds, APART * took if took > 1 else 0.0)
        signals.exit_if_requested()

    def restore(self) -> State | None:
        """Return the saved state, if there is one that can be read."""
        remove_leftovers(self.path)
        if not self.path.exists():
            return None
        try:
            state = read_tensors(self.path)
            print("resuming from the saved state", file=sys.stderr)
            return state
        except DamagedFile as error:
            # Only time is lost.
            print(f"saved state not usable, starting over: {error.why}", file=sys.stderr)
            self.path.unlink()
            return None

    def part(self, name: str) -> Checkpoint:
        """Return the checkpoint of a part of the work, whose state stays until all is done."""
        return Checkpoint(self.path.with_suffix(f".{name}.safetensors"), self._seconds)

    def remove(self) -> None:
        """Delete the state and those of all parts, once the outputs of the work are in place."""
        parts = self.path.parent.glob(f"{glob.escape(self.path.stem)}.*.safetensors")
        for path in (self.path, *parts):
            path.unlink(missing_ok=True)
