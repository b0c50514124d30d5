"""The cluster bootstrap: its percentile interval by hand and by a naive twin."""

from __future__ import annotations

import numpy as np
import pytest

from factrecall.runtime.statistics import bootstrap_interval


def test_interval_by_hand() -> None:
    # Ten people, half of them with a difference of 1: means are binomial(10, 1/2) / 10, of which
    # 1.1 % are at most 0.1 and 5.5 % at most 0.2, so that the 2.5 % point is 0.2.
    sums = np.array([0, 1] * 5)
    assert bootstrap_interval(sums, 1, np.random.default_rng(0)) == (0.2, 0.8)
    # A sum over two questions counts half.
    assert bootstrap_interval(sums, 2, np.random.default_rng(0)) == (0.1, 0.4)


def test_interval_of_equal_people_has_no_width() -> None:
    assert bootstrap_interval(np.array([3, 3, 3]), 6, np.random.default_rng(0)) == (0.5, 0.5)


def test_interval_agrees_with_drawing_people_one_by_one() -> None:
    sums = np.random.default_rng(1).integers(-4, 7, size=60)
    rng = np.random.default_rng(2)
    naive = [rng.choice(sums, size=len(sums)).mean() / 6 for _ in range(10_000)]
    interval = bootstrap_interval(sums, 6, np.random.default_rng(3))
    assert interval == pytest.approx(np.quantile(naive, [0.025, 0.975]), abs=0.006)


def test_the_same_seed_gives_the_same_interval() -> None:
    sums = np.arange(20)
    one, two = (bootstrap_interval(sums, 6, np.random.default_rng(5)) for _ in range(2))
    assert one == two
