"""How many parameters two tasks share at every k, and in which tensors those of S are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.colors import PowerNorm

from factrecall.report.measures import Measures
from factrecall.report.style import COLOURS, TUNING_LABELS, new_figure, save_figure
from factrecall.vocabulary import COMPARED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

SHARED_DATA = {
    "influence": "string",
    "tuning": "string",
    "seed": "int32",
    "k": "int64",
    "ratio": "float64",
    "chance": "float64",
    "null": "float64",
}
PLACES_DATA = {
    "tuning": "string",
    "layer": "int32",
    "kind": "string",
    "share": "float64",
}

INFLUENCE_LABELS = {
    "absolute": "Absolute: Σ |lr·g|",
    "magnitude": "Magnitude: |Σ lr·g|",
    "signed": "Signed: Σ lr·g",
}

_NUMBERS_UP_TO = 4
"""Layers whose cells are wide enough for a number."""


def draw_shared(measures: Measures, stem: Path) -> None:
    """Draw |S(k)|/k against k, one panel a reading of influence, that of the study first.

    Parameters
    ----------
    measures : Measures
        Of one model.
    stem : Path
        Target without suffix.
    """
    rows = measures.shared[measures.shared["set"] == "S"]
    data = rows[list(SHARED_DATA)]
    influences = sorted(INFLUENCE_LABELS, key=lambda name: name != measures.influence)
    with new_figure(6.2) as figure:
        panels = figure.subplots(len(influences), 1, sharex=True)
        for axes, influence in zip(panels, influences, strict=True):
            _draw_curves(axes, data[data["influence"] == influence], measures.k)
            used = " (used here)" if influence == measures.influence else ""
            axes.set_title(INFLUENCE_LABELS[influence] + used)
        panels[-1].set_xlabel("k: parameters taken from each ranking")
        panels[1].set_ylabel("shared, in per cent of k")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=8.5)
        save_figure(figure, data, stem, SHARED_DATA)


def _draw_curves(axes: Axes, rows: pd.DataFrame, k: int) -> None:
    for tuning in COMPARED:
        lines = rows[rows["tuning"] == tuning]
        colour = COLOURS[tuning]
        for _, line in lines.groupby("seed"):
            axes.plot(line["k"], 100 * line["ratio"], color=colour, linewidth=0.7, alpha=0.5)
        means = lines.groupby("k")[["ratio", "null", "chance"]].mean()
        label = TUNING_LABELS[tuning]
        axes.plot(means.index, 100 * means["ratio"], color=colour, linewidth=1.8, label=label)
        axes.plot(
            means.index, 100 * means["null"], color=colour, linewidth=1.2,
            linestyle=(0, (4, 2)), label=f"{label}, permuted",
        )  # fmt: skip
    chance = rows.groupby("k")["chance"].first()
    axes.plot(
        chance.index, 100 * chance, color="#000000", linewidth=1, linestyle=":", label="chance"
    )
    if k:
        axes.axvline(k, color="#888888", linewidth=1, zorder=0, label=f"k of this study: {k:,}")
    axes.set_xscale("log")
    axes.set_ylim(0, 100)
    axes.set_yticks(range(0, 101, 25))
    axes.grid(axis="y")


def draw_shared_places(measures: Measures, stem: Path) -> None:
    """Draw the share of each tensor that is in S: kinds down, layers across, tunings abreast.

    Tensors outside the layers (embeddings, last norm, head) have one wide cell each, below.

    Parameters
    ----------
    measures : Measures
        Of one model.
    stem : Path
        Target without suffix.
    """
    rows = measures.places[measures.places["set"] == "S"]
    shares = rows.assign(share=rows["shared"] / rows["parameters"])
    keys = ["tuning", "layer", "kind"]
    data = shares.groupby(keys, sort=False)["share"].mean().reset_index()
    inside, outside = data[data["layer"] >= 0], data[data["layer"] < 0]
    heights = [max(1, part["kind"].nunique()) for part in (inside, outside)]
    whole = measures.size_of_s().groupby("tuning")["share"].mean()
    with new_figure(0.21 * sum(heights) + 1.75) as figure:
        panels = figure.subplots(
            2, 2, sharey="row", squeeze=False, gridspec_kw={"height_ratios": heights}
        )
        image = None
        for column, tuning in enumerate(COMPARED):
            for axes, part in zip(panels[:, column], (inside, outside), strict=True):
                image = _draw_cells(axes, part, tuning) or image
            share = f"\n{100 * whole[tuning]:.2f} % of all" if tuning in whole.index else ""
            panels[0, column].set_title(
                TUNING_LABELS[tuning] + share, fontsize=9.5, color=COLOURS[tuning]
            )
            panels[0, column].set_xlabel("layer", fontsize=8.5)
            panels[1, column].set_xlabel("outside the layers", fontsize=8.5)
        if image is not None:
            _draw_scale(figure, image, panels)
        save_figure(figure, data, stem, PLACES_DATA)


def _draw_cells(axes: Axes, part: pd.DataFrame, tuning: str) -> ScalarMappable | None:
    kinds, layers = list(part["kind"].unique()), sorted(part["layer"].unique())
    axes.tick_params(length=0, labelsize=8)
    axes.spines[:].set_visible(False)
    axes.set_xticks([])
    if not kinds:
        axes.set_yticks([])
        return None
    rows = part[part["tuning"] == tuning]
    grid = rows.pivot(index="kind", columns="layer", values="share")
    values = 100 * grid.reindex(index=kinds, columns=layers).to_numpy(dtype=float)
    # A root makes 1 % visible beside 100 %: most tensors hold little of S.
    image = axes.imshow(values, cmap="Blues", norm=PowerNorm(0.4, 0, 100), aspect="auto")
    if len(layers) <= _NUMBERS_UP_TO:
        for (row, column), value in np.ndenumerate(values):
            if not np.isnan(value):
                axes.text(
                    column, row, f"{value:.1f}", ha="center", va="center", fontsize=7.5,
                    color="white" if value > 25 else "black",
                )  # fmt: skip
    axes.set_yticks(range(len(kinds)), [_short(str(kind)) for kind in kinds])
    if layers != [-1]:
        step = max(1, -(-len(layers) // 6))
        axes.set_xticks(range(0, len(layers), step), [str(n) for n in layers[::step]])
    axes.set_yticks(np.arange(len(kinds) + 1) - 0.5, minor=True)
    axes.grid(which="minor", axis="y", color="white", linewidth=1.2)
    axes.tick_params(which="minor", length=0)
    return image


def _draw_scale(figure: Figure, image: ScalarMappable, panels: np.ndarray) -> None:
    bar = figure.colorbar(
        image, ax=list(panels.ravel()), location="bottom", aspect=35, shrink=0.9, pad=0.02
    )
    bar.set_ticks([0, 1, 5, 20, 50, 100])
    bar.set_label("of a tensor's parameters in S (%)", fontsize=8.5)
    bar.ax.tick_params(labelsize=8)


def _short(kind: str) -> str:
    """Shorten a kind of tensor to what tells it from the others of both architectures."""
    name = kind
    for long, short in (
        ("self_attn.", ""),
        ("mlp.dense_h_to_4h", "MLP up"),
        ("mlp.dense_4h_to_h", "MLP down"),
        ("mlp.", ""),
        ("attention.query_key_value", "query, key, value"),
        ("attention.dense", "attention out"),
        ("post_attention_layernorm", "norm before MLP"),
        ("input_layernorm", "norm at input"),
        ("model.", ""),
        ("gpt_neox.", ""),
        (".bias", ": bias"),
    ):
        name = name.replace(long, short)
    return name
