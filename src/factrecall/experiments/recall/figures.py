"""Recall by split and tuning, and by relation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from factrecall.report.published import published
from factrecall.report.style import (
    COLOURS,
    SPLIT_LABELS,
    TUNING_LABELS,
    new_figure,
    save_figure,
)
from factrecall.report.summaries import AVERAGE, RECALL_MODELS, by_relation, by_seed, spread
from factrecall.vocabulary import RELATIONS, SPLITS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RECALL_DATA = {"tuning": "string", "seed": "int32", "split": "string", "accuracy": "float64"}
RELATION_DATA = {
    "source": "string",
    "tuning": "string",
    "relation": "string",
    "accuracy": "float64",
}

_COLUMNS = {
    AVERAGE: "All\nsix",
    "birth_date": "Birth\ndate",
    "birth_city": "Birth\ncity",
    "university": "Univer-\nsity",
    "job": "Job",
    "employer": "Em-\nployer",
    "blood_type": "Blood\ntype",
}


def draw_recall(recall: pd.DataFrame, stem: Path) -> None:
    """Draw accuracy by split (panels) and tuning (bars), every seed as a point.

    Parameters
    ----------
    recall : DataFrame
        From `summaries.read_recall`.
    stem : Path
        Target without suffix.
    """
    seeds = by_seed(recall)
    splits = [split for split in SPLITS if split in set(seeds["split"])]
    tunings = [t for t in RECALL_MODELS if t != "majority" and t in set(seeds["tuning"])]
    # Per panel the bars and room for a title; below them axis and legend.
    height = len(splits) * (0.34 * len(tunings) + 0.42) + 0.75
    with new_figure(height) as figure:
        panels = figure.subplots(len(splits), 1, sharex=True, squeeze=False)[:, 0]
        for axes, split in zip(panels, splits, strict=True):
            _draw_split(axes, seeds[seeds["split"] == split], tunings)
            axes.set_title(SPLIT_LABELS[split])
        panels[-1].set_xlabel("answers exactly right (%)")
        handles, labels = panels[-1].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8.5)
        save_figure(figure, seeds, stem, RECALL_DATA)


def _draw_split(axes: Axes, seeds: pd.DataFrame, tunings: list[str]) -> None:
    summary = spread(seeds).set_index("tuning")
    chance = 100 * float(summary["mean"].get("majority", 0.0))
    dashed: dict[str, Any] = {
        "color": COLOURS["majority"],
        "linewidth": 1,
        "linestyle": (0, (4, 3)),
    }
    if chance:
        axes.axvline(chance, **dashed)
    for row, tuning in enumerate(tunings):
        if tuning not in summary.index:
            continue
        mean, low, high = (100 * float(summary.loc[tuning, c]) for c in ("mean", "low", "high"))
        colour = COLOURS[tuning]
        axes.barh(row, mean, height=0.72, color=colour, alpha=0.35)
        axes.plot([mean, mean], [row - 0.36, row + 0.36], color=colour, linewidth=2)
        axes.plot([low, high], [row, row], color="#333333", linewidth=1)
        points = 100 * seeds.loc[seeds["tuning"] == tuning, "accuracy"].to_numpy()
        # Points are set apart across the bar only so that equal ones do not hide each other.
        rows = row + np.linspace(-0.2, 0.2, len(points)) if len(points) > 1 else [row]
        edge: dict[str, Any] = {
            "edgecolor": "white",
            "linewidth": 0.5,
            "zorder": 3,
            "clip_on": False,
        }
        axes.scatter(points, rows, s=13, color=colour, **edge)
        # Right of the line of chance, which would strike the number out.
        axes.text(max(high, chance) + 3, row, f"{mean:.1f}", va="center", fontsize=8.5)
    # Legend entries in grey: they stand for all tunings.
    axes.scatter([], [], s=13, color="#666666", label="one seed")
    axes.plot([], [], color="#333333", linewidth=1, label="lowest to highest")
    axes.plot([], [], label="majority vote", **dashed)
    axes.set_yticks(range(len(tunings)), [TUNING_LABELS[t] for t in tunings])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(tunings) - 0.5, -0.5)
    axes.set_xlim(0, 118)
    axes.set_xticks(range(0, 101, 20))
    axes.grid(axis="x")


def draw_recall_by_relation(recall: pd.DataFrame, stem: Path, published_model: str | None) -> None:
    """Draw QA out by tuning (rows) and relation (columns), the paper's numbers set below.

    Parameters
    ----------
    recall : DataFrame
        From `summaries.read_recall`.
    stem : Path
        Target without suffix.
    published_model : str or None
        Whose published numbers are shown, if there are any by relation.
    """
    here = by_relation(recall, "qa_out")[["tuning", "relation", "accuracy"]]
    blocks = {"here": here}
    if not (paper := _published_rows(published_model)).empty:
        blocks["paper"] = paper
    data = pd.concat([rows.assign(source=source) for source, rows in blocks.items()])
    heights = [rows["tuning"].nunique() for rows in blocks.values()]
    with new_figure(0.36 * sum(heights) + 0.42 * len(heights) + 0.4) as figure:
        panels = figure.subplots(
            len(blocks), 1, squeeze=False, gridspec_kw={"height_ratios": heights}
        )[:, 0]
        titles = {"here": "This study", "paper": f"The paper: {published_model}"}
        for axes, (source, rows) in zip(panels, blocks.items(), strict=True):
            _draw_heat(axes, rows, columns=source == "here")
            axes.set_title(titles[source])
        save_figure(figure, data, stem, RELATION_DATA)


def _published_rows(model: str | None) -> pd.DataFrame:
    rows = [
        (tuning, relation, value / 100)
        for tuning in RECALL_MODELS
        for relation in (AVERAGE, *RELATIONS)
        if model and published(model, tuning, "qa_out", RELATIONS[0]) is not None
        and (value := published(model, tuning, "qa_out", None if relation == AVERAGE else relation))
        is not None
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["tuning", "relation", "accuracy"])


def _draw_heat(axes: Axes, rows: pd.DataFrame, *, columns: bool) -> None:
    grid = rows.pivot(index="tuning", columns="relation", values="accuracy")
    grid = 100 * grid.reindex(
        index=[t for t in RECALL_MODELS if t in grid.index], columns=list(_COLUMNS)
    )
    values = grid.to_numpy()
    axes.imshow(values, cmap="Blues", vmin=0, vmax=100, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        if not np.isnan(value):
            ink = "white" if value > 55 else "black"
            weight = "bold" if column == 0 else "normal"
            axes.text(
                column, row, f"{value:.1f}", ha="center", va="center", color=ink, fontsize=8.5,
                fontweight=weight,
            )  # fmt: skip
    axes.set_yticks(range(len(grid)), [TUNING_LABELS[t] for t in grid.index])
    axes.set_xticks(range(len(_COLUMNS)), list(_COLUMNS.values()) if columns else [])
    axes.tick_params(length=0, labelsize=8.5)
    axes.xaxis.tick_top()
    axes.spines[:].set_visible(False)
    # The average is no seventh relation: a gap sets it apart.
    axes.axvline(0.5, color="white", linewidth=5)
    axes.set_yticks(np.arange(len(grid) + 1) - 0.5, minor=True)
    axes.grid(which="minor", axis="y", color="white", linewidth=2)
    axes.tick_params(which="minor", length=0)
