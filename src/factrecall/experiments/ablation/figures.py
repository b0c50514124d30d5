"""What a model still recalls when parameters are put back as they were before fine-tuning."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from factrecall.evaluation.exact_match import SPLITS
from factrecall.experiments.ablation.stage import ABLATED
from factrecall.report.measures import COMPARED, Measures
from factrecall.report.style import (
    COLOURS,
    SPLIT_LABELS,
    TUNING_LABELS,
    new_figure,
    save_figure,
)
from factrecall.report.summaries import by_seed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ABLATION_DATA = {
    "tuning": "string",
    "seed": "int32",
    "split": "string",
    "ablated": "string",
    "accuracy": "float64",
    "drop": "float64",
}

ABLATED_LABELS = {
    "none": "nothing",
    "shared": "S, shared",
    "random": "random",
    "random_by_tensor": "random,\nas S by tensor",
    "most_moved": "moved most",
}


def draw_ablation(measures: Measures, recall: pd.DataFrame, stem: Path) -> None:
    """Draw accuracy after each ablation (rows), by split (panels) and tuning (bars).

    Parameters
    ----------
    measures : Measures
        Of one model.
    recall : DataFrame
        From `summaries.read_recall`; gives the line of chance.
    stem : Path
        Target without suffix.
    """
    data = measures.ablated()[list(ABLATION_DATA)]
    seeds = by_seed(recall)
    majority = seeds[seeds["tuning"] == "majority"].groupby("split")["accuracy"].mean()
    with new_figure(6.3) as figure:
        panels = figure.subplots(len(SPLITS), 1, sharex=True)
        for axes, split in zip(panels, SPLITS, strict=True):
            _draw_split(axes, data[data["split"] == split], float(majority.get(split, 0.0)))
            axes.set_title(SPLIT_LABELS[split])
        panels[-1].set_xlabel("answers exactly right (%)")
        figure.supylabel("put back as before fine-tuning", fontsize=9)
        handles, labels = panels[-1].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=8.5)
        save_figure(figure, data, stem, ABLATION_DATA)


def _draw_split(axes: Axes, rows: pd.DataFrame, chance: float) -> None:
    dashed: dict[str, Any] = {
        "color": COLOURS["majority"],
        "linewidth": 1,
        "linestyle": (0, (4, 3)),
    }
    if chance:
        axes.axvline(100 * chance, **dashed)
    for number, ablated in enumerate(ABLATED):
        for offset, tuning in zip((-0.2, 0.2), COMPARED, strict=True):
            chosen = (rows["ablated"] == ablated) & (rows["tuning"] == tuning)
            values = 100 * rows.loc[chosen, "accuracy"].to_numpy()
            if len(values):
                _draw_bar(axes, number + offset, values, COLOURS[tuning], 100 * chance)
    for tuning in COMPARED:
        label = TUNING_LABELS[tuning]
        axes.barh(0, np.nan, height=0, color=COLOURS[tuning], alpha=0.35, label=label)
    axes.scatter([], [], s=9, color="#666666", label="one seed")
    axes.plot([], [], label="majority vote", **dashed)
    axes.set_yticks(range(len(ABLATED)), [ABLATED_LABELS[name] for name in ABLATED])
    axes.tick_params(axis="y", length=0, labelsize=8)
    axes.set_ylim(len(ABLATED) - 0.45, -0.55)
    axes.set_xlim(0, 118)
    axes.set_xticks(range(0, 101, 20))
    axes.grid(axis="x")


def _draw_bar(axes: Axes, row: float, values: np.ndarray, colour: str, chance: float) -> None:
    mean = float(values.mean())
    axes.barh(row, mean, height=0.36, color=colour, alpha=0.35)
    axes.plot([mean, mean], [row - 0.18, row + 0.18], color=colour, linewidth=1.6)
    rows = row + np.linspace(-0.1, 0.1, len(values)) if len(values) > 1 else [row]
    axes.scatter(
        values, rows, s=7, color=colour, edgecolor="white", linewidth=0.3, zorder=3, clip_on=False
    )
    # Right of the line of chance, which would strike the number out.
    axes.text(max(values.max(), chance) + 2.5, row, f"{mean:.1f}", va="center", fontsize=7.5)
