"""Moments of a training history."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Moment:
    """A moment of a training history: the tuning, which part of it is over, and the weights.

    These are a model folder or a snapshot.
    """

    phase: str
    share: float
    weights: Path
