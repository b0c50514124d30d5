"""What a grafted model still answers as nodes are added or put back, and where S and γ sit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.colors import PowerNorm
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MultipleLocator

from factrecall.experiments.circuits.measures import CURVES, CircuitMeasures
from factrecall.experiments.circuits.tables import RANKINGS
from factrecall.models.architectures import PROJECTIONS
from factrecall.report.style import (
    COLOURS,
    KIND_LABELS,
    PRIORITY_COLOURS,
    PRIORITY_LABELS,
    TUNING_LABELS,
    new_figure,
    save_figure,
)
from factrecall.vocabulary import COMPARED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable

HEADS_DATA = {
    "tuning": "string",
    "chosen": "string",
    "layer": "int32",
    "projection": "string",
    "head": "int32",
    "part": "float64",
}

_LINES: dict[str, dict[str, Any]] = {
    "shared": {"linestyle": "-", "linewidth": 1.8, "zorder": 4},
    "grafted": {"linestyle": (0, (5, 2)), "linewidth": 1.5, "zorder": 3},
    "random": {"linestyle": "-", "linewidth": 1.1, "zorder": 2},
}
_NONE: dict[str, Any] = {"color": "#000000", "linewidth": 1, "linestyle": ":"}
_EVEN: dict[str, Any] = {"color": "#bbbbbb", "linewidth": 0.8, "linestyle": "--", "zorder": 0}
_GRAFTED: dict[str, Any] = {"linestyle": (0, (1.5, 1)), "linewidth": 1.5}


def draw_circuits(measures: CircuitMeasures, kinds: tuple[str, ...], stem: Path) -> None:
    """Draw sweeps over nodes: forward, backward, and what of S and γ is in the nodes so far.

    Parameters
    ----------
    measures : CircuitMeasures
        Of one model.
    kinds : tuple of str
        Kinds of nodes, one below the other; those that were not intervened on are left out.
    stem : Path
        Target without suffix.
    """
    there = [kind for kind in kinds if kind in measures.kinds]
    tables = {kind: measures.curves(kind) for kind in there}
    data = pd.concat(tables.values()) if tables else pd.DataFrame(columns=list(CURVES))
    with new_figure(1.2 + 5.2 * max(1, len(there)) if there else 1.3) as figure:
        if not there:
            figure.text(0.5, 0.5, "not intervened on in this study", ha="center", va="center")
        # One kind or several, each has its own rows.
        parts: Any = figure.subfigures(len(there), 1, squeeze=False).ravel() if there else ()
        for part, (kind, curves) in zip(parts, tables.items(), strict=True):
            part.suptitle(
                f"{measures.nodes(kind):,} {KIND_LABELS[kind]}",
                fontsize=10.5, fontweight="bold", x=0.02, ha="left",
            )  # fmt: skip
            _draw_kind(part.subplots(3, 2, sharex=True, sharey="row"), curves, kind)
        if there:
            handles = _legend(set(data["ranking"]))
            figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=8)
        save_figure(figure, data, stem, CURVES)


def _draw_kind(panels: np.ndarray, curves: pd.DataFrame, kind: str) -> None:
    complete = curves[curves["quantity"] == "completeness"]
    for column, tuning in enumerate(COMPARED):
        own = curves[curves["tuning"] == tuning]
        for axes, direction in zip(panels[:2, column], ("forward", "backward"), strict=True):
            rows = own[(own["direction"] == direction) & (own["quantity"] == "completeness")]
            _draw_completeness(axes, rows, complete)
        _draw_held(panels[2, column], own[own["direction"] == "forward"])
        panels[0, column].set_title(TUNING_LABELS[tuning], fontsize=9.5, color=COLOURS[tuning])
        panels[2, column].set_xlabel("nodes so far (% of all)", fontsize=8.5)
    for axes, label in zip(
        panels[:, 0],
        ("adding nodes:\ncompleteness (%)", "putting nodes back:\ncompleteness (%)",
         "in the nodes so far:\nof S, of γ (%)"),
        strict=True,
    ):  # fmt: skip
        axes.set_ylabel(label, fontsize=8.5)
    for axes in panels.ravel():
        axes.set_xlim(0, 100)
        axes.xaxis.set_major_locator(MultipleLocator(25))
        axes.tick_params(labelsize=8)
        axes.grid(axis="y")


def _draw_completeness(axes: Axes, rows: pd.DataFrame, every: pd.DataFrame) -> None:
    if rows.empty:
        axes.text(0.5, 0.5, "nothing recalled", transform=axes.transAxes, ha="center", fontsize=8)
        return
    for priority in RANKINGS:
        line = rows[rows["ranking"] == priority]
        colour = PRIORITY_COLOURS[priority]
        axes.fill_between(
            100 * line["share"], 100 * line["low"], 100 * line["high"],
            color=colour, alpha=0.2, linewidth=0,
        )  # fmt: skip
        axes.plot(100 * line["share"], 100 * line["mean"], color=colour, **_LINES[priority])
    # With no node of the kind: where the forward sweep begins and the backward one ends.
    forward = rows["direction"].iloc[0] == "forward"
    floor = rows[rows["share"] == (0 if forward else 1)]["mean"].mean()
    axes.axhline(100 * floor, **_NONE)
    low = 100 * float(every["low"].min())
    axes.set_ylim(max(0.0, 10 * np.floor((low - 2) / 10)), max(104, 103 * every["high"].max()))


def _draw_held(axes: Axes, rows: pd.DataFrame) -> None:
    rows = rows[rows["ranking"] == "shared"]
    for quantity, look in (("shared_fraction", _LINES["shared"]), ("grafted_fraction", _GRAFTED)):
        line = rows[rows["quantity"] == quantity]
        axes.plot(100 * line["share"], 100 * line["mean"], color=PRIORITY_COLOURS["shared"], **look)
    axes.plot([0, 100], [0, 100], **_EVEN)
    axes.set_ylim(0, 104)
    axes.yaxis.set_major_locator(MultipleLocator(25))


def _legend(there: set[str]) -> list[Line2D | Patch]:
    orders = [
        Line2D([], [], color=PRIORITY_COLOURS[p], label=PRIORITY_LABELS[p], **_LINES[p])
        for p in RANKINGS
        if p in there
    ]
    colour = PRIORITY_COLOURS["shared"]
    return [
        *orders,
        Patch(color="#888888", alpha=0.25, linewidth=0, label="least to most of all seeds"),
        Line2D([], [], label="none of them grafted", **_NONE),
        Line2D([], [], color=colour, label="below: of S, by shared", **_LINES["shared"]),
        Line2D([], [], color=colour, label="below: of γ, by shared", **_GRAFTED),
        Line2D([], [], label="below: spread evenly", **_EVEN),
    ]


def draw_heads(measures: CircuitMeasures, stem: Path) -> None:
    """Draw which attention nodes hold S and γ: layers down, heads of each projection across.

    Parameters
    ----------
    measures : CircuitMeasures
        Of one model.
    stem : Path
        Target without suffix.
    """
    data = measures.places()[list(HEADS_DATA)] if len(measures.heads) else None
    if data is None:
        data = pd.DataFrame(columns=list(HEADS_DATA))
    maps = [(t, c) for t in ("mix", "stage") for c in ("shared", "grafted")]
    layers = max(1, data["layer"].nunique())
    height = min(0.95, max(0.32, 0.05 * layers))
    with new_figure(1.55 + 4 * (height + 0.3) if len(data) else 1.3) as figure:
        if data.empty:
            figure.text(0.5, 0.5, "not intervened on in this study", ha="center", va="center")
            save_figure(figure, data, stem, HEADS_DATA)
            return
        panels = figure.subplots(len(maps), 1, sharex=True)
        most = float(np.nan_to_num(100 * data["part"].max())) or 1.0
        image = None
        for axes, (tuning, chosen) in zip(panels, maps, strict=True):
            rows = data[(data["tuning"] == tuning) & (data["chosen"] == chosen)]
            image = _draw_map(axes, rows, most) or image
            name = "S" if chosen == "shared" else "γ"
            axes.set_title(f"{name}, {TUNING_LABELS[tuning]}", fontsize=9, color=COLOURS[tuning])
        panels[-1].set_xlabel("heads of each projection", fontsize=8.5)
        figure.supylabel("layer", fontsize=8.5)
        if image is not None:
            bar = figure.colorbar(
                image, ax=list(panels), location="bottom", aspect=35, shrink=0.9, pad=0.02
            )
            bar.set_label("of all S, or γ, in attention (%)", fontsize=8.5)
            bar.ax.tick_params(labelsize=8)
        save_figure(figure, data, stem, HEADS_DATA)


def _draw_map(axes: Axes, rows: pd.DataFrame, most: float) -> ScalarMappable | None:
    axes.tick_params(length=0, labelsize=8)
    axes.spines[:].set_visible(False)
    if rows.empty:
        axes.set_yticks([])
        return None
    columns = [
        (p, head)
        for p in PROJECTIONS
        for head in sorted(rows.loc[rows["projection"] == p, "head"].unique())
    ]
    grid = rows.pivot(index="layer", columns=["projection", "head"], values="part")
    values = 100 * grid.reindex(columns=columns).to_numpy(dtype=float)
    # A root makes 1 % visible beside the most: few nodes hold most of S.
    image = axes.imshow(values, cmap="Purples", norm=PowerNorm(0.5, 0, most), aspect="auto")
    first = [i for i, (_, head) in enumerate(columns) if head == 0]
    ends = [*first[1:], len(columns)]
    for end in ends[:-1]:
        axes.axvline(end - 0.5, color="#444444", linewidth=1)
    centres = [(a + b - 1) / 2 for a, b in zip(first, ends, strict=True)]
    labels = [f"{columns[i][0]} ({end - i})" for i, end in zip(first, ends, strict=True)]
    axes.set_xticks(centres, labels)
    step = max(1, -(-len(grid) // 4))
    axes.set_yticks(range(0, len(grid), step), [str(layer) for layer in grid.index[::step]])
    axes.spines[:].set(visible=True, color="#bbbbbb", linewidth=0.7)
    return image
