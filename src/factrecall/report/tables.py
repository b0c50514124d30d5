"""A table is declared: a selection of rows, and its columns. It becomes text ready to be shown.

A `Table` has a group of rows for each value of a column, a row for each value of another, and cells
for each value of a third (`across`, mostly the tunings); `Column` says how the rows that fall into
a cell are written. What has another shape is a function that returns a `View`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from factrecall.report.style import LABELS
from factrecall.vocabulary import COMPARED, TUNINGS

if TYPE_CHECKING:
    import pandas as pd

MISSING = "\N{EN DASH}"
NO_BREAK = "\N{NO-BREAK SPACE}"
TIMES = "\N{MULTIPLICATION SIGN}"


class View(NamedTuple):
    """A table of the page: its rows come in groups, each under a title (None: no title)."""

    caption: str
    head: list[str]
    groups: list[tuple[str | None, list[list[str]]]]


@dataclass(frozen=True)
class Column:
    """A column: what its head says, and how the rows of a cell are written.

    `write` is the name of a column, of which the mean and standard deviation are written, or takes
    the rows, the measures and the cell's key (the values of group, row and across, by column).
    """

    head: str
    write: str | Callable[[pd.DataFrame, Any, dict[str, Any]], str]

    def cell(self, rows: pd.DataFrame, measures: Any, key: dict[str, Any]) -> str:
        """Return the text of a cell."""
        if isinstance(self.write, str):
            return mean_sd(rows[self.write])
        return self.write(rows, measures, key)


@dataclass(frozen=True)
class Table:
    """A table of a section.

    Attributes
    ----------
    caption : str or callable
        Above it; a callable takes the measures.
    data : callable
        From the measures to tidy rows, or to a `View` that is shown as it is.
    row, group : str
        The columns whose values make rows and groups of rows; no group: one without a title.
    across : str
        The column whose values each have the `columns`.
    columns, last : tuple of Column
        Cells of each value of `across`, and those behind, of all rows of the line.
    rows, groups : sequence, optional
        The values shown, if not all that have a label.
    labels : mapping
        By column: values, in their order, and what a reader is shown.
    head : str
        Of the first column.
    wide : bool
        Whether cells hold text.
    """

    caption: str | Callable[[Any], str]
    data: Callable[[Any], pd.DataFrame | View]
    row: str = ""
    group: str = ""
    across: str = "tuning"
    columns: tuple[Column, ...] = ()
    last: tuple[Column, ...] = ()
    labels: Mapping[str, Mapping[Any, str]] = field(default_factory=dict)
    values: Mapping[str, Sequence[Any]] = field(default_factory=lambda: {"tuning": COMPARED})
    head: str = ""
    wide: bool = False

    def view(self, measures: Any) -> View:
        """Return the table of one model."""
        data = self.data(measures)
        if isinstance(data, View):
            return data
        caption = self.caption(measures) if callable(self.caption) else self.caption
        across = self._values(data, self.across)
        short = {v: label.removesuffix("-tuned") for v, label in across.items()}
        one = len(self.columns) == 1 and not self.columns[0].head
        head = [
            across[v] if one else f"{short[v]}{column.head}" for v in across
            for column in self.columns
        ]  # fmt: skip
        groups: list[tuple[str | None, list[list[str]]]] = []
        for group, title in (
            self._values(data, self.group).items() if self.group else [(None, None)]
        ):
            lines = data if group is None else data[data[self.group] == group]
            rows = []
            for value, label in self._values(data, self.row).items():
                own = lines[lines[self.row] == value]
                key = {self.group: group, self.row: value}
                cells = [
                    column.cell(own[own[self.across] == v], measures, {**key, self.across: v})
                    for v in across
                    for column in self.columns
                ]
                rows.append([label, *cells, *(c.cell(own, measures, key) for c in self.last)])
            groups.append((title, rows))
        return View(caption, [self.head, *head, *(c.head for c in self.last)], groups)

    def _values(self, data: pd.DataFrame, column: str) -> dict[Any, str]:
        labels = self.labels.get(column) or LABELS.get(column, {})
        shown = self.values.get(column) or labels or dict.fromkeys(data[column])
        return {v: labels.get(v, str(v)) for v in shown}


def count(number: int, noun: str) -> str:
    """Write a small number as a word, with its noun."""
    words = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    word = words[number] if number < len(words) else str(number)
    return f"{word} {noun}{'' if number == 1 else 's'}"


def percent(share: float) -> str:
    """Write a share from 0 to 1 as per cent with one decimal, without the sign."""
    return MISSING if math.isnan(share) else f"{100 * share:.1f}"


def points(difference: float) -> str:
    """Write a difference of shares in points, with its sign."""
    rounded = round(100 * difference, 1)
    return f"{rounded:+.1f}".replace("-", "\N{MINUS SIGN}") if rounded else "0.0"


def mean_sd(values: pd.Series, write: Callable[[float], str] = percent) -> str:
    """Write mean ± sample standard deviation, as precisely; one value stands alone."""
    known = values.dropna()
    if known.empty:
        return MISSING
    mean = write(float(known.mean()))
    decimals = len(mean.partition(".")[2])
    return mean if len(known) < 2 else f"{mean} ± {100 * float(known.std()):.{decimals}f}"


def run_view(study: Mapping[str, Any], sizes: Mapping[str, int], shapes: Mapping[str, str]) -> View:
    """Return what each model of the study is and how long it was trained.

    Parameters
    ----------
    study : mapping
        The resolved configuration.
    sizes : mapping of str to int
        Number of parameters of the models for which it is known.
    shapes : mapping of str to str
        What each model is (see `shape`).
    """
    rows = []
    for name, model in study["models"].items():
        recipes = model["training"]
        trained = [f"{recipes[t]['updates']:,} {TIMES} {recipes[t]['batch_size']}" for t in TUNINGS]
        size = f"{sizes[name]:,}" if sizes.get(name) else MISSING
        rows.append([name, shapes[name], size, *trained])
    return View(
        f"Models, their number of parameters, and updates {TIMES} batch size of each fine-tuning "
        "(Stage-tuned: the questions, after the biographies of BIO).",
        ["Model", "What it is", "parameters", "BIO", "Stage", "Mix"],
        [(None, rows)],
    )


def shape(model: Mapping[str, Any], stored: str | None = None) -> str:
    """Say what a model of the configuration is, and how a GGUF file stored its weights."""
    if model["source"] == "scratch":
        return (
            f"{model['architecture']} from scratch, {model['layers']} layers, "
            f"width {model['hidden_size']}, {model['heads']} heads"
        )
    if model["source"] == "hub":
        return f"{model['repository']} at {model.get('revision') or 'its newest revision'}"
    place = f"folder {model['path']}"
    if model["source"] == "gguf":
        place = f"GGUF file {Path(model['path']).name}"
    if not stored:
        return place
    if set(stored.split(", ")) <= {"F32", "F16", "BF16"}:
        return f"{place}, stored as {stored}"
    return f"{place}, dequantised from {stored}: not the published weights"


def flat(mapping: Mapping[str, Any], prefix: str = "") -> list[list[str]]:
    """Return nested settings as rows of dotted key and value."""
    rows = []
    for key, value in mapping.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            rows += flat(value, f"{name}.")
        else:
            rows.append([name, str(value)])
    return rows
