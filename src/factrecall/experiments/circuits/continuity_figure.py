"""At which steps a few people's attributes are answered rightly as nodes are grafted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.ticker import MultipleLocator

from factrecall.experiments.circuits.tables import QUESTIONS, STEPS
from factrecall.report.style import COLOURS, KIND_LABELS, RELATION_LABELS, new_figure, save_figure
from factrecall.runtime.storage import read_table
from factrecall.vocabulary import RELATIONS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PEOPLE = 4
"""So many people are shown: the first of the table that have any attribute right at any step."""

CONTINUITY_DATA = {
    "individual": "int32",
    "relation": "string",
    "step": "int32",
    "nodes": "int32",
    "right": "bool",
    "grafted": "bool",
}
"""A row a step and attribute; `grafted` says whether the whole grafted model is right."""

_TELL_APART = 65
"""Up to so many steps the ends of each stretch can be seen, and ticks between them."""


class SweepFiles(NamedTuple):
    """The files of one job that a strip is drawn from (see `experiments.intervene`)."""

    kind: str
    steps: Path
    questions: Path


def strip(files: SweepFiles) -> pd.DataFrame:
    """Return what is drawn: the forward sweep by shared parameters; columns `CONTINUITY_DATA`."""
    steps, questions = read_table(files.steps, STEPS), read_table(files.questions, QUESTIONS)
    steps = steps[(steps["direction"] == "forward") & (steps["ranking"] == "shared")]
    ever = sorted({int(number) for right in steps["right"] for number in right})
    people = questions.loc[questions["question"].isin(ever), "individual"].drop_duplicates()
    chosen = questions[questions["individual"].isin(people.head(PEOPLE))]
    parts = [
        chosen.assign(
            step=step.step, nodes=step.nodes, right=chosen["question"].isin(list(step.right))
        )
        for step in steps.itertuples()
    ]
    columns = list(CONTINUITY_DATA)
    return pd.concat(parts)[columns] if parts else pd.DataFrame(columns=columns)


def draw_continuity(files: SweepFiles, stem: Path) -> None:
    """Draw a line a fact: where it is thick, the fact is answered rightly.

    Parameters
    ----------
    files : SweepFiles
        Of one model.
    stem : Path
        Target without suffix.
    """
    data = strip(files)
    facts = data.drop_duplicates(["individual", "relation"])
    people = list(facts["individual"].unique())
    rows: dict[tuple[int, str], int] = {}
    headings = {}
    for number, person in enumerate(people):
        headings[person] = len(rows) + number
        own = set(facts.loc[facts["individual"] == person, "relation"])
        for relation in (r for r in RELATIONS if r in own):
            rows[person, relation] = len(rows) + number + 1
    height = len(rows) + len(headings)
    with new_figure(1.2 + 0.18 * max(4, height)) as figure:
        axes = figure.subplots()
        if not rows:
            axes.text(0.5, 0.5, "nothing was ever right", transform=axes.transAxes, ha="center")
        total = max(1, int(data["nodes"].max())) if len(data) else 1
        for key, fact in data.groupby(["individual", "relation"], sort=False):
            _draw_fact(axes, fact.sort_values("step"), rows[key], total)
        places = [*rows.values(), *headings.values()]
        labels = [RELATION_LABELS[relation] for _, relation in rows]
        axes.set_yticks(places, [*labels, *(f"person {person}" for person in headings)])
        for text in axes.get_yticklabels()[len(rows) :]:
            text.set_fontweight("bold")
        asked = np.unique(data["nodes"].to_numpy(dtype=int))
        if len(asked) <= _TELL_APART:
            axes.set_xticks(100 * asked / total, minor=True)
        axes.set_xlim(-3, 110)
        axes.set_ylim(max(1, height) - 0.4, -0.8)
        axes.xaxis.set_major_locator(MultipleLocator(25))
        axes.tick_params(axis="y", length=0, labelsize=8)
        axes.tick_params(axis="x", labelsize=8.5)
        axes.spines["left"].set_visible(False)
        axes.set_xticks(range(0, 101, 25))
        axes.set_xlabel(f"{KIND_LABELS[files.kind]} grafted (% of {total:,}; {len(asked)} steps)")
        axes.set_title("Right as nodes are added", fontsize=10)
        axes.text(106, -0.9, "all", ha="center", va="bottom", fontsize=8)
        save_figure(figure, data, stem, CONTINUITY_DATA)


def _draw_fact(axes: Axes, fact: pd.DataFrame, row: int, total: int) -> None:
    at = 100 * fact["nodes"].to_numpy() / total
    right = fact["right"].to_numpy(dtype=bool)
    axes.plot([at[0], at[-1]], [row, row], color="#cccccc", linewidth=0.8, zorder=1)
    changes = np.flatnonzero(np.diff(np.concatenate([[False], right, [False]]).astype(int)))
    for begin, end in changes.reshape(-1, 2):
        # Of a single step there is no line: the markers at its ends are then all there is.
        axes.plot(
            [at[begin], at[end - 1]], [row, row], color=COLOURS["mix"], linewidth=5, zorder=2,
            marker="o", markersize=5, markeredgewidth=0,
        )  # fmt: skip
    sign, colour = ("✓", "#00684d") if fact["grafted"].iloc[0] else ("✗", "#777777")
    axes.text(106, row, sign, ha="center", va="center", fontsize=9, color=colour)
