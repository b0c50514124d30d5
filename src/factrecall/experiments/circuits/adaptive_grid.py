"""Which steps of a sweep are asked: every one, each n-th, or those where the curve bends.

Where a step is dear, a curve need not be asked everywhere: steps are halved where the middle of
two is not on the line between them, and steps that were held out then test every line. A curve is
done only when as many fresh steps as are to be held out all lie within the tolerance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np


@dataclass(frozen=True)
class Curve:
    """A curve as it was asked.

    Attributes
    ----------
    values : dict of int to float
        By step; the first and the last are always there.
    held_out : int
        How many steps tested the lines between the others and were then added to them.
    worst : float
        The largest distance of one of these from its line; NaN if there were none.
    """

    values: dict[int, float]
    held_out: int
    worst: float


def each(ask: Callable[[int], float], steps: int, stride: int) -> Curve:
    """Ask every `stride`-th step of 0 to `steps`, and the last."""
    chosen = sorted({*range(0, steps + 1, stride), steps})
    return Curve({step: ask(step) for step in chosen}, 0, float("nan"))


def adaptive(
    ask: Callable[[int], float],
    steps: int,
    first: int,
    tolerance: float,
    held_out: int,
    rng: np.random.Generator,
) -> Curve:
    """Ask where the curve bends.

    Parameters
    ----------
    ask : callable
        From a step to the curve's value there.
    steps : int
        The last step; the first is 0.
    first : int
        How many intervals to begin with.
    tolerance : float
        How far a step may lie from the line between the asked steps around it.
    held_out : int
        How many steps test the lines. They are drawn among those not asked; while one of them is
        too far off, its surroundings are asked more closely and as many are drawn anew.
    rng : Generator
        Draws them.

    Returns
    -------
    Curve
        Steps that were not asked are on the lines between those that were. The tested ones, which
        are drawn evenly, are within `tolerance` of theirs; if no steps are left to test, all were
        asked.
    """
    known: dict[int, float] = {}

    def value(step: int) -> float:
        if step not in known:
            known[step] = ask(step)
        return known[step]

    def halve(low: int, high: int) -> None:
        if high - low < 2:
            return
        middle = (low + high) // 2
        expected = _between(known, (low, high), middle)
        if abs(value(middle) - expected) > tolerance:
            halve(low, middle)
            halve(middle, high)

    grid = sorted({round(i * steps / first) for i in range(first + 1)})
    for step in grid:
        value(step)
    for low, high in pairwise(grid):
        halve(low, high)
    while True:
        asked = sorted(known)
        rest = np.setdiff1d(np.arange(steps + 1), asked)
        drawn = np.sort(rng.choice(rest, min(held_out, len(rest)), replace=False)).tolist()
        if not drawn:
            return Curve(dict(sorted(known.items())), 0, float("nan"))
        off = {}
        for step in drawn:
            around = _around(asked, step)
            off[step] = abs(value(step) - _between(known, around, step))
        worst = max(off.values())
        if worst <= tolerance:
            return Curve(dict(sorted(known.items())), len(drawn), worst)
        for step in drawn:
            if off[step] > tolerance:
                low, high = _around(sorted(known.keys() - {step}), step)
                halve(low, step)
                halve(step, high)


def _around(steps: Sequence[int], step: int) -> tuple[int, int]:
    place = int(np.searchsorted(steps, step))
    return steps[place - 1], steps[place]


def _between(known: dict[int, float], ends: tuple[int, int], step: int) -> float:
    low, high = ends
    return known[low] + (known[high] - known[low]) * (step - low) / (high - low)
