"""What a fact is read from, by attribution and by exchange, and what patched states restore."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from factrecall.experiments.representations.figures import FEW, layer_axis, nothing, trail
from factrecall.experiments.representations.measures import (
    RESTORED,
    SPLIT,
    Represented,
    chosen,
)
from factrecall.report.style import COLOURS, TUNING_LABELS, new_figure, save_figure
from factrecall.runtime.statistics import TOGETHER
from factrecall.vocabulary import COMPARED, FORMATS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIGNATURE_DATA = {
    "tuning": "string",
    "seed": "int32",
    "format": "string",
    "role": "string",
    "facts": "int32",
    "replaced": "int32",
    **{
        f"{value}{end}": "float64"
        for value in ("share", "logit_drop")
        for end in ("", "_low", "_high")
    },
}
PATCHING_DATA = {
    "tuning": "string",
    "seed": "int32",
    "source": "string",
    "target": "string",
    "layer": "int32",
    "position": "string",
    "source_fact": "string",
    "accuracy": "float64",
    "unpatched": "float64",
    "gain": "float64",
    "gain_low": "float64",
    "gain_high": "float64",
    "facts": "int32",
}

SIGNATURE_LABELS = {
    "subject": "name, pronouns",
    "relation": "wording of the\nrelation",
    "another relation": "… of another\nrelation",
    "attribute": "attributes\ntold before",
    "other": "all other\nwording",
    "start": "start token",
}
"""Roles in the order in which they are shown; the third is an exchange only."""

DIRECTIONS = {("bio", "qa"): "BIO → QA", ("short", "qa"): "short → QA", ("qa", "bio"): "QA → BIO"}
POSITION_LABELS = {
    "subject": "name or pronoun",
    "relation": "end of the wording",
    "last": "last token",
}
"""The first is the last token of the name; in a biography, behind its first sentence, a pronoun."""

_SHARES = ("share", "share_low", "share_high")

_ZERO: dict[str, Any] = {"color": "#444444", "linewidth": 0.8, "zorder": 1}


def draw_signature(measures: Represented, stem: Path) -> None:
    """Draw shares of attribution beside what exchanging a part costs, told above, asked below.

    Parameters
    ----------
    measures : Represented
        Of one model.
    stem : Path
        Target without suffix.
    """
    rows = chosen(measures.signature, relation="all", split=SPLIT)
    data = rows[rows["tuning"].isin(COMPARED)][list(SIGNATURE_DATA)]
    with new_figure(5.9 if len(data) else 1.3) as figure:
        if data.empty:
            nothing(figure)
            save_figure(figure, data, stem, SIGNATURE_DATA)
            return
        roles = [role for role in SIGNATURE_LABELS if (data["role"] == role).any()]
        panels = figure.subplots(2, 2, sharey=True, sharex="col")
        for row, form in zip(panels, FORMATS, strict=True):
            told = "told (BIO)" if form == "bio" else "asked (QA)"
            for number, tuning in enumerate(COMPARED):
                own = chosen(data, format=form, tuning=tuning)
                own = own.assign(**{share: 100 * own[share] for share in _SHARES})
                for axes, value in zip(row, ("share", "logit_drop"), strict=True):
                    _draw_bars(axes, own, value, roles, 0.38 * (number - 0.5))
            row[0].set_title(f"A fact {told}")
            row[0].set_yticks(range(len(roles)), [SIGNATURE_LABELS[role] for role in roles])
            row[0].set_ylim(len(roles) - 0.45, -0.55)
            for axes in row:
                axes.tick_params(axis="y", length=0, labelsize=7.5)
                axes.tick_params(axis="x", labelsize=8)
                axes.axvline(0, **_ZERO)
                axes.xaxis.set_major_locator(MaxNLocator(4))
                axes.grid(axis="x")
        panels[-1, 0].set_xlabel("of the attribution (%)", fontsize=8)
        panels[-1, 1].set_xlabel("logit lost when\nexchanged", fontsize=8)
        handles: list[Any] = [
            Patch(color=COLOURS[t], alpha=0.35, linewidth=0, label=TUNING_LABELS[t])
            for t in COMPARED
        ]
        handles += [
            Line2D([], [], color="#666666", linewidth=1.1, label="95 % interval"),
            Line2D([], [], color="#666666", marker="o", linewidth=0, markersize=2.5,
                   label="one seed"),
        ]  # fmt: skip
        figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=8.5)
        save_figure(figure, data, stem, SIGNATURE_DATA)


def _draw_bars(axes: Axes, rows: pd.DataFrame, value: str, roles: list[str], shift: float) -> None:
    for place, role in enumerate(roles):
        own = chosen(rows, role=role).dropna(subset=[value])
        every = chosen(own, seed=TOGETHER)
        if every.empty:
            axes.text(0, place + shift, " \N{EN DASH}", va="center", fontsize=7)
            continue
        found, y = every.iloc[0], place + shift
        colour = COLOURS[found["tuning"]]
        axes.barh(y, found[value], height=0.34, color=colour, alpha=0.35)
        axes.hlines(y, found[f"{value}_low"], found[f"{value}_high"], color=colour, linewidth=1.1)
        single = own[own["seed"] != TOGETHER][value]
        axes.scatter(single, [y] * len(single), s=5, color=colour, zorder=3)


def draw_patching(measures: Represented, stem: Path) -> None:
    """Draw the accuracy gained by layer: positions down, directions across.

    Parameters
    ----------
    measures : Represented
        Of one model.
    stem : Path
        Target without suffix.
    """
    rows = chosen(measures.patching, split=SPLIT, seed=TOGETHER)
    rows = rows[rows["tuning"].isin(COMPARED) & (rows["source_fact"] != RESTORED)]
    data = rows[list(PATCHING_DATA)]
    with new_figure(5.9 if len(data) else 1.3) as figure:
        if data.empty:
            nothing(figure)
            save_figure(figure, data, stem, PATCHING_DATA)
            return
        layers = sorted({int(layer) for layer in data["layer"]})
        panels = figure.subplots(len(POSITION_LABELS), len(DIRECTIONS), sharex=True, sharey=True)
        for row, (position, name) in zip(panels, POSITION_LABELS.items(), strict=True):
            for axes, (source, target) in zip(row, DIRECTIONS, strict=True):
                own = chosen(data, position=position, source=source, target=target)
                _draw_gains(axes, own)
                layer_axis(axes, layers)
                axes.tick_params(labelsize=7.5)
            row[0].set_ylabel(f"{name}:\ngain (points)", fontsize=8)
        for axes, title in zip(panels[0], DIRECTIONS.values(), strict=True):
            axes.set_title(title, fontsize=9)
        for axes in panels[-1]:
            axes.set_xlabel("layer", fontsize=8)
        few = len(layers) <= FEW
        handles: list[Any] = [
            Line2D([], [], color=COLOURS[tuning], label=f"{TUNING_LABELS[tuning]}, {whose}",
                   markersize=4.5, linewidth=0 if few else 1.5,
                   **{**_look(donor), **({} if few else {"marker": ""})})
            for donor, whose in (("same", "same fact"), ("other", "other person"))
            for tuning in COMPARED
        ]  # fmt: skip
        figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=7.5)
        save_figure(figure, data, stem, PATCHING_DATA)


def _look(donor: str) -> dict[str, Any]:
    if donor == "same":
        return {"marker": "o", "linestyle": "-"}
    return {"marker": "s", "mfc": "white", "linestyle": (0, (4, 2))}


def _draw_gains(axes: Axes, rows: pd.DataFrame) -> None:
    axes.axhline(0, **_ZERO)
    low, high = 100 * rows["gain_low"], 100 * rows["gain_high"]
    points = rows.assign(mean=100 * rows["gain"], low=low, high=high)
    pairs = [(tuning, donor) for tuning in COMPARED for donor in ("same", "other")]
    for number, (tuning, donor) in enumerate(pairs):
        trail(
            axes, chosen(points, tuning=tuning, source_fact=donor), "layer",
            shift=0.16 * (number - 1.5), color=COLOURS[tuning], **_look(donor),
        )  # fmt: skip
