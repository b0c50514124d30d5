"""Means over people and their intervals, against a loop over cells and samples."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest

from factrecall.experiments.common.summaries import cell_means, with_difference
from factrecall.runtime.seeds import generator
from factrecall.runtime.statistics import draw_people

PEOPLE = [7, 2, 9, 4, 0]  # in no order: columns of the draws are theirs, whatever their numbers


def observations() -> pd.DataFrame:
    """Return observations of two cells; some people have none in one, some are missing."""
    rng = generator(0, "observations")
    rows = [
        (cell, person, float(rng.normal() + (cell == "b")), 1.0)
        for cell, person, _ in itertools.product("ab", PEOPLE, range(3))
        if not (cell == "b" and person == 9)
    ]
    table = pd.DataFrame(rows, columns=["cell", "individual", "value", "n"])
    table.loc[[1, 5], "value"] = np.nan
    return table


@pytest.mark.parametrize("people", [PEOPLE, sorted(PEOPLE)], ids=["as they come", "sorted"])
def test_cells_are_what_a_loop_finds(people: list[int]) -> None:
    table, drawn = observations(), draw_people(len(PEOPLE), generator(1, "people"), 200)
    found = cell_means(table, ["cell"], people, drawn, counted=["n"], bounded=["value"])
    assert found["cell"].tolist() == ["a", "b"]
    for row in found.itertuples():
        cell = table[table["cell"] == row.cell]
        samples = []
        for counts in drawn:
            times = cell["individual"].map(dict(zip(people, counts, strict=True)))
            known = cell["value"].notna()
            samples.append((cell["value"] * times)[known].sum() / times[known].sum())
        low, high = np.quantile(samples, [0.025, 0.975])
        # Sums in another order.
        assert row.value == pytest.approx(cell["value"].mean(), abs=1e-12)
        assert (row.value_low, row.value_high) == pytest.approx((low, high), abs=1e-12)
        assert row.n == len(cell)


def test_whose_draws_are_whose_matters() -> None:
    table, drawn = observations(), draw_people(len(PEOPLE), generator(1, "people"), 200)
    one, other = (
        cell_means(table, ["cell"], people, drawn, counted=["n"], bounded=["value"])
        for people in (PEOPLE, sorted(PEOPLE))
    )
    assert not np.allclose(one["value_low"], other["value_low"])


def test_differences_are_of_rows_that_agree_in_all_else() -> None:
    keys = ["kind", "individual"]
    rows = [("x", 1, 5.0), ("y", 1, 2.0), ("x", 2, 7.0)]
    table = with_difference(
        pd.DataFrame(rows, columns=[*keys, "value"]), "kind", ("x", "y"), keys, ["value"]
    )
    less = table[table["kind"] == "x - y"]
    assert less[["individual", "value"]].to_numpy().tolist() == [[1.0, 3.0]]
