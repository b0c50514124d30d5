"""Interventions of a study and their files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from factrecall.runs import Run


@dataclass(frozen=True)
class Intervention(Run):
    """The files of one job of `intervene`."""

    kind: str
    ranking: str
    steps: Path
    curves: Path
    nodes: Path
    questions: Path

    @property
    def of_kind(self) -> dict[str, Any]:
        """The columns of a table that say which model and kind of nodes it is of."""
        return {**self.labels, "kind": self.kind}
