"""Grafted models of a study and their files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from factrecall.runs import Run


@dataclass(frozen=True)
class Graft(Run):
    """The files of one grafted model.

    Attributes
    ----------
    table, checks, masks : Path
        Of `graft`: outcomes, checks and fitted masks.
    without, shares : Path
        Of `graft_without_shared`: what is recovered, and how much of the largest changes is in S.
    sets : Path
        The model's shared sets.
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
