"""How few fine-tuned parameters bring recall back, how many those are, and whether they recur."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from factrecall.experiments.grafting.grafter import MOVEMENT
from factrecall.report.measures import SPLIT_NAMES, Measures
from factrecall.report.style import COLOURS, TUNING_LABELS, new_figure, save_figure
from factrecall.vocabulary import COMPARED

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RECOVERY_DATA = {
    "tuning": "string",
    "split": "string",
    "seed": "int32",
    "line": "string",
    "alpha": "float64",
    "recovery": "float64",
    "chosen": "bool",
}
SIZE_DATA = {
    "tuning": "string",
    "split": "string",
    "seed": "int32",
    "alpha": "float64",
    "size": "int64",
}

LINES: dict[str, tuple[str, dict[str, Any]]] = {
    "with": ("fitted, S may be in it", {"linestyle": "-", "marker": "o", "linewidth": 1.6}),
    "without": ("fitted, without S", {"linestyle": (0, (4, 2)), "marker": "s", "linewidth": 1.2}),
    "movement": ("moved most, not fitted", {"linestyle": ":", "marker": "^", "linewidth": 1.2}),
    "others": ("fitted: other people", {"linestyle": "-.", "marker": "x", "linewidth": 1.2}),
}
"""The lines of the figure: label and look."""

_RING: dict[str, Any] = {
    "s": 60, "facecolor": "none", "edgecolor": "#000000", "linewidth": 1, "zorder": 4,
}  # fmt: skip
_WHOLE: dict[str, Any] = {"color": "#000000", "linewidth": 0.8}
_ENOUGH: dict[str, Any] = {"color": "#888888", "linewidth": 0.9, "linestyle": "--"}
_NOTHING: dict[str, Any] = {"color": "#888888", "linewidth": 1.2, "linestyle": ":"}

_FLOOR = 0.01
"""A logarithm has no zero: less than a hundredth of the recall is drawn as this."""


def recovery_lines(measures: Measures) -> pd.DataFrame:
    """Return what is drawn of grafting; columns `RECOVERY_DATA`, lines as in `LINES`."""
    rows = measures.grafting[measures.grafting["alpha"] < 1]
    moved = rows["method"] == MOVEMENT
    held = rows["with_shared"].astype(bool)
    parts = [
        rows[~moved & held].assign(line="with"),
        rows[~moved & ~held].assign(line="without"),
        rows[moved & held].assign(line="movement"),
        measures.others().assign(line="others", chosen=False),
    ]
    columns = list(RECOVERY_DATA)
    return pd.concat([p[columns] for p in parts if len(p)] or [pd.DataFrame(columns=columns)])


def draw_grafting(measures: Measures, stem: Path) -> None:
    """Draw recovery against α, by split (rows) and tuning (columns).

    Parameters
    ----------
    measures : Measures
        Of one model.
    stem : Path
        Target without suffix.
    """
    data = recovery_lines(measures)
    with new_figure(5.6) as figure:
        panels = figure.subplots(2, 2, sharex=True, sharey=True)
        for row, (split, name) in enumerate(SPLIT_NAMES.items()):
            for axes, tuning in zip(panels[row], COMPARED, strict=True):
                _draw_recovery(
                    axes,
                    data[(data["split"] == split) & (data["tuning"] == tuning)],
                    COLOURS[tuning],
                    _nothing(measures, split, tuning),
                    measures.recovery,
                )
                axes.set_title(f"{name}, {TUNING_LABELS[tuning]}", fontsize=9)
        _dress(panels, data)
        figure.legend(
            handles=_legend(measures.recovery), loc="outside lower center", ncols=2, fontsize=8
        )
        save_figure(figure, data, stem, RECOVERY_DATA)


def _nothing(measures: Measures, split: str, tuning: str) -> float:
    """Return the recovery of a mask that grafts nothing: what θpre has right already.

    It is that of other people, which it is compared with, or, without any, of those fitted to.
    """
    rows = measures.known(1)
    rows = rows if len(rows) else measures.known(0)
    return float(rows[(rows["split"] == split) & (rows["tuning"] == tuning)]["nothing"].mean())


def _draw_recovery(
    axes: Axes, rows: pd.DataFrame, colour: str, nothing: float, wanted: float
) -> None:
    for line, (_, look) in LINES.items():
        points = rows[rows["line"] == line]
        for _, seed in points.groupby("seed"):
            values = 100 * seed["recovery"].clip(lower=_FLOOR)
            axes.plot(100 * seed["alpha"], values, color=colour, linewidth=0.5, alpha=0.35)
        means = points.groupby("alpha")["recovery"].mean().clip(lower=_FLOOR)
        axes.plot(100 * means.index, 100 * means, color=colour, markersize=3.5, **look)
    chosen = rows[(rows["line"] == "with") & rows["chosen"].astype(bool)]
    axes.scatter(100 * chosen["alpha"], 100 * chosen["recovery"], **_RING)
    axes.axhline(100, **_WHOLE)
    axes.axhline(100 * wanted, **_ENOUGH)
    if not np.isnan(nothing):
        axes.axhline(100 * max(nothing, _FLOOR), **_NOTHING)


def _legend(wanted: float) -> list[Line2D]:
    """Return entries in grey, which stand for both tunings."""
    lines = [
        Line2D([], [], color="#444444", markersize=3.5, label=t, **k) for t, k in LINES.values()
    ]
    ring: dict[str, Any] = {
        "marker": "o",
        "linestyle": "",
        "markerfacecolor": "none",
        "markersize": 7,
    }
    return [
        *lines,
        Line2D([], [], color="#000000", label="chosen size, a ring a seed", **ring),
        Line2D([], [], label="as the fine-tuned model", **_WHOLE),
        Line2D([], [], label=f"enough: {100 * wanted:g} %", **_ENOUGH),
        Line2D([], [], label="nothing grafted", **_NOTHING),
    ]


def _dress(panels: np.ndarray, data: pd.DataFrame) -> None:
    alphas = sorted(data["alpha"].unique())
    drawn = 100 * data["recovery"].dropna().clip(lower=_FLOOR)
    low, high = (float(drawn.min()), float(drawn.max())) if len(drawn) else (10.0, 100.0)
    for axes in panels.ravel():
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_ylim(0.8 * min(low, 50.0), 1.4 * max(high, 100.0))
        axes.yaxis.set_major_locator(FixedLocator([1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000]))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set_xticks([100 * a for a in alphas], [f"{100 * a:g}" for a in alphas])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.grid(axis="y")
        axes.tick_params(labelsize=8.5)
    for axes in panels[:, 0]:
        axes.set_ylabel("recovery (%, log)")
    for axes in panels[-1]:
        axes.set_xlabel("α: grafted (%, log)")


def draw_grafting_size(measures: Measures, stem: Path) -> None:
    """Draw |γ|_0 of the chosen masks by split and tuning, every seed as a point.

    Parameters
    ----------
    measures : Measures
        Of one model.
    stem : Path
        Target without suffix.
    """
    masks = measures.masks()
    chosen = masks[masks["chosen"].astype(bool)]
    least = float(measures.fitted()["alpha"].min()) if len(measures.fitted()) else np.nan
    with new_figure(2.4) as figure:
        axes = figure.subplots()
        labels = []
        for row, (split, tuning) in enumerate((s, t) for s in SPLIT_NAMES for t in COMPARED):
            of = (masks["split"] == split) & (masks["tuning"] == tuning)
            here = chosen[(chosen["split"] == split) & (chosen["tuning"] == tuning)]
            _draw_size(axes, row, here, COLOURS[tuning], int(of.sum()), least)
            labels.append(f"{SPLIT_NAMES[split]}, {TUNING_LABELS[tuning]}")
        axes.set_yticks(range(len(labels)), labels)
        axes.tick_params(axis="y", length=0, labelsize=8.5)
        axes.set_ylim(len(labels) - 0.5, -0.5)
        axes.axhline(1.5, color="#dddddd", linewidth=0.8)
        axes.set_xlim(0, 1.9 * max([float(chosen["size"].max())] if len(chosen) else [1.0]))
        axes.xaxis.set_major_formatter(FuncFormatter(_thousands))
        axes.set_xlabel("parameters in the chosen mask")
        axes.grid(axis="x")
        save_figure(figure, chosen[list(SIZE_DATA)], stem, SIZE_DATA)


def _thousands(value: float, _: object) -> str:
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:g}{name}"
    return f"{value:g}"


def _draw_size(
    axes: Axes, row: int, rows: pd.DataFrame, colour: str, seeds: int, least: float
) -> None:
    if rows.empty:
        text = "not measured" if not seeds else f"none chosen ({seeds} of {seeds} seeds)"
        axes.text(0, row, f" {text}", va="center", fontsize=8)
        return
    mean, size = float(rows["size"].mean()), rows["size"].to_numpy()
    axes.barh(row, mean, height=0.7, color=colour, alpha=0.35)
    axes.plot([mean, mean], [row - 0.35, row + 0.35], color=colour, linewidth=2)
    rows_ = row + np.linspace(-0.2, 0.2, len(size)) if len(size) > 1 else [row]
    axes.scatter(size, rows_, s=13, color=colour, edgecolor="white", linewidth=0.5, zorder=3)
    said = [f"{100 * rows['alpha'].mean():.3g} %"]
    if (rows["alpha"] <= least).all():
        said.append("smallest tried")
    if len(rows) < seeds:
        said.append(f"{seeds - len(rows)} of {seeds}: none")
    # Two lines where one would run out of the figure.
    text = ", ".join(said[:2]) + "".join(f",\n  {more}" for more in said[2:])
    axes.text(size.max(), row, f"  {text}", va="center", fontsize=8)
