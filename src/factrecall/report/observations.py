"""Observations that claims are judged by: tables with columns seed, value and mostly individual."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

KEYS = ("seed", "individual")


def where(rows: pd.DataFrame, **keys: Any) -> pd.DataFrame:
    """Return the rows whose columns have these values."""
    for column, value in keys.items():
        rows = rows[rows[column] == value]
    return rows


def observe(rows: pd.DataFrame, value: str, **keys: Any) -> pd.DataFrame:
    """Return the mean of a column by seed and, where the table has people, by person.

    Rows are those whose columns have the values `keys`; missing values do not count.
    """
    rows = where(rows, **keys).dropna(subset=[value])
    by = [key for key in KEYS if key in rows]
    means = rows.astype({value: float}).groupby(by, sort=True)[value].mean()
    return means.rename("value").reset_index()


def minus(ours: pd.DataFrame, theirs: pd.DataFrame) -> pd.DataFrame:
    """Return the differences of observations of the same seeds and people."""
    by = [key for key in KEYS if key in ours and key in theirs]
    both = ours.merge(theirs, on=by, suffixes=("", "_theirs"))
    return both.assign(value=both["value"] - both["value_theirs"])[[*by, "value"]]


def mix_minus_stage(rows: pd.DataFrame, value: str, **keys: Any) -> pd.DataFrame:
    """Return Mix-tuned minus Stage-tuned, of the same seeds and people."""
    return minus(*(observe(rows, value, tuning=t, **keys) for t in ("mix", "stage")))


def scaled(rows: pd.DataFrame, factor: float) -> pd.DataFrame:
    """Return observations times a number."""
    return rows.assign(value=factor * rows["value"])
