"""Whether a fact told and asked pulls at the same parameters, over training and by layer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from factrecall.experiments.gradient_similarity.cosines import KINDS
from factrecall.experiments.representations.figures import FEW, nothing, trail
from factrecall.experiments.representations.measures import Represented, chosen
from factrecall.report.style import COLOURS, TUNING_LABELS, new_figure, save_figure
from factrecall.runtime.statistics import TOGETHER
from factrecall.vocabulary import COMPARED

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GRADIENTS_DATA = {
    "tuning": "string",
    "seed": "int32",
    "phase": "string",
    "share": "float64",
    "group": "string",
    "kind": "string",
    "cosine": "float64",
    "low": "float64",
    "high": "float64",
    "facts": "int32",
}

GROUP_LABELS = {
    "all": "all parameters",
    "S": "S",
    "random": "random, as many as S",
    "gamma": "γ",
    "rest": "neither S nor γ",
}
PAIRED_LABELS = {"S - random": "S less random", "S - rest": "S less neither S nor γ"}
"""Differences within facts, which are no cosines and not drawn."""

KIND_LABELS = {
    "matched": "the same fact asked",
    "person": "other people, same relation",
    "relation": "same person, other relations",
}
_LOOKS: dict[str, dict[str, Any]] = {
    "matched": {"color": "#aa3377", "marker": "o", "linestyle": "-"},
    "person": {"color": "#444444", "marker": "s", "mfc": "white", "linestyle": (0, (4, 2))},
    "relation": {"color": "#009e73", "marker": "^", "mfc": "white", "linestyle": ":"},
}


def draw_gradients(measures: Represented, stem: Path) -> None:
    """Draw cosines over training by group of parameters, and by layer at its end.

    Parameters
    ----------
    measures : Represented
        Of one model.
    stem : Path
        Target without suffix.
    """
    rows = chosen(measures.moments(), seed=TOGETHER)
    rows = rows[rows["kind"].isin(KINDS) & ~rows["group"].isin(PAIRED_LABELS)]
    groups = [group for group in GROUP_LABELS if (rows["group"] == group).any()]
    with new_figure(1.5 + 0.8 * (len(groups) + 1) if len(rows) else 1.3) as figure:
        if not groups:
            nothing(figure)
            save_figure(figure, rows[list(GRADIENTS_DATA)], stem, GRADIENTS_DATA)
            return
        drawn = rows.assign(mean=rows["cosine"])
        panels = figure.subplots(len(groups) + 1, 2, sharey="row", squeeze=False)
        for number, (row, group) in enumerate(zip(panels[:-1], groups, strict=True), 1):
            for axes, tuning in zip(row, COMPARED, strict=True):
                _draw_training(axes, chosen(drawn, tuning=tuning, group=group), tuning)
                axes.set_title(GROUP_LABELS[group], fontsize=8.5, fontweight="normal")
                if number < len(groups):
                    axes.set_xticklabels([])
        ends = chosen(measures.ends(), seed=TOGETHER)
        ends = ends[ends["kind"].isin(KINDS)]
        places = _places(set(ends["group"]))
        for axes, tuning in zip(panels[-1], COMPARED, strict=True):
            _draw_layers(axes, chosen(ends, tuning=tuning).assign(mean=ends["cosine"]), places)
            axes.set_title("at the end, by layer", fontsize=8.5, fontweight="normal")
        for axes, tuning in zip(panels[0], COMPARED, strict=True):
            axes.set_title(
                f"{TUNING_LABELS[tuning]}\n", fontsize=9.5, color=COLOURS[tuning], loc="right"
            )
        figure.supylabel("cosine of gradients, told and asked", fontsize=8.5)
        handles: list[Any] = [
            Line2D([], [], linewidth=1.4, markersize=4, label=KIND_LABELS[kind], **_LOOKS[kind])
            for kind in KINDS
        ]
        handles.append(Patch(color="#888888", alpha=0.3, linewidth=0, label="95 % interval"))
        figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=7.5)
        save_figure(figure, rows[list(GRADIENTS_DATA)], stem, GRADIENTS_DATA)


def _draw_training(axes: Axes, rows: pd.DataFrame, tuning: str) -> None:
    axes.axhline(0, color="#444444", linewidth=0.8, zorder=1)
    for kind in KINDS:
        line = chosen(rows, kind=kind).dropna(subset=["mean"]).sort_values("progress")
        look = _LOOKS[kind]
        axes.fill_between(
            line["progress"], line["low"], line["high"],
            color=look["color"], alpha=0.15, linewidth=0,
        )  # fmt: skip
        # Moments are few and known: their marks say where, the line only which belong together.
        axes.plot(line["progress"], line["mean"], linewidth=1.1, markersize=3.2, **look)
    ends = (0, 1, 2) if tuning == "stage" else (0, 1)
    names = ("start", "BIO end", "QA end") if tuning == "stage" else ("start", "end")
    if tuning == "stage":
        axes.axvline(1, color="#bbbbbb", linewidth=1, zorder=0)
    axes.set_xlim(-0.05 * ends[-1], 1.05 * ends[-1])
    axes.set_xticks(ends, names, fontsize=7)
    # The outer labels stay within the panel.
    first, *_, last = axes.get_xticklabels()
    first.set_horizontalalignment("left")
    last.set_horizontalalignment("right")
    axes.yaxis.set_major_locator(MaxNLocator(3))
    axes.tick_params(axis="y", labelsize=7.5)
    axes.grid(axis="y")


def _places(groups: set[str]) -> dict[str, int]:
    """Return where the groups that are places stand: embeddings before the layers."""
    layers = sorted(int(g.removeprefix("layer ")) for g in groups if g.startswith("layer "))
    return {"embeddings": -1, **{f"layer {layer}": layer for layer in layers}}


def _draw_layers(axes: Axes, rows: pd.DataFrame, places: dict[str, int]) -> None:
    rows = rows[rows["group"].isin(places)]
    rows = rows.assign(place=rows["group"].map(places).astype(float))
    few = len(places) <= FEW
    axes.axhline(0, color="#444444", linewidth=0.8, zorder=1)
    for number, kind in enumerate(KINDS):
        trail(
            axes, chosen(rows, kind=kind), "place",
            shift=0.18 * (number - 1) if few else 0.0, **_LOOKS[kind],
        )  # fmt: skip
    last = max(places.values())
    step = 1 if few else max(2, len(places) // 4)
    # The first layer's number has no room beside the embeddings where layers are many.
    shown = list(range(0 if few else step, last + 1, step))
    axes.set_xticks([-1, *shown], ["emb.", *map(str, shown)], fontsize=7.5)
    axes.set_xlim(-1.5, last + 0.5)
    axes.yaxis.set_major_locator(MaxNLocator(3))
    axes.tick_params(axis="y", labelsize=7.5)
    axes.grid(axis="y")
