"""Curves that are asked at some steps only: what they promise, and that they keep it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factrecall.experiments.circuits.adaptive_grid import adaptive_grid, regular_grid
from factrecall.runtime.seeds import generator


def test_each_asks_every_nth_step_and_the_last() -> None:
    asked: list[int] = []

    def ask(step: int) -> float:
        asked.append(step)
        return step / 2

    assert regular_grid(ask, 7, 3).values == {0: 0.0, 3: 1.5, 6: 3.0, 7: 3.5}
    assert asked == [0, 3, 6, 7]
    assert list(regular_grid(ask, 4, 1).values) == [0, 1, 2, 3, 4]
    assert list(regular_grid(ask, 1, 5).values) == [0, 1]


def test_a_line_is_asked_at_its_first_steps_and_the_held_out_ones() -> None:
    curve = adaptive_grid(lambda step: step / 1000, 1000, 4, 0.01, 10, generator(0))
    assert curve.held_out == 10 and curve.worst < 1e-9
    assert len(curve.values) == 5 + 4 + 10  # ends of intervals, their middles, held out


def test_a_bend_is_found_and_followed() -> None:
    def ask(step: int) -> float:
        return float(step >= 317)

    curve = adaptive_grid(ask, 1000, 4, 0.01, 10, generator(0))
    assert {316, 317} <= set(curve.values)
    assert curve.worst == 0.0 and len(curve.values) < 60


@settings(max_examples=60)
@given(
    values=st.lists(st.floats(0, 1), min_size=2, max_size=200),
    first=st.integers(1, 20),
    seed=st.integers(0, 99),
)
def test_held_out_steps_lie_within_the_tolerance(
    values: list[float], first: int, seed: int
) -> None:
    asked: list[int] = []

    def ask(step: int) -> float:
        asked.append(step)
        return values[step]

    steps = len(values) - 1
    curve = adaptive_grid(ask, steps, first, 0.05, 5, generator(seed))
    assert len(asked) == len(set(asked)) == len(curve.values)  # no step is asked twice
    assert list(curve.values) == sorted(curve.values)
    assert all(values[step] == value for step, value in curve.values.items())
    assert {0, steps} <= set(curve.values)
    if len(curve.values) <= steps:
        assert 1 <= curve.held_out <= 5 and curve.worst <= 0.05
    elif curve.held_out == 0:
        assert np.isnan(curve.worst)


def test_the_promise_holds_for_steps_never_asked() -> None:
    """On smooth random curves few untested steps are far off: the test has power."""
    rng = generator(1)
    far = total = 0
    for run in range(30):
        values = np.clip(np.cumsum(rng.normal(size=800)) / 80 + 0.5, 0, 1)
        curve = adaptive_grid(lambda i, v=values: float(v[i]), 799, 16, 0.05, 20, generator(run))
        line = np.interp(np.arange(800), list(curve.values), list(curve.values.values()))
        far += int((abs(line - values) > 0.05).sum())
        total += 800 - len(curve.values)
    assert total > 0 and far / total < 0.05


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_short_curves_are_asked_whole(steps: int) -> None:
    curve = adaptive_grid(lambda step: float(step % 2), steps, 8, 0.01, 20, generator(0))
    assert list(curve.values) == list(range(steps + 1))
