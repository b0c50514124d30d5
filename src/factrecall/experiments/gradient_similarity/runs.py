"""Moments of a training history and their weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Moment:
    """A moment of a training history.

    Attributes
    ----------
    phase : str
        The tuning: "bio", "stage" or "mix".
    share : float
        Which part of it is over: 0 at its start, 1 at its end.
    weights : Path
        A model folder or a snapshot.
    """

    phase: str
    share: float
    weights: Path
