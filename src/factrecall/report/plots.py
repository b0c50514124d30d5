"""A figure is declared: a tidy table, its facets and the layers that seaborn draws on each panel.

A `Figure` has one panel for each value of the columns `row` and `col`. Values are ordered, labelled
and coloured by their column (`style.LABELS`, `style.PALETTES`, or the figure's own `labels`).
Layers are in `marks`; what no layer can draw, a function of the panel does (`annotate`), or of the
whole figure (`custom`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from factrecall.report.style import COLOURS, GREY, LABELS, PALETTES, SMALL, new_figure, save_figure

if TYPE_CHECKING:
    import matplotlib.figure
    import pandas as pd
    from matplotlib.axes import Axes

Share = bool | Literal["none", "all", "row", "col"]

NOTHING = "nothing was measured"
_LEGEND_ROW = 0.19
_FRAME = 0.62
"""Inches of a row of the legend, and of an axis with its label."""


_FEW_DECADES = 200
"""A logarithmic axis that spans less has ticks between the powers of ten."""


@dataclass(frozen=True)
class Axis:
    """How an axis is shown; `percent` names the columns of shares that are drawn as per cent."""

    label: str = ""
    percent: tuple[str, ...] = ()
    scale: str = "linear"
    limits: tuple[float | None, float | None] | None = None
    ticks: Sequence[float] | Callable[[pd.DataFrame], Sequence[float]] | None = None
    write: Callable[[float], str] | None = None
    grid: bool = False


def layer_ticks(rows: pd.DataFrame) -> list[int]:
    """Return the layers that have a tick: all of few, else about six."""
    layers = sorted({int(layer) for layer in rows["layer"]})
    return layers[:: max(1, -(-len(layers) // 6))]


@dataclass
class Panel:
    """One panel while it is drawn: its axes, its rows, and where it stands.

    Attributes
    ----------
    axes : Axes
        Of matplotlib.
    rows : DataFrame
        Of this panel; shares are per cent where the axis says so.
    every : DataFrame
        Those of all panels.
    key : dict
        The values of the figure's `row` and `col`.
    figure : Figure
        The declaration.
    measures : Any
        Of the section.
    legend : dict
        Handles of the figure's legend, by label; layers add to it.
    """

    axes: Axes
    rows: pd.DataFrame
    every: pd.DataFrame
    key: dict[str, Any]
    figure: Figure
    measures: Any
    legend: dict[str, Any]

    def order(self, column: str) -> list[Any]:
        """Return the values of a column that are in any panel, in the order of their labels."""
        return self.figure.order(self.every, column)

    def label(self, column: str, value: Any) -> str:
        """Return what a reader is shown for a value."""
        return self.figure.label(column, value)

    def colours(self, column: str) -> list[str]:
        """Return the colours of `order`."""
        palette = {**PALETTES.get(column, {}), **self.figure.palettes.get(column, {})}
        return [palette.get(value, GREY) for value in self.order(column)]


class Layer(Protocol):
    """Something that is drawn on every panel (see `marks`)."""

    def draw(self, panel: Panel) -> None:
        """Draw on the panel's axes and add to its legend."""


