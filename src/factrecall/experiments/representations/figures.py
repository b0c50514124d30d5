"""What probes read off hidden states, layer by layer, and how far that differs between formats."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from factrecall.experiments.representations.measures import BIO_LABELS, Represented, chosen
from factrecall.report.style import COLOURS, TUNING_LABELS, new_figure, save_figure
from factrecall.runtime.statistics import TOGETHER
from factrecall.vocabulary import COMPARED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PROBES_DATA = {
    "tuning": "string",
    "trained": "string",
    "tested": "string",
    "layer": "int32",
    "mean": "float64",
    "low": "float64",
    "high": "float64",
    "shuffled": "float64",
    "chance": "float64",
}
CONSISTENCY_DATA = {
    "split": "string",
    "tuning": "string",
    "seed": "int32",
    "layer": "int32",
    "bio": "string",
    "measure": "string",
    "value": "float64",
    "signed": "float64",
    "low": "float64",
    "high": "float64",
}

FEW = 4
"""So many layers or moments at most are drawn as points: a line would claim what lies between."""

MEASURE_LABELS = {
    "rep": "Δrep",
    "mech": "Δmech",
    "mech_bio": "Δmech of\nBIO states",
}
SIDES = {"out": "facts out", "held": "facts in"}

_QA, _BIO = "#aa3377", "#009e73"
_OTHERS: dict[str, Any] = {"linestyle": (0, (4, 2)), "marker": "s", "mfc": "white"}

# Colour says whose states; filled marks are of probes of that format, hollow ones of the other.
_PAIRS: dict[tuple[str, str], dict[str, Any]] = {
    ("qa", "qa"): {"color": _QA, "linestyle": "-", "marker": "o"},
    ("qa", "bio"): {"color": _BIO, **_OTHERS},
    ("bio", "qa"): {"color": _QA, **_OTHERS},
    ("bio", "bio"): {"color": _BIO, "linestyle": "-", "marker": "o"},
}
"""By what the probe was trained on and what it is tested on."""

PAIR_LABELS = {pair: f"{pair[1].upper()} states, {pair[0].upper()} probe" for pair in _PAIRS}

_CHANCE: dict[str, Any] = {"color": "#000000", "linewidth": 1, "linestyle": (0, (4, 3))}
_SHUFFLED: dict[str, Any] = {"color": "#888888", "linewidth": 1, "linestyle": ":"}
_ZERO: dict[str, Any] = {"color": "#444444", "linewidth": 0.8, "zorder": 1}


def trail(axes: Axes, rows: pd.DataFrame, x: str, *, shift: float, **look: Any) -> None:
    """Draw columns mean, low and high against `x`: points with bars, or a line with a band.

    Parameters
    ----------
    axes : Axes
        Where to.
    rows : DataFrame
        In any order; missing means are left out.
    x : str
        The column to draw against.
    shift : float
        Where points of one place stand beside others, in units of `x`.
    **look
        Of the line; a marker is drawn of few points only.
    """
    rows = rows.dropna(subset=["mean"]).sort_values(x)
    if rows.empty:
        return
    colour, few = look["color"], len(rows) <= FEW
    if not few:
        known = rows.dropna(subset=["low", "high"])
        axes.fill_between(
            known[x], known["low"], known["high"], color=colour, alpha=0.18, linewidth=0
        )
        axes.plot(rows[x], rows["mean"], linewidth=1.5, **{**look, "marker": ""})
        return
    axes.vlines(rows[x] + shift, rows["low"], rows["high"], color=colour, linewidth=1.1)
    axes.plot(
        rows[x] + shift, rows["mean"], linewidth=0,
        markersize=4.5, markeredgewidth=1, **{**look, "linestyle": ""},
    )  # fmt: skip


def nothing(figure: Figure, text: str = "not measured in this study") -> None:
    """Say on an empty figure that there is nothing to show."""
    figure.text(0.5, 0.5, text, ha="center", va="center")


def layer_axis(axes: Axes, layers: list[int]) -> None:
    """Set an axis of layers up: each its own tick where they are few."""
    if len(layers) <= FEW:
        axes.set_xticks(layers, [str(layer) for layer in layers])
        axes.set_xlim(min(layers) - 0.5, max(layers) + 0.5)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.tick_params(labelsize=8)
    axes.grid(axis="y")


def handle(label: str, few: bool, **look: Any) -> Line2D:
    """Return a legend's entry that looks as `trail` draws."""
    if few:
        return Line2D([], [], linewidth=0, markersize=4.5, **{**look, "linestyle": ""}, label=label)
    return Line2D([], [], linewidth=1.5, **{**look, "marker": ""}, label=label)


