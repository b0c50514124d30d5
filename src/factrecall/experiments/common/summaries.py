"""Tables of all fine-tuned models of a study: differences and means, with intervals over people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from factrecall.runtime.statistics import mean_bounds, ratio
from factrecall.runtime.storage import Schema, read_table

if TYPE_CHECKING:
    from factrecall.runs import Run


def read_runs(runs: Sequence[Run], schema: Schema, table: str = "table") -> pd.DataFrame:
    """Read one table of each run, with the columns that say which run it is of."""
    tables = [read_table(getattr(run, table), schema).assign(**run.labels) for run in runs]
    return pd.concat(tables, ignore_index=True)


def with_difference(
    table: pd.DataFrame,
    column: str,
    pair: tuple[str, str],
    keys: Sequence[str],
    values: Sequence[str],
) -> pd.DataFrame:
    """Add the rows of one kind minus those of another that agree in all other keys."""
    shared = [key for key in keys if key != column]
    one, other = (table[table[column] == name].set_index(shared) for name in pair)
    one = one.loc[one.index.isin(other.index)]
    less = other.loc[:, list(values)].reindex(one.index)
    found = one.assign(**{value: one[value] - less[value] for value in values})
    found[column] = " - ".join(pair)
    return pd.concat([table, found.reset_index()], ignore_index=True)


def cell_means(
    rows: pd.DataFrame,
    keys: Sequence[str],
    people: Sequence[int] | np.ndarray,
    drawn: np.ndarray,
    *,
    counted: Sequence[str],
    bounded: Sequence[str],
    averaged: Sequence[str] = (),
) -> pd.DataFrame:
    """Return a row a cell: sums, means, and percentile bootstrap intervals of means over people.

    Parameters
    ----------
    rows : DataFrame
        Observations, each of an ``individual``; those that are missing do not count.
    keys : sequence of str
        Columns that tell cells apart.
    people : sequence of int
        The individuals, in the order of the columns of `drawn`.
    drawn : ndarray, shape (draws, people)
        See `draw_people`.
    counted, bounded, averaged : sequence of str
        Columns that are added up, averaged with an interval (``_low``, ``_high``), and averaged.
    """
    keys = list(keys)
    cell = rows.groupby(keys, sort=False).ngroup().to_numpy()
    shape = (int(cell.max()) + 1, drawn.shape[1])
    place = cell * shape[1] + pd.Index(people).get_indexer(rows["individual"])
    found = rows[keys].iloc[np.unique(cell, return_index=True)[1]].reset_index(drop=True)
    for column in (*counted, *averaged, *bounded):
        value = rows[column].to_numpy(dtype=float)
        known = ~np.isnan(value)
        sums, counts = (
            np.bincount(place[known], weights, minlength=shape[0] * shape[1]).reshape(shape)
            for weights in (value[known], None)
        )
        whole = sums.sum(1)
        found[column] = whole.astype(int) if column in counted else ratio(whole, counts.sum(1))
        if column in bounded:
            found[f"{column}_low"], found[f"{column}_high"] = mean_bounds(sums, counts, drawn)
    return found
