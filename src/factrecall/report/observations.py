"""Observations that claims are judged by: tables with columns seed, value and mostly individual."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

KEYS = ("seed", "individual")

TOGETHER = -1
"""In the column of seeds: all together."""


def where(rows: pd.DataFrame, **keys: Any) -> pd.DataFrame:
    """Return the rows whose columns have these values."""
    for column, value in keys.items():
        rows = rows[rows[column] == value]
    return rows


def observe(rows: pd.DataFrame, value: str, **keys: Any) -> pd.DataFrame:
    """Return the mean of a column by seed and, where the table has people, by person.

    Rows are those whose columns have the values `keys`; missing values do not count. Of answers
    (a column of truth values, or rows with a column `questions`) `questions` says how many.
    """
    rows = where(rows, **keys).dropna(subset=[value])
    by = [key for key in KEYS if key in rows]
    groups = rows.astype({value: float}).groupby(by, sort=True)
    found = groups[value].mean().rename("value").to_frame()
    if rows[value].dtype == bool:
        found["questions"] = groups.size()
    elif "questions" in rows:
        found["questions"] = groups["questions"].min()
    return found.reset_index()


def minus(ours: pd.DataFrame, theirs: pd.DataFrame) -> pd.DataFrame:
    """Return the differences of observations of the same seeds and people."""
    by = [key for key in KEYS if key in ours and key in theirs]
    both = ours.merge(theirs, on=by, suffixes=("", "_theirs"))
    columns = [*by, "value", *({"questions"} & {*ours})]
    return both.assign(value=both["value"] - both["value_theirs"])[columns]


def mix_minus_stage(rows: pd.DataFrame, value: str, **keys: Any) -> pd.DataFrame:
    """Return Mix-tuned minus Stage-tuned, of the same seeds and people."""
    return minus(*(observe(rows, value, tuning=t, **keys) for t in ("mix", "stage")))


def scaled(rows: pd.DataFrame, factor: float) -> pd.DataFrame:
    """Return observations times a number."""
    return rows.assign(value=factor * rows["value"])


def estimated(rows: pd.DataFrame, by: Sequence[str], *values: str) -> pd.DataFrame:
    """Return columns' means, with their 95 % intervals, as figures show them.

    A row a cell (the columns `by`) and seed, which have no interval, and one of all seeds together
    (`TOGETHER`). Bounds are in columns named after the value's, ``_low`` and ``_high``.
    """
    import pandas as pd

    from factrecall.runtime.intervals import estimate

    found = []
    for value in values:
        observed = rows.dropna(subset=[value]).groupby([*by, *KEYS], sort=False)[value]
        means = observed.agg(value="mean", questions="size")
        cells = []
        for cell, part in means.groupby(level=list(by), sort=False):
            seeds = part["value"].groupby(level="seed").mean().items()
            cells += [(*cell, seed, mean, math.nan, math.nan) for seed, mean in seeds]
            cells.append((*cell, TOGETHER, *estimate(part.reset_index())[:3]))
        columns = [*by, "seed", value, f"{value}_low", f"{value}_high"]
        found.append(pd.DataFrame(cells, columns=columns).set_index([*by, "seed"]))
    return pd.concat(found, axis=1).reset_index()