def draw_probes(measures: Represented, stem: Path) -> None:
    """Draw accuracies of probes by layer: BIO long above, short below, tunings abreast.

    Parameters
    ----------
    measures : Represented
        Of one model.
    stem : Path
        Target without suffix.
    """
    data = measures.accuracies()
    layers = measures.layers
    shares = ["mean", "low", "high", "shuffled", "chance"]
    with new_figure(5.6 if len(data) else 1.3) as figure:
        if data.empty:
            nothing(figure)
            save_figure(figure, data[list(PROBES_DATA)], stem, PROBES_DATA)
            return
        panels = figure.subplots(2, 2, sharex=True, sharey=True)
        for row, bio in zip(panels, BIO_LABELS, strict=True):
            for axes, tuning in zip(row, COMPARED, strict=True):
                rows = chosen(data, tuning=tuning)
                rows = rows.assign(**{share: 100 * rows[share] for share in shares})
                _draw_pairs(axes, rows, bio)
                axes.set_title(
                    f"{TUNING_LABELS[tuning]},\n{BIO_LABELS[bio]}", fontsize=9,
                    color=COLOURS[tuning],
                )  # fmt: skip
                layer_axis(axes, layers)
                axes.set_ylim(0, 104)
            row[0].set_ylabel("first token right (%)", fontsize=8.5)
        for axes in panels[-1]:
            axes.set_xlabel("layer", fontsize=8.5)
        few = len(layers) <= FEW
        handles = [handle(PAIR_LABELS[pair], few, **look) for pair, look in _PAIRS.items()]
        handles += [
            Line2D([], [], label="most frequent answer", **_CHANCE),
            Line2D([], [], label="shuffled labels", **_SHUFFLED),
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=8)
        save_figure(figure, data[list(PROBES_DATA)], stem, PROBES_DATA)


def _draw_pairs(axes: Axes, rows: pd.DataFrame, bio: str) -> None:
    formats = {"qa": "qa", "bio": bio}
    for number, ((trained, tested), look) in enumerate(_PAIRS.items()):
        pair = chosen(rows, trained=formats[trained], tested=formats[tested])
        trail(axes, pair, "layer", shift=0.14 * (number - 1.5), **look)
    own = rows[rows["trained"] == rows["tested"]]
    own = own[own["trained"].isin(formats.values())]
    if own["chance"].notna().any():
        axes.axhline(own["chance"].mean(), **_CHANCE)
    if own["shuffled"].notna().any():
        axes.axhline(own["shuffled"].mean(), **_SHUFFLED)


def draw_consistency(measures: Represented, stem: Path) -> None:
    """Draw all Δ of both sides, one below the other, signed; BIO long and short abreast.

    Parameters
    ----------
    measures : Represented
        Of one model.
    stem : Path
        Target without suffix.
    """
    rows = pd.concat([measures.at_layers(split) for split in SIDES])
    data = rows[rows["tuning"].isin(COMPARED)][list(CONSISTENCY_DATA)]
    with new_figure(6.5 if len(data) else 1.3) as figure:
        if data.empty:
            nothing(figure)
            save_figure(figure, data, stem, CONSISTENCY_DATA)
            return
        kinds = list(product(MEASURE_LABELS, SIDES))
        panels = figure.subplots(len(kinds), 2, sharex=True, sharey=True)
        layers = sorted({int(layer) for layer in data["layer"]})
        few = len(layers) <= FEW
        for row, (measure, split) in zip(panels, kinds, strict=True):
            for axes, bio in zip(row, BIO_LABELS, strict=True):
                axes.axhline(0, **_ZERO)
                for number, tuning in enumerate(COMPARED):
                    every = chosen(data, measure=measure, split=split, bio=bio, tuning=tuning)
                    _draw_signed(axes, every, COLOURS[tuning], 0.2 * (number - 0.5), few=few)
                layer_axis(axes, layers)
            row[0].set_ylabel(f"{MEASURE_LABELS[measure]},\n{SIDES[split]}", fontsize=7.5)
        for axes, name in zip(panels[0], BIO_LABELS.values(), strict=True):
            axes.set_title(f"{name} (points)", fontsize=9.5)
        for axes in panels[-1]:
            axes.set_xlabel("layer", fontsize=8.5)
        looks = {t: {"color": COLOURS[t], "marker": "o"} for t in COMPARED}
        handles: list[Any] = [handle(TUNING_LABELS[t], few, **looks[t]) for t in COMPARED]
        if few:
            handles.append(Line2D([], [], color="#666666", linewidth=1.1, label="95 % interval"))
            dot: dict[str, Any] = {"marker": "o", "linewidth": 0, "markersize": 2.5}
            handles.append(Line2D([], [], color="#666666", label="one seed", **dot))
        else:
            handles.append(Patch(color="#888888", alpha=0.25, linewidth=0, label="95 % interval"))
        figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=8.5)
        save_figure(figure, data, stem, CONSISTENCY_DATA)


def _draw_signed(axes: Axes, rows: pd.DataFrame, colour: str, shift: float, *, few: bool) -> None:
    points = rows.assign(mean=100 * rows["signed"], low=100 * rows["low"], high=100 * rows["high"])
    trail(
        axes, chosen(points, seed=TOGETHER), "layer",
        shift=shift, color=colour, marker="o", linestyle="-",
    )  # fmt: skip
    if few:
        single = points[points["seed"] != TOGETHER]
        axes.scatter(single["layer"] + shift + 0.09, single["mean"], s=5, color=colour, alpha=0.7)
