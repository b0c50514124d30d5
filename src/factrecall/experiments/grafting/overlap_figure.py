"""Whether masks recur: smaller ones inside larger ones, and those of other fine-tuning seeds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from factrecall.report.measures import SPLIT_NAMES, Measures
from factrecall.report.style import COLOURS, TUNING_LABELS, new_figure, save_figure
from factrecall.vocabulary import COMPARED

if TYPE_CHECKING:
    from matplotlib.axes import Axes

OVERLAP_DATA = {
    "tuning": "string",
    "split": "string",
    "matrix": "string",
    "row": "float64",
    "column": "float64",
    "alpha": "float64",
    "value": "float64",
}
"""`matrix` is inclusion (row: smaller α, column: larger) or seeds (row, column: seeds)."""


_HEADINGS = {
    "inclusion": "Of a smaller mask, inside a larger one (%)",
    "seeds": "Of a mask, inside that of another seed (%)",
}


def overlap_cells(measures: Measures) -> pd.DataFrame:
    """Return the cells that are drawn; columns `OVERLAP_DATA`."""
    keys = ["tuning", "split"]
    inclusion = measures.checks[measures.checks["check"] == "inclusion"]
    means = inclusion.groupby([*keys, "alpha", "other"], sort=False)["value"].mean().reset_index()
    parts = [means.assign(matrix="inclusion", row=means["alpha"], column=means["other"])]
    between = measures.checks[measures.checks["check"] == "overlap_seeds"]
    # Masks of two seeds compare only at one size: the largest that was chosen for any of them.
    sizes = measures.masks().groupby(keys, sort=False)["alpha"].max()
    rows = between.join(sizes.rename("one"), on=keys)
    rows = rows[rows["alpha"] == rows["one"]]
    parts.append(rows.assign(matrix="seeds", row=rows["seed"], column=rows["other"]))
    columns = list(OVERLAP_DATA)
    return pd.concat([p[columns] for p in parts if len(p)] or [pd.DataFrame(columns=columns)])


def draw_grafting_overlap(measures: Measures, stem: Path) -> None:
    """Draw inclusion across α and overlap across seeds, by split and tuning (columns).

    Parameters
    ----------
    measures : Measures
        Of one model.
    stem : Path
        Target without suffix.
    """
    data = overlap_cells(measures)
    with new_figure(6.4) as figure:
        # Each kind of matrix has its own heading.
        parts: Any = figure.subfigures(2, 1)
        for part, (matrix, heading) in zip(parts, _HEADINGS.items(), strict=True):
            part.suptitle(heading, fontsize=9.5, fontweight="bold", x=0.02, ha="left")
            panels = part.subplots(2, 2)
            for row, (split, name) in enumerate(SPLIT_NAMES.items()):
                for axes, tuning in zip(panels[row], COMPARED, strict=True):
                    cells = data[(data["split"] == split) & (data["tuning"] == tuning)]
                    _draw_matrix(axes, cells[cells["matrix"] == matrix], matrix)
                    axes.set_title(
                        f"{name}, {TUNING_LABELS[tuning]}",
                        fontsize=8.5, fontweight="normal", color=COLOURS[tuning],
                    )  # fmt: skip
        save_figure(figure, data, stem, OVERLAP_DATA)


def _draw_matrix(axes: Axes, cells: pd.DataFrame, matrix: str) -> None:
    axes.tick_params(length=0, labelsize=7.5)
    axes.spines[:].set_visible(False)
    if cells.empty:
        axes.set_xticks([])
        axes.set_yticks([])
        why = "one seed only" if matrix == "seeds" else "one size only"
        axes.text(0.5, 0.5, why, ha="center", va="center", fontsize=8, transform=axes.transAxes)
        return
    grid = cells.pivot(index="row", columns="column", values="value")
    values = 100 * grid.to_numpy(dtype=float)
    axes.imshow(values, cmap="Blues", vmin=0, vmax=100, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        if not np.isnan(value):
            axes.text(
                column, row, f"{value:.0f}", ha="center", va="center", fontsize=7.5,
                color="white" if value > 55 else "black",
            )  # fmt: skip
    if matrix == "seeds":
        axes.set_xticks(range(len(grid.columns)), [f"{seed:g}" for seed in grid.columns])
        axes.set_yticks(range(len(grid)), [f"seed {seed:g}" for seed in grid.index])
        alpha = 100 * float(cells["alpha"].iloc[0])
        axes.set_xlabel(f"seed, at α = {alpha:g} %", fontsize=7.5)
    else:
        axes.set_xticks(range(len(grid.columns)), [f"{100 * a:g} %" for a in grid.columns])
        axes.set_yticks(range(len(grid)), [f"{100 * a:g} %" for a in grid.index])
        axes.set_xlabel("α of the larger", fontsize=7.5)
