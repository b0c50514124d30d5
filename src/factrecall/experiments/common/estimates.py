"""Numbers with intervals in the report's sections: how rows become estimates, and how they read.

The tables of summaries hold a row a seed and one of all seeds together, with its 95 % interval over
people. What is missing in a table is an unknown estimate, not an error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from factrecall.report.claims import Interval
from factrecall.report.plots import NOTHING
from factrecall.report.style import GREY
from factrecall.report.tables import MISSING, NO_BREAK, points
from factrecall.vocabulary import RELATIONS

if TYPE_CHECKING:
    import pandas as pd

    from factrecall.report.plots import Panel

TOGETHER = -1
"""In columns of seeds and layers: all together (`statistics.TOGETHER`, which imports pandas)."""

SPLIT = "out"
"""Whose facts are judged and drawn: no question on them was ever trained on."""

FEW_PEOPLE = 20
"""Over fewer people a bootstrap interval is rough."""

MINUS = "\N{MINUS SIGN}"


class Estimate(NamedTuple):
    """A number of all seeds together, with its 95 % interval (NaN: not known)."""

    value: float = math.nan
    low: float = math.nan
    high: float = math.nan

    @property
    def known(self) -> bool:
        """Whether there is an interval."""
        return not any(map(math.isnan, self))

    @property
    def interval(self) -> Interval | None:
        """Its interval, if it is known."""
        return (self.low, self.high) if self.known else None

    def write(self, write: Callable[[float], str] = points) -> str:
        """Write the number, with its interval in brackets if it has one."""
        if math.isnan(self.value):
            return MISSING
        bounds = f" ({write(self.low)} to {write(self.high)})" if self.known else ""
        return write(self.value) + bounds

    def sentence(self, write: Callable[[float], str] = points) -> str:
        """Write the interval as a sentence, if it is known."""
        known = f" 95 % interval {write(self.low)} to {write(self.high)}."
        return known if self.known else ""


def chosen(rows: pd.DataFrame, **keys: Any) -> pd.DataFrame:
    """Return the rows whose columns have these values."""
    for column, value in keys.items():
        rows = rows[rows[column] == value]
    return rows


def together(rows: pd.DataFrame, value: str, **keys: Any) -> Estimate:
    """Return the estimate of all seeds together, of rows with one such.

    Its bounds are in columns named after it, or are the only ones there are.
    """
    rows = chosen(rows, seed=TOGETHER, **keys)
    if rows.empty:
        return Estimate()
    first = rows.iloc[0]
    ends = (f"{value}_{end}" if f"{value}_{end}" in rows else end for end in ("low", "high"))
    return Estimate(float(first[value]), *(float(first.get(end, math.nan)) for end in ends))


def single(rows: pd.DataFrame, value: str, **keys: Any) -> dict[int, float]:
    """Return a number of each seed, of rows with one a seed; unknown ones are left out."""
    rows = chosen(rows, **keys)
    rows = rows[rows["seed"] >= 0].dropna(subset=[value]).sort_values("seed")
    return {int(seed): float(v) for seed, v in zip(rows["seed"], rows[value], strict=True)}


def apart(ours: Estimate, other: Estimate) -> Estimate:
    """Return a difference whose bounds are as far apart as those of its sides allow."""
    return Estimate(ours.value - other.value, ours.low - other.high, ours.high - other.low)


def absolute(signed: Estimate) -> Interval:
    """Return the bounds of an absolute value from those of the signed one."""
    ends = sorted((abs(signed.low), abs(signed.high)))
    return (0.0 if signed.low <= 0 <= signed.high else ends[0], ends[1])


def signed_cosine(value: float) -> str:
    """Write a cosine, or a difference of two, with its sign."""
    return MISSING if math.isnan(value) else f"{value:+.3f}".replace("-", MINUS)


def cell(
    value: str, write: Callable[[float], str] = points, *, interval: bool = True, **keys: Any
) -> Callable[[pd.DataFrame, Any, dict[str, Any]], str]:
    """Return what writes a table's cell: the estimate of its rows with these values."""

    def written(rows: pd.DataFrame, measures: Any, key: dict[str, Any]) -> str:
        found = together(rows, value, **keys)
        return (found if interval else Estimate(found.value)).write(write)

    return written


def few_people(rows: pd.DataFrame) -> str | None:
    """Say that intervals are rough, of rows with the number of facts of a seed's people."""
    facts = chosen(rows, split=SPLIT)
    facts = facts[facts["seed"] >= 0]["facts"]
    return rough(round(int(facts.max()) / len(RELATIONS))) if len(facts) else None


def rough(people: int) -> str | None:
    """Say that intervals over so few people are rough."""
    if people >= FEW_PEOPLE:
        return None
    return (
        f"Intervals are over {people}{NO_BREAK}people out. Over so few they are rough, and "
        "narrower than they should be."
    )


def written(
    named: Mapping[str, Estimate], write: Callable[[float], str], between: str = ", "
) -> str:
    """Write known estimates with their names."""
    return between.join(f"{name} {one.write(write)}" for name, one in named.items() if one.known)


def in_words(named: Mapping[str, Estimate], write: Callable[[float], str], unit: str = "") -> str:
    """Write numbers with their names, for who cannot see a figure."""
    known = {name: one.value for name, one in named.items() if not math.isnan(one.value)}
    return "; ".join(f"{name} {write(value)}{unit}" for name, value in known.items()) or NOTHING


def picked(schema: Mapping[str, str], columns: str) -> dict[str, str]:
    """Return some columns of a table with their types; names are separated by spaces."""
    return {column: schema[column] for column in columns.split()}


def single_seeds(panel: Panel, x: pd.Series, y: Any, **look: Any) -> None:
    """Draw the numbers of single seeds as dots."""
    from matplotlib.lines import Line2D

    dot: dict[str, Any] = {"marker": "o", "linestyle": ""}
    panel.axes.plot(x, y, **dot, **look)
    size = look["markersize"]
    panel.legend["one seed"] = Line2D([], [], color=GREY, markersize=size, **dot)


def layer_ticks(rows: pd.DataFrame) -> list[int]:
    """Return the layers that have a tick: all of few, else about six."""
    layers = sorted({int(layer) for layer in rows["layer"]})
    return layers[:: max(1, -(-len(layers) // 6))]
