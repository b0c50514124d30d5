"""Grafted models of a study and their files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from factrecall.runs import Run


@dataclass(frozen=True)
class Graft(Run):
    """The files of one grafted model, by the stage that writes them.

    `graft`: outcomes (`table`), `checks` and fitted `masks`; `graft_without_shared`: outcomes
    (`without`) and how much of the largest changes is in S (`shares`); `sets`: the shared sets.
    """

    split: str
    table: Path
    checks: Path
    masks: Path
    without: Path
    shares: Path
    sets: Path

    @property
    def labels(self) -> dict[str, Any]:
        """The columns of a table that say which model and split it is of."""
        return {**super().labels, "split": self.split}
