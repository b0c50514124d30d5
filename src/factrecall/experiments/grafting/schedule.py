"""Schedule of mask optimisers: how many updates they make."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from factrecall.experiments.grafting.settings import DualAveraging, SigmoidSGD

PATH_POINTS = 12
"""Points between θpre and θtask at which the gradient is taken to begin with."""

FIRST = 3
"""How many times more updates the first size gets."""


def updates_of(settings: DualAveraging | SigmoidSGD, sizes: int) -> int:
    """Return how many batches an optimiser takes for so many sizes, at most."""
    if settings.method == "sigmoid_sgd":
        return settings.updates * sizes
    return PATH_POINTS + settings.updates * (sizes + FIRST - 1)