@dataclass(frozen=True)
class Figure:
    """A figure, drawn from its data alone.

    Attributes
    ----------
    name : str
        Of its files.
    data : callable
        From the section's measures to the table that is drawn, and saved beside it.
    schema : mapping
        Columns of that table and their types.
    layers : tuple of Layer
        What is drawn on each panel, in order.
    caption, alt : str or callable
        Below the figure (a template, see `section`), and for who cannot see it (default: the
        caption's first sentence, and where the numbers are).
    x, y : Axis
        The axes of all panels.
    row, col : str, optional
        Columns whose values make panels.
    labels, palettes : mapping
        By column, of this figure alone.
    height : float or callable
        Inches of a panel; a callable takes the rows of a row of panels.
    titles : callable, optional
        From a panel's key and the measures to its title; default: the labels of `row` and `col`.
    share_x, share_y : bool or str
        As of matplotlib's ``subplots``.
    legend_columns : int
        Of the legend below.
    annotate : callable, optional
        What is added to a `Panel` by hand.
    custom : callable, optional
        Draws the whole figure instead: takes matplotlib's figure, data and measures.
    prepare : callable, optional
        From data and measures to what layers draw, where that is not what is saved.
    scope : mapping
        Further names in scope of the caption.
    when : callable
        From measures to whether the page shows it; it is drawn anyway.
    empty : str
        What is shown where there are no rows.
    """

    name: str
    data: Callable[[Any], pd.DataFrame]
    schema: Mapping[str, str]
    layers: tuple[Layer, ...]
    caption: str
    alt: str | Callable[[Any], str] = ""
    x: Axis = field(default_factory=Axis)
    y: Axis = field(default_factory=Axis)
    row: str | None = None
    col: str | None = None
    labels: Mapping[str, Mapping[Any, str]] = field(default_factory=dict)
    palettes: Mapping[str, Mapping[Any, str]] = field(default_factory=dict)
    height: float | Callable[[pd.DataFrame], float] = 1.5
    titles: Callable[[dict[str, Any], Any], str] | None = None
    share_x: Share = True
    share_y: Share = True
    legend_columns: int = 2
    annotate: Callable[[Panel], None] | None = None
    custom: Callable[[matplotlib.figure.Figure, pd.DataFrame, Any], None] | None = None
    prepare: Callable[[pd.DataFrame, Any], pd.DataFrame] | None = None
    scope: Mapping[str, Any] = field(default_factory=dict)
    when: Callable[[Any], bool] = lambda m: True
    empty: str = NOTHING

    def label(self, column: str, value: Any) -> str:
        """Return what a reader is shown for a value of a column."""
        return {**LABELS.get(column, {}), **self.labels.get(column, {})}.get(value, str(value))

    def order(self, rows: pd.DataFrame, column: str) -> list[Any]:
        """Return the values of a column: in the order of labels, then numbers by size."""
        known: list[Any] = list(self.labels.get(column) or LABELS.get(column) or ())
        there = list(dict.fromkeys(rows[column]))
        other = [v for v in there if v not in known]
        return [v for v in known if v in there] + (
            other if any(isinstance(v, str) for v in other) else sorted(other)
        )

    def save(self, measures: Any, stem: Path) -> None:
        """Draw the figure and write it with its data (see `style.save_figure`)."""
        data = self.data(measures)[list(self.schema)]
        rows = data if self.prepare is None else self.prepare(data, measures)
        if rows.empty:
            with new_figure(1.3) as figure:
                figure.text(0.5, 0.5, self.empty, ha="center", va="center", color=GREY)
                save_figure(figure, data, stem, dict(self.schema))
            return
        facets = [self._facets(rows, column) for column in (self.row, self.col)]
        heights = [self._height(part) for _, part in facets[0]]
        with new_figure(sum(heights) + _FRAME) as figure:
            if self.custom is not None:
                self.custom(figure, rows, measures)
            else:
                self._draw(figure, rows, measures, facets, heights)
            save_figure(figure, data, stem, dict(self.schema))

    def _facets(
        self, rows: pd.DataFrame, column: str | None
    ) -> list[tuple[dict[str, Any], pd.DataFrame]]:
        if column is None:
            return [({}, rows)]
        return [({column: v}, rows[rows[column] == v]) for v in self.order(rows, column)]

    def _height(self, rows: pd.DataFrame) -> float:
        return self.height(rows) if callable(self.height) else self.height

    def _draw(
        self,
        figure: matplotlib.figure.Figure,
        rows: pd.DataFrame,
        measures: Any,
        facets: list[list[tuple[dict[str, Any], pd.DataFrame]]],
        heights: list[float],
    ) -> None:
        down, across = facets
        grid = figure.subplots(
            len(down), len(across), squeeze=False, sharex=self.share_x, sharey=self.share_y,
            gridspec_kw={"height_ratios": heights},
        )  # fmt: skip
        shares = list({*self.x.percent, *self.y.percent})
        rows = rows.assign(**{column: 100 * rows[column] for column in shares})
        legend: dict[str, Any] = {}
        for line, (vertical, _) in zip(grid, down, strict=True):
            for axes, (horizontal, _) in zip(line, across, strict=True):
                key = {**vertical, **horizontal}
                own = rows
                for column, value in key.items():
                    own = own[own[column] == value]
                panel = Panel(axes, own, rows, key, self, measures, legend)
                for layer in self.layers:
                    layer.draw(panel)
                self._dress(panel)
                if self.annotate is not None:
                    self.annotate(panel)
        self._label(figure, grid, down, across)
        if legend:
            columns = min(self.legend_columns, len(legend))
            width, height = figure.get_size_inches()
            figure.set_size_inches(width, height + _LEGEND_ROW * -(-len(legend) // columns))
            figure.legend(
                list(legend.values()), list(legend), loc="outside lower center", ncols=columns
            )

    def _dress(self, panel: Panel) -> None:
        from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

        for name, axis in (("x", self.x), ("y", self.y)):
            side = getattr(panel.axes, f"{name}axis")
            if axis.scale != "linear":
                getattr(panel.axes, f"set_{name}scale")(axis.scale)
                side.set_minor_formatter(FuncFormatter(lambda v, _: ""))
                low, high = getattr(panel.axes, f"get_{name}lim")()
                if high / low < _FEW_DECADES:
                    side.set_major_locator(LogLocator(subs=(1, 2, 5)))
            if axis.write is not None:
                side.set_major_formatter(FuncFormatter(lambda v, _, a=axis: a.write(v)))
            if axis.limits is not None:
                getattr(panel.axes, f"set_{name}lim")(*axis.limits)
            if axis.ticks is not None:
                ticks = axis.ticks(panel.every) if callable(axis.ticks) else axis.ticks
                side.set_minor_locator(NullLocator())
                side.set_ticks(list(ticks), [(axis.write or "{:g}".format)(t) for t in ticks])
            if axis.grid:
                panel.axes.grid(axis=name)  # type: ignore[arg-type]
            getattr(panel.axes, f"set_{name}label")("")
        if self.titles is not None:
            panel.axes.set_title(self.titles(panel.key, panel.measures))

    def _label(
        self,
        figure: matplotlib.figure.Figure,
        grid: Any,
        down: list[tuple[dict[str, Any], pd.DataFrame]],
        across: list[tuple[dict[str, Any], pd.DataFrame]],
    ) -> None:
        """Name the panels (columns above, rows above or, of a grid, at the left) and the axes."""
        if self.titles is None:
            for axes, (key, _) in zip(grid[0], across, strict=True):
                for column, value in key.items():
                    colour = COLOURS.get(value, "#000000") if column == "tuning" else "#000000"
                    axes.set_title(self.label(column, value), color=colour)
            for line, (key, _) in zip(grid, down, strict=True):
                for column, value in key.items():
                    if self.col is None:
                        line[0].set_title(self.label(column, value))
                    else:
                        line[0].set_ylabel(self.label(column, value))
        for axes in grid[-1]:
            axes.set_xlabel(self.x.label)
        if self.y.label:
            figure.supylabel(self.y.label, fontsize=SMALL + 0.5)
