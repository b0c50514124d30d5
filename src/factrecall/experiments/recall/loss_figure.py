"""Losses of biographies and of questions over the course of training."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.ticker import LogLocator, NullFormatter

from factrecall.report.style import COLOURS, TUNING_LABELS, new_figure, save_figure
from factrecall.report.summaries import RECALL_MODELS
from factrecall.runtime.storage import read_table
from factrecall.training.training_log import HISTORY

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LOSS_DATA = {
    "tuning": "string",
    "seed": "int32",
    "kind": "string",
    "progress": "float64",
    "loss": "float64",
    "updates": "int32",
}

POINTS = 150
"""How many points a line has at most; each is a mean over a block of updates."""

_PANELS = {"bio": "Loss of biographies", "qa": "Loss of questions"}


def draw_loss(histories: Iterable[tuple[str, int, Path]], stem: Path) -> None:
    """Draw the losses by kind (panels), tuning (colours) and seed (lines).

    Runs differ in length by orders of magnitude, so that the axis is the share of a run's
    updates; the legend says how many they are.

    Parameters
    ----------
    histories : iterable of (tuning, seed, Path)
        Training histories.
    stem : Path
        Target without suffix.

    Raises
    ------
    FactRecallError
        When a history is missing or damaged.
    """
    ordered = sorted(histories, key=lambda h: (RECALL_MODELS.index(h[0]), h[1]))
    data = pd.concat([_condensed(*history) for history in ordered], ignore_index=True)
    with new_figure(5.2) as figure:
        panels = figure.subplots(2, 1, sharex=True)
        for axes, (kind, title) in zip(panels, _PANELS.items(), strict=True):
            for (tuning, _), line in data[data["kind"] == kind].groupby(["tuning", "seed"]):
                axes.plot(
                    100 * line["progress"], line["loss"], color=COLOURS[str(tuning)],
                    linewidth=0.9, alpha=0.85,
                )  # fmt: skip
            _dress(axes, title)
        panels[-1].set_xlabel("share of the run's updates done (%)")
        for tuning, updates in data.groupby("tuning", sort=False)["updates"].first().items():
            label = f"{TUNING_LABELS[str(tuning)]} ({updates:,} updates)"
            panels[0].plot([], [], color=COLOURS[str(tuning)], linewidth=2, label=label)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=8)
        save_figure(figure, data, stem, LOSS_DATA)


def _dress(axes: Axes, title: str) -> None:
    axes.set_title(title)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_ylabel("nats per token (log)")
    axes.set_xlim(0, 100)
    axes.grid(axis="both")


def _condensed(tuning: str, seed: int, path: Path) -> pd.DataFrame:
    history = read_table(path, HISTORY)
    updates = len(history)
    block = history["update"] // max(1, math.ceil(updates / POINTS))
    means = history.groupby(block)[["update", "loss_bio", "loss_qa"]].mean()
    parts = [
        pd.DataFrame(
            {
                "tuning": tuning,
                "seed": np.int32(seed),
                "kind": kind,
                "progress": (means["update"] + 0.5) / updates,
                "loss": means[f"loss_{kind}"],
                "updates": np.int32(updates),
            }
        ).dropna(subset="loss")
        for kind in _PANELS
    ]
    return pd.concat(parts, ignore_index=True)
