"""Which steps of a sweep are evaluated: every n-th one, or more of them where the curve bends.

The adaptive grid halves an interval while its middle is not on the line between its ends. Steps
drawn at random then test the lines: the grid is done when a fresh draw lies within the tolerance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from factrecall.experiments.circuits.settings import AdaptiveSteps, AllSteps

Evaluate = Callable[[int], float]
"""From a step to the curve's value there."""


@dataclass(frozen=True)
class Curve:
    """An evaluated curve.

    Attributes
    ----------
    values : dict of int to float
        By step; the first and the last step are always there.
    held_out : int
        How many steps tested the lines between the others and were then added to them.
    worst : float
        The largest distance of a tested step from its line; NaN if none was tested.
    """

    values: dict[int, float]
    held_out: int
    worst: float


def evaluate_curve(
    evaluate: Evaluate, steps: int, settings: AllSteps | AdaptiveSteps, rng: np.random.Generator
) -> Curve:
    """Evaluate a curve from step 0 to `steps`, as configured by `circuits.steps`."""
    if settings.method == "all":
        return regular_grid(evaluate, steps, settings.stride)
    bounds = settings.intervals, settings.tolerance, settings.held_out
    return adaptive_grid(evaluate, steps, *bounds, rng)


def regular_grid(evaluate: Evaluate, steps: int, stride: int) -> Curve:
    """Evaluate every `stride`-th step of 0 to `steps`, and the last."""
    chosen = sorted({*range(0, steps + 1, stride), steps})
    return Curve({step: evaluate(step) for step in chosen}, 0, float("nan"))


def adaptive_grid(
    evaluate: Evaluate,
    steps: int,
    intervals: int,
    tolerance: float,
    held_out: int,
    rng: np.random.Generator,
) -> Curve:
    """Evaluate more steps where the curve bends.

    Parameters
    ----------
    evaluate : callable
        From a step to the curve's value there.
    steps : int
        The last step; the first is 0.
    intervals : int
        How many intervals to begin with.
    tolerance : float
        How far a step may lie from the line between the evaluated steps around it.
    held_out : int
        How many steps test the lines. They are drawn from those not evaluated; while one of them
        is too far off, its intervals are refined and as many are drawn anew.
    rng : Generator
        Draws them.

    Returns
    -------
    Curve
        The tested steps are within `tolerance` of their lines; if no steps are left to test, all
        were evaluated.
    """
    known: dict[int, float] = {}

    def value(step: int) -> float:
        if step not in known:
            known[step] = evaluate(step)
        return known[step]

    def refine(low: int, high: int) -> None:
        if high - low < 2:
            return
        middle = (low + high) // 2
        if abs(value(middle) - _on_line(known, (low, high), middle)) > tolerance:
            refine(low, middle)
            refine(middle, high)

    grid = sorted({round(i * steps / intervals) for i in range(intervals + 1)})
    for step in grid:
        value(step)
    for low, high in pairwise(grid):
        refine(low, high)
    while True:
        evaluated = sorted(known)
        rest = np.setdiff1d(np.arange(steps + 1), evaluated)
        tested = np.sort(rng.choice(rest, min(held_out, len(rest)), replace=False)).tolist()
        off = {
            step: abs(value(step) - _on_line(known, _around(evaluated, step), step))
            for step in tested
        }
        worst = max(off.values(), default=float("nan"))
        if not worst > tolerance:
            return Curve(dict(sorted(known.items())), len(tested), worst)
        for step in tested:
            if off[step] > tolerance:
                low, high = _around(sorted(known.keys() - {step}), step)
                refine(low, step)
                refine(step, high)


def _around(steps: Sequence[int], step: int) -> tuple[int, int]:
    place = int(np.searchsorted(steps, step))
    return steps[place - 1], steps[place]


def _on_line(known: dict[int, float], ends: tuple[int, int], step: int) -> float:
    low, high = ends
    return known[low] + (known[high] - known[low]) * (step - low) / (high - low)
