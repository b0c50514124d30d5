"""Continuity of answers over steps: by hand, by a loop, and of outcomes that were exchanged."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from factrecall.experiments.circuits.continuity import measure_continuity, shuffle_outcomes
from factrecall.runtime.seeds import generator


def questions(count: int) -> pd.DataFrame:
    return pd.DataFrame(
        {"individual": np.arange(count) // 2, "relation": ["job", "city"] * (count // 2)}
    )


def test_by_hand() -> None:
    right = np.array([[0, 1, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [1, 1, 0, 0], [1, 1, 0, 0]], bool)
    table = measure_continuity(right, questions(4)).set_index(["individual", "relation"])
    assert table.index.tolist() == [(0, "job"), (0, "city"), (1, "job")]  # never right: left out
    row = table.loc[(0, "job")]
    assert row[["evaluated", "right", "first", "last", "streak"]].tolist() == [5, 3, 1, 4, 2]
    assert row["overall"] == pytest.approx(3 / 4) and row["longest"] == pytest.approx(2 / 4)
    assert row["retained"]
    assert table["overall"].tolist()[1:] == [1.0, 1.0]
    assert table["retained"].tolist() == [True, True, False]


@given(right=arrays(bool, st.tuples(st.integers(1, 12), st.just(6))))
def test_against_a_loop(right: np.ndarray) -> None:
    found = measure_continuity(right, questions(6))
    rows = iter(found.itertuples())
    for column in right.T:
        times = np.flatnonzero(column)
        if not len(times):
            continue
        row = next(rows)
        window = times[-1] - times[0] + 1
        best = max(len(run) for run in "".join("x" if c else " " for c in column).split())
        assert (row.right, row.first, row.last) == (len(times), times[0], times[-1])
        assert row.overall == len(times) / window and row.longest == best / window
        assert row.streak == best and row.retained == column[-1]
    assert next(rows, None) is None


def test_exchanging_keeps_the_curves_of_relations_and_loses_who_is_right() -> None:
    rng = generator(0)
    people = rng.random(40) < 0.5
    right = np.tile(people, (30, 1))  # who is right stays right
    right[0] = True
    asked = questions(40)
    kept = right.copy()
    mixed = shuffle_outcomes(right, asked, generator(1))
    for relation in ("job", "city"):
        columns = (asked["relation"] == relation).to_numpy()
        assert np.array_equal(right[:, columns].sum(1), mixed[:, columns].sum(1))
    assert measure_continuity(right, asked)["overall"].mean() == 1.0
    assert measure_continuity(mixed, asked)["longest"].mean() < 0.5
    assert np.array_equal(right, kept)  # the outcomes themselves are untouched


def test_exchanging_stays_within_those_right_at_the_first_step() -> None:
    right = np.tile(generator(0).random(40) < 0.5, (30, 1))
    assert np.array_equal(shuffle_outcomes(right, questions(40), generator(1)), right)
