"""From a declared section and one model's measures to what the page shows."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from factrecall.report.ledger import VERDICTS, Judged, by_chance, decidable, tally
from factrecall.report.observations import TOGETHER
from factrecall.report.plots import Figure
from factrecall.report.scoreboard import Scale, written
from factrecall.report.section import Section
from factrecall.report.tables import MISSING, View
from factrecall.runtime.errors import FactRecallError
from factrecall.runtime.storage import read_table

if TYPE_CHECKING:
    import pandas as pd
    from jinja2 import Environment

LONGEST = 40
"""So many rows of a figure's data are shown; of longer tables the page names the file."""


class Shown(NamedTuple):
    """A section as the template shows it; `figures` have image, alt, caption, file and numbers."""

    section: Section
    figures: list[dict[str, Any]]
    claims: list[Judged]
    trust: list[str]
    tables: list[tuple[View, bool]]
    method: str


@cache
def environment() -> Environment:
    """Return the template engine: it escapes all values, and none may be missing."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    engine = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    engine.globals.update(
        written=written, scale=Scale.of, tally=tally, by_chance=by_chance, decidable=decidable,
        VERDICTS=VERDICTS,
    )  # fmt: skip
    return engine


def show_section(
    section: Section,
    measures: Any,
    claims: Sequence[Judged],
    results: Path,
    study: Mapping[str, Any],
) -> Shown:
    """Fill in a section's templates, and put its drawn figures and its tables in place.

    Parameters
    ----------
    section : Section
        As declared.
    measures : Any
        Of one model.
    claims : sequence of Judged
        All of this model.
    results : Path
        The study's results folder, with the model's figures.
    study : mapping
        The resolved configuration.
    """
    from markupsafe import Markup

    def fill(text: str, **scope: Any) -> Markup:
        return Markup(environment().from_string(text).render(m=measures, study=study, **scope))

    figures = []
    for figure in section.figures:
        if figure.when(measures):
            file = f"figures/{measures.model}/{figure.name}"
            caption = fill(figure.caption, **figure.scope)
            title = first_sentence(caption)
            alt = figure.alt(measures) if callable(figure.alt) else figure.alt
            figures.append({
                "image": data_uri(results / f"{file}.svg"),
                "alt": alt or f"Figure: {title} Its data are below, under Numbers.",
                "caption": caption,
                "title": title,
                "file": f"{file}.parquet",
                "numbers": numbers(figure, read_table(results / f"{file}.parquet"), title),
            })  # fmt: skip
    tables = [(table.view(measures), table.wide) for table in section.tables]
    return Shown(
        section,
        figures,
        [claim for claim in claims if claim.section == section.name],
        section.cautions(measures),
        [(view, wide) for view, wide in tables if any(rows for _, rows in view.groups)],
        fill(section.method),
    )


def first_sentence(caption: str) -> str:
    """Return the first sentence of a caption, without markup: what a figure shows."""
    from markupsafe import Markup

    return re.split(r"(?<=[.?!])\s", Markup(caption).striptags())[0]


def numbers(figure: Figure, data: pd.DataFrame, title: str) -> View | None:
    """Return a figure's data as a table: means over seeds, Stage-tuned and Mix-tuned side by side.

    None where it has more than `LONGEST` rows, or no numbers.
    """
    values = [column for column, kind in figure.schema.items() if kind.startswith("float")]
    keys = [column for column in figure.schema if column not in (*values, "seed")]
    if "seed" in data and (data["seed"] == TOGETHER).any():
        data = data[data["seed"] == TOGETHER]
    if not keys or not values or data.empty:
        return None
    means = data.groupby(keys, sort=False, dropna=False)[values].mean()
    shares = {*figure.x.percent, *figure.y.percent}
    columns = [(value, _words(value) + " (%)" * (value in shares)) for value in values]
    if "tuning" in keys and keys[1:]:
        keys.remove("tuning")
        means = means.unstack("tuning", sort=False)
        columns = [
            (value, figure.label("tuning", tuning) + f", {_words(value)}" * (len(values) > 1))
            for value, tuning in means.columns
        ]
    if len(means) > LONGEST:
        return None
    groups: dict[str | None, list[list[str]]] = {}
    for key, line in zip(means.index, means.to_numpy(), strict=True):
        parts = zip(keys, key if isinstance(key, tuple) else (key,), strict=True)
        labels = [_unbroken(figure.label(c, v) or str(v)) for c, v in parts]
        group = labels.pop(0) if keys[1:] else None
        cells = [_number(v, c in shares) for v, (c, _) in zip(line, columns, strict=True)]
        groups.setdefault(group, []).append([*labels, *cells])
    first = [_words(key) for key in keys[1:] or keys]
    return View(f"{title} Means over seeds.", [*first, *(h for _, h in columns)],
                list(groups.items()))  # fmt: skip


def _unbroken(label: str) -> str:
    """Join the lines, and the parts of a word, into which a label is broken in a figure."""
    return " ".join(label.replace("-\n", "").split())


def _words(column: str) -> str:
    return column.replace("_", " ")


def _number(value: float, is_share: bool) -> str:
    if value != value:
        return MISSING
    text = f"{100 * value:.1f}" if is_share else f"{value:.3g}"
    return text.replace("-", "\N{MINUS SIGN}")


def data_uri(path: Path) -> str:
    """Return a figure as an address that holds it.

    Raises
    ------
    FactRecallError
        When there is no such figure.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise FactRecallError(
            str(path), "there is no such figure", "run the workflow again; it will be drawn anew"
        ) from None
    return f"data:image/svg+xml;base64,{base64.b64encode(content).decode('ascii')}"
