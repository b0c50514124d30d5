"""The one look of all figures: colours, labels and orders by column, sizes, and how one is saved.

Figures are narrow and tall, so that their text stays readable on a telephone, and white, so
that they print. Each is saved with the data it shows; the same data give the same bytes.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from factrecall.runtime.storage import Schema, atomic, write_table

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

WIDTH = 4.0
"""Inches; on a telephone of 360 pixels, 9-point text is then still 9 pixels high."""

DOTS_PER_INCH = 200
IMAGE_SUFFIXES = (".png", ".svg")

COLOURS = {
    "base": "#7f7f7f",
    "bio": "#009e73",
    "stage": "#0072b2",
    "mix": "#d55e00",
    "majority": "#000000",
}
"""One colour per tuning, from the palette of Okabe and Ito that colour-blind readers can tell."""

TUNING_LABELS = {
    "base": "Pre-trained",
    "bio": "BIO-tuned",
    "stage": "Stage-tuned",
    "mix": "Mix-tuned",
    "majority": "Majority vote",
}
RANKING_COLOURS = {"shared": "#aa3377", "grafted": "#009e73", "random": "#888888"}
RANKING_LABELS = {
    "shared": "by shared parameters",
    "grafted": "by grafted parameters",
    "random": "at random",
}
KIND_LABELS = {"attention": "attention heads", "column": "MLP columns", "unit": "MLP units"}
ROLE_COLOURS = {
    "subject": "#0072b2",
    "relation": "#a3590a",
    "attribute": "#aa3377",
    "start": "#666666",
    "other": "#666666",
    "between": "#666666",
}
SPLIT_LABELS = {
    "bio": "BIO: biographies",
    "qa_in": "QA in: questions trained on",
    "qa_out": "QA out: questions never seen",
}
SPLIT_NAMES = {"in": "QA in", "out": "QA out"}
"""Whose questions masks are fitted to."""

RELATION_LABELS = {
    "birth_date": "Birth date",
    "birth_city": "Birth city",
    "university": "University",
    "job": "Job",
    "employer": "Employer",
    "blood_type": "Blood type",
}

LABELS: dict[str, Mapping[Any, str]] = {
    "tuning": {**TUNING_LABELS, "stage - mix": "Stage minus Mix", "mix - stage": "Mix minus Stage"},
    "split": {**SPLIT_LABELS, "in": "QA in", "held": "QA in, held out", "out": "QA out"},
    "ranking": RANKING_LABELS,
    "relation": RELATION_LABELS,
}
"""By column: its values in the order in which they are shown, and what a reader is shown."""

PALETTES: dict[str, Mapping[Any, str]] = {
    "tuning": COLOURS,
    "ranking": RANKING_COLOURS,
    "role": ROLE_COLOURS,
}
"""By column: the colours of its values."""

GREY = "#666666"
"""Of what stands for all colours in a legend, and of text beside the data."""

SMALL = 8
"""Points: text within a panel."""

LINES: dict[str, dict[str, Any]] = {
    "chance": {"color": "#000000", "linewidth": 1, "linestyle": (0, (4, 3))},
    "random": {"color": "#000000", "linewidth": 1, "linestyle": ":"},
    "whole": {"color": "#000000", "linewidth": 0.8},
    "zero": {"color": "#444444", "linewidth": 0.8},
    "marked": {"color": "#888888", "linewidth": 1},
    "enough": {"color": "#888888", "linewidth": 0.9, "linestyle": "--"},
    "nothing": {"color": "#888888", "linewidth": 1.2, "linestyle": ":"},
}
"""Looks of lines of reference, by what they stand for."""

STYLES: tuple[dict[str, Any], ...] = (
    {"linestyle": "-", "marker": "o"},
    {"linestyle": (0, (4, 2)), "marker": "s", "markerfacecolor": "white"},
    {"linestyle": ":", "marker": "^", "markerfacecolor": "white"},
    {"linestyle": "-.", "marker": "X"},
)
"""Looks of lines and points that one figure tells apart by style, in order."""

# The keys are typed as one long Literal of all there are.
_LOOK: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": False,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.7,
    "lines.markersize": 3.5,
    "legend.frameon": False,
    "legend.fontsize": SMALL,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "figure.constrained_layout.use": True,
    # Text as paths needs no font at the reader's; a fixed salt gives fixed ids.
    "svg.fonttype": "path",
    "svg.hashsalt": "factrecall",
}


def plain(text: str, longest: int) -> str:
    """Return a user's text as the font of figures can show it, cut if need be.

    Draw it with ``parse_math=False``: a dollar sign is text like any other.
    """
    shown = "".join(
        c if ord(c) in _glyphs() and c.isprintable() else "\N{WHITE SQUARE}" for c in text
    )
    return shown if len(shown) <= longest else f"{shown[: longest - 1]}\N{HORIZONTAL ELLIPSIS}"


@cache
def _glyphs() -> frozenset[int]:
    from matplotlib.font_manager import findfont, get_font

    return frozenset(get_font(findfont(_LOOK["font.family"])).get_charmap())


@contextmanager
def new_figure(height: float) -> Iterator[Figure]:
    """Yield an empty figure of the common width, to be drawn and saved inside the block.

    Parameters
    ----------
    height : float
        In inches.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # No pyplot: it would keep figures alive and look for a display.
    with mpl.rc_context(), warnings.catch_warnings():
        mpl.rcdefaults()
        mpl.rcParams.update(_LOOK)
        # seaborn measures text before the figure has its final size.
        warnings.filterwarnings("ignore", "constrained_layout not applied")
        figure = Figure(figsize=(WIDTH, height))
        FigureCanvasAgg(figure)
        yield figure


def save_figure(figure: Figure, data: pd.DataFrame, stem: Path, schema: Schema) -> None:
    """Write a figure as ``<stem>.png`` and ``<stem>.svg``, and its data as ``<stem>.parquet``.

    Parameters
    ----------
    figure : Figure
        From `new_figure`, inside its block.
    data : DataFrame
        What the figure shows; columns as in `schema`.
    stem : Path
        Target without suffix; each file is replaced atomically.
    schema : Schema
        Columns and types of the data.

    Raises
    ------
    FactRecallError
        When the disk refuses.
    """
    # Laid out once, and rounded: the solver's last digits differ from run to run.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes in figure.axes:
        left, bottom, width, height = axes.get_position(original=True).bounds
        axes.set_position((round(left, 5), round(bottom, 5), round(width, 5), round(height, 5)))
    # Dates and versions would make equal figures differ.
    volatile = {".png": {"Software": None}, ".svg": {"Date": None, "Creator": None}}
    for suffix in IMAGE_SUFFIXES:
        with atomic(stem.with_name(f"{stem.name}{suffix}")) as temporary:
            figure.savefig(
                temporary, format=suffix[1:], dpi=DOTS_PER_INCH, metadata=volatile[suffix]
            )
    write_table(stem.with_name(f"{stem.name}.parquet"), data, schema)
