"""Schedule of dual averaging: how many updates its masks take."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from factrecall.experiments.grafting.settings import DualAveraging

PATH_POINTS = 12
"""Points between θpre and θtask at which the gradient is taken to begin with."""

FIRST = 3
"""How many times more updates the first size gets."""


def updates_of(settings: DualAveraging, sizes: int) -> int:
    """Return how many batches `dual_averaging` takes for so many sizes."""
    return PATH_POINTS + settings.updates * (sizes + FIRST - 1)
