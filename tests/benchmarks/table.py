"""What a benchmark finds: ratios to a peer, their spread and the bar; and the table of all."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

MARKS = {True: "ok", False: "MISSED", None: ""}


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes
    ----------
    what, against : str
        What was measured, and in comparison to what.
    version : str
        Of the peer; empty for ways of our own.
    median, lowest, highest : float
        The ratio over the turns; NaN if the peer is not installed.
    turns : int
        How many there were.
    bar : float or None
        What the median is held to; None for what is told only.
    least : bool
        Whether the bar is the least that is wanted, or the most.
    """

    what: str
    against: str
    version: str
    median: float
    lowest: float
    highest: float
    turns: int
    bar: float | None
    least: bool

    @classmethod
    def of(
        cls,
        what: str,
        against: str,
        ratios: Sequence[float],
        bar: float | None = None,
        *,
        version: str = "",
        least: bool = True,
    ) -> Row:
        """Summarise the turns' ratios."""
        middle = statistics.median(ratios)
        spread = min(ratios), max(ratios)
        return cls(what, against, version, middle, *spread, len(ratios), bar, least)

    @classmethod
    def missing(cls, what: str, against: str, bar: float | None = None) -> Row:
        """Say that a peer is not installed."""
        return cls(what, against, "not installed", math.nan, math.nan, math.nan, 0, bar, True)

    @property
    def met(self) -> bool | None:
        """Whether the bar is met; None without a bar or without a measurement."""
        if self.bar is None or not self.turns:
            return None
        return self.median >= self.bar if self.least else self.median <= self.bar

    def cells(self) -> tuple[str, ...]:
        """Return the row as text."""
        if not self.turns:
            ratio = "not measured"
        elif self.turns == 1:
            ratio = f"{self.median:.2f} (once)"
        else:
            ratio = f"{self.median:.2f} ({self.lowest:.2f}–{self.highest:.2f})"
        wanted = "" if self.bar is None else f"{'≥' if self.least else '≤'} {self.bar:g}"
        return self.what, f"{self.against} {self.version}".strip(), ratio, wanted, MARKS[self.met]


def show(titles: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Lay cells out in columns, as Markdown that is legible as it is."""
    every = [titles, *lines]
    widths = [max(len(line[column]) for line in every) for column in range(len(titles))]

    def joined(cells: Sequence[str]) -> str:
        padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        return f"| {' | '.join(padded)} |"

    return "\n".join([joined(titles), joined(["-" * w for w in widths]), *map(joined, lines)])


def table(rows: Sequence[Row]) -> str:
    """Return the table of all comparisons."""
    return show(("what", "against", "ratio", "bar", ""), [row.cells() for row in rows])


def write(rows: Sequence[Row], out: Path) -> None:
    """Write rows as Parquet or, by its suffix, JSON."""
    frame = pd.DataFrame([asdict(row) | {"met": row.met} for row in rows])
    frame["met"] = frame["met"].astype("boolean")
    if out.suffix == ".json":
        frame.to_json(out, orient="records", indent=2, force_ascii=False)
    else:
        frame.to_parquet(out, index=False)


def exit_code(rows: Sequence[Row]) -> int:
    """Return 1 if a bar is missed, else 2 if a peer was not there, else 0."""
    if any(row.met is False for row in rows):
        return 1
    return 2 if any(not row.turns for row in rows) else 0
