"""Where one head looks: in one fact's prompts, and from the last token of every fact's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.colors import PowerNorm
from matplotlib.patches import Patch

from factrecall.experiments.case_study.data import FORMAT_NAMES, Case
from factrecall.report.style import (
    COLOURS,
    ROLE_COLOURS,
    TUNING_LABELS,
    new_figure,
    plain,
    save_figure,
)
from factrecall.vocabulary import COMPARED, FORMATS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

CASE_DATA = {
    "tuning": "string",
    "format": "string",
    "query": "int32",
    "key": "int32",
    "query_text": "string",
    "key_text": "string",
    "query_role": "string",
    "key_role": "string",
    "weight": "float64",
}
"""A row a cell; query and key are places (see `Case.shown_tokens`)."""

LOOKS_DATA = {
    "tuning": "string",
    "format": "string",
    "role": "string",
    "mean": "float64",
    "low": "float64",
    "high": "float64",
    "facts": "int32",
    "case": "float64",
}

ROLE_LABELS = {
    "subject": "name, pronouns",
    "relation": "relation",
    "attribute": "attributes\ntold before",
    "start": "start token",
    "other": "all else",
}

_CASE: dict[str, Any] = {
    "marker": "D", "s": 13, "edgecolor": "white", "linewidth": 0.4, "zorder": 4,
}  # fmt: skip

_MARKED = ("subject", "relation", "attribute")
"""Roles with a colour of their own."""

_LONGEST = 12
_ROW = 0.112
"""Inches of a token."""


def draw_case(case: Case, stem: Path) -> None:
    """Draw the head's attention patterns: told above, asked below, tunings abreast.

    Parameters
    ----------
    case : Case
        Of one model.
    stem : Path
        Target without suffix.
    """
    labels = {form: case.shown_tokens(form) for form in FORMATS}
    heights = [max(4, len(labels[form])) for form in FORMATS]
    cells = []
    with new_figure(1.6 + _ROW * sum(heights)) as figure:
        panels = figure.subplots(
            len(FORMATS), 2, squeeze=False, gridspec_kw={"height_ratios": heights}
        )
        image = None
        for row, form in zip(panels, FORMATS, strict=True):
            for axes, tuning in zip(row, COMPARED, strict=True):
                weights = case.pattern(tuning, form, labels[form])
                image = _draw_pattern(axes, weights, labels[form])
                if axes is not row[0]:
                    axes.set_yticks([])
                cells.append(_cells(weights, labels[form]).assign(tuning=tuning))
                axes.set_title(
                    f"{FORMAT_NAMES[form]}, {TUNING_LABELS[tuning]}",
                    fontsize=8, fontweight="normal", color=COLOURS[tuning],
                )  # fmt: skip
        for axes in panels[-1]:
            axes.set_xlabel("attends to token", fontsize=8)
        if image is not None:
            bar = figure.colorbar(
                image, ax=list(panels.ravel()), location="bottom", aspect=35, shrink=0.9, pad=0.01
            )
            bar.set_ticks([0, 1, 5, 20, 50, 100])
            bar.set_label("of a token's attention (%)", fontsize=8)
            bar.ax.tick_params(labelsize=7.5)
        figure.legend(
            handles=[
                Patch(color=ROLE_COLOURS[role], label=ROLE_LABELS[role].replace("\n", " "))
                for role in _MARKED
            ],
            loc="outside lower center", ncols=3, fontsize=7, handlelength=1, columnspacing=1,
        )  # fmt: skip
        save_figure(figure, pd.concat(cells)[list(CASE_DATA)], stem, CASE_DATA)


def _cells(weights: np.ndarray, labels: pd.DataFrame) -> pd.DataFrame:
    query, key = (axis.ravel() for axis in np.indices(weights.shape))
    sides = {
        f"{side}_{column}": labels[column].to_numpy(dtype=object)[places]
        for side, places in (("query", query), ("key", key))
        for column in ("text", "role")
    }
    form = labels["format"].iloc[0] if len(labels) else ""
    return pd.DataFrame(
        {"format": form, "query": query, "key": key, "weight": weights.ravel(), **sides}
    )


def _draw_pattern(axes: Axes, weights: np.ndarray, labels: pd.DataFrame) -> AxesImage:
    # A root makes 1 % visible beside 100 %. Above the diagonal nothing can be attended to.
    shown = np.ma.masked_where(np.triu(np.ones_like(weights), 1) > 0, 100 * weights)
    image = axes.imshow(shown, cmap="Greys", norm=PowerNorm(0.5, 0, 100), aspect="auto")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    numbers = labels["first"].to_numpy()
    texts = [_label(row) for row in labels.to_dict("records")]
    axes.set_yticks(range(len(labels)), texts, fontsize=6.3, parse_math=False)
    for text, role in zip(axes.get_yticklabels(), labels["role"], strict=True):
        text.set_color(ROLE_COLOURS[role])
    step = max(1, -(-len(labels) // 7))
    ticks = range(0, len(labels), step)
    axes.set_xticks(ticks, [str(numbers[i]) for i in ticks], fontsize=6.5)
    for place, role in enumerate(labels["role"]):
        # The keys' roles along the top edge, in the colours of the labels.
        axes.plot(
            [place - 0.5, place + 0.5], [-0.5, -0.5], color=ROLE_COLOURS[role], linewidth=3,
            solid_capstyle="butt", clip_on=False,
        )  # fmt: skip
    return image


def _label(row: Mapping[str, Any]) -> str:
    if row["role"] == "between":
        return f"… {row['tokens']} tokens …"
    text = "start" if row["role"] == "start" else plain(row["text"], _LONGEST) or "blank"
    return f"{text} ({row['first']})"


def draw_looks(case: Case, stem: Path) -> None:
    """Draw where the head looks from the last token, the mean over all facts, by role.

    Parameters
    ----------
    case : Case
        Of one model.
    stem : Path
        Target without suffix.
    """
    data = case.by_role()[list(LOOKS_DATA)]
    roles = list(dict.fromkeys(data["role"]))
    with new_figure(1.5 + 2 * (0.35 + 0.38 * max(1, len(roles)))) as figure:
        panels = figure.subplots(len(FORMATS), 1, sharex=True)
        for axes, form in zip(panels, FORMATS, strict=True):
            for row, role in enumerate(roles):
                if not data[(data["format"] == form) & (data["role"] == role)]["mean"].any():
                    axes.text(1.5, row, "no such token", va="center", fontsize=7.5)
                    continue
                for offset, tuning in zip((-0.2, 0.2), COMPARED, strict=True):
                    same = (data["format"] == form) & (data["role"] == role)
                    _draw_look(axes, row + offset, data[same & (data["tuning"] == tuning)])
            axes.set_yticks(range(len(roles)), [ROLE_LABELS[role] for role in roles])
            axes.set_ylim(max(1, len(roles)) - 0.45, -0.55)
            axes.tick_params(axis="y", length=0, labelsize=8)
            axes.set_xlim(0, 112)
            axes.set_xticks(range(0, 101, 25))
            axes.grid(axis="x")
            axes.set_title(f"A fact {FORMAT_NAMES[form]} ({form.upper()})")
        panels[-1].set_xlabel("of the last token's attention (%)")
        for tuning in COMPARED:
            label = TUNING_LABELS[tuning]
            panels[0].barh(0, np.nan, height=0, color=COLOURS[tuning], alpha=0.35, label=label)
        panels[0].plot([], [], color="#666666", linewidth=1.2, label="middle half of facts")
        panels[0].scatter([], [], label="the case above", **_CASE, color="#666666")
        handles, names = panels[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=2, fontsize=8.5)
        save_figure(figure, data, stem, LOOKS_DATA)


def _draw_look(axes: Axes, row: float, rows: pd.DataFrame) -> None:
    if rows.empty:
        return
    found = rows.iloc[0]
    colour = COLOURS[found["tuning"]]
    mean = 100 * found["mean"]
    axes.barh(row, mean, height=0.36, color=colour, alpha=0.35)
    axes.plot([mean, mean], [row - 0.18, row + 0.18], color=colour, linewidth=1.6)
    axes.plot([100 * found["low"], 100 * found["high"]], [row, row], color=colour, linewidth=1.2)
    axes.scatter(100 * found["case"], row, color=colour, clip_on=False, **_CASE)
    end = 100 * max(found["high"], found["mean"], np.nan_to_num(found["case"]))
    axes.text(end + 2.5, row, f"{mean:.1f}", va="center", fontsize=7.5)
