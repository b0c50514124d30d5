"""The layers of figures: what seaborn draws on a panel, with the look of `style`.

The module is long because it is a list: one small class for each kind of layer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from factrecall.report.style import GREY, LINES, SMALL, STYLES

if TYPE_CHECKING:
    import pandas as pd

    from factrecall.report.plots import Panel

FAINT = 0.35
FEW_PLACES = 8
"""Up to so many places on an axis, estimates are points: a line between would show nothing."""


@dataclass(frozen=True)
class Bars:
    """Horizontal bars of means by category and hue: points are the rows, numbers the means.

    `low` and `high` are columns of the range of a bar; without them it is that of its points.
    `note` is written beside a bar instead of its number.
    """

    value: str
    category: str
    hue: str = "tuning"
    low: str | None = None
    high: str | None = None
    write: Callable[[float], str] = "{:.1f}".format
    note: Callable[[pd.DataFrame, Panel], str] | None = None
    points: bool = True
    interval: str = "lowest to highest"

    def draw(self, panel: Panel) -> None:
        """Draw bars, ranges, points and numbers."""
        import seaborn as sns
        from matplotlib.lines import Line2D
        from matplotlib.patches import Patch

        order, hues = panel.order(self.category), panel.order(self.hue)
        colours = panel.colours(self.hue)
        common: dict[str, Any] = {
            "data": panel.rows, "x": self.value, "y": self.category, "order": order, "orient": "h",
            "hue": self.hue, "hue_order": hues, "palette": colours, "legend": False,
            "dodge": self.hue != self.category, "ax": panel.axes,
        }  # fmt: skip
        sns.barplot(**common, errorbar=None, alpha=FAINT, saturation=1)
        grouped = panel.rows.dropna(subset=[self.value]).groupby([self.category, self.hue])
        step = 0 if self.hue == self.category else 0.8 / len(hues)
        for (category, hue), rows in grouped:
            number = hues.index(hue)
            y = order.index(category) + step * (number - (len(hues) - 1) / 2)
            mean = float(rows[self.value].mean())
            low = float(rows[self.low or self.value].min())
            high = float(rows[self.high or self.value].max())
            if low < high:
                panel.axes.hlines(y, low, high, color=colours[number], linewidth=1.1)
            if self.points and self.low is None:
                # Set apart across the bar only so that equal ones do not hide each other.
                spread = [0.06 * (i - (len(rows) - 1) / 2) for i in range(len(rows))]
                panel.axes.scatter(
                    rows[self.value], [y + s for s in spread], s=10, color=colours[number],
                    edgecolor="white", linewidth=0.4, zorder=3, clip_on=False,
                )  # fmt: skip
            panel.axes.annotate(
                self.write(mean) if self.note is None else self.note(rows, panel),
                (max(mean, high, 0), y), (5, 0), textcoords="offset points", va="center",
                fontsize=SMALL - 1, zorder=4,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.1, "alpha": 0.8},
            )  # fmt: skip
        panel.axes.set_yticks(range(len(order)), [panel.label(self.category, v) for v in order])
        panel.axes.tick_params(axis="y", length=0)
        if self.hue != self.category:
            for hue, colour in zip(hues, colours, strict=True):
                panel.legend[panel.label(self.hue, hue)] = Patch(color=colour, alpha=FAINT)
        if self.points and self.low is None:
            dot: dict[str, Any] = {"marker": "o", "linestyle": "", "markersize": 3.2}
            panel.legend["one seed"] = Line2D([], [], color=GREY, **dot)
        panel.legend[self.interval] = Line2D([], [], color=GREY, linewidth=1.1)


@dataclass(frozen=True)
class Lines:
    """Lines of means over hue (colour) and style: a thin line or a band shows the units.

    Without `units`, `low` and `high` are columns of a band, and there is no band without them.
    `markers` puts a mark at every place; `rows` selects what is drawn.
    """

    x: str
    y: str
    hue: str = "tuning"
    style: str | None = None
    units: str | None = None
    low: str | None = None
    high: str | None = None
    markers: bool = False
    mean: bool = True
    rows: Callable[[pd.DataFrame], pd.DataFrame] = lambda rows: rows

    def draw(self, panel: Panel) -> None:
        """Draw the lines of every hue and style."""
        import seaborn as sns
        from matplotlib.lines import Line2D

        hues, colours = panel.order(self.hue), panel.colours(self.hue)
        styles = panel.order(self.style) if self.style else [None]
        keys, drawn = [self.hue, *([self.style] if self.style else [])], self.rows(panel.rows)
        if self.units:
            sns.lineplot(
                data=drawn, x=self.x, y=self.y, hue=self.hue, hue_order=hues, palette=colours,
                units=self.units, estimator=None, linewidth=0.6, alpha=0.4 if self.mean else 0.9,
                legend=False, ax=panel.axes, **({"style": self.style, "dashes": False}
                                                if self.style else {}),
            )  # fmt: skip
        for (hue, style), rows in _pairs(drawn, keys, hues, styles):
            colour = colours[hues.index(hue)]
            look = _look(styles, style, self.markers)
            if self.low and self.high:
                band = rows.dropna(subset=[self.low, self.high]).sort_values(self.x)
                panel.axes.fill_between(
                    band[self.x], band[self.low], band[self.high],
                    color=colour, alpha=0.15, linewidth=0,
                )  # fmt: skip
            if self.mean:
                means = rows.groupby(self.x)[self.y].mean().dropna()
                panel.axes.plot(means.index, means, color=colour, linewidth=1.5, **look)
        _legend(panel, self.hue, hues, colours)
        if self.style:
            for style in styles:
                panel.legend[panel.label(self.style, style)] = Line2D(
                    [], [], color=GREY, linewidth=1.5, **_look(styles, style, self.markers)
                )


@dataclass(frozen=True)
class Estimates:
    """Estimates with their intervals over a few places: points, or lines with bands over many."""

    x: str
    y: str
    low: str
    high: str
    hue: str = "tuning"
    style: str | None = None
    places: int = FEW_PLACES
    connect: bool = False
    interval: str = "95 % interval"

    def draw(self, panel: Panel) -> None:
        """Draw points beside each other, or lines."""
        from matplotlib.lines import Line2D
        from matplotlib.patches import Patch

        few = panel.every[self.x].nunique() <= self.places
        hues, colours = panel.order(self.hue), panel.colours(self.hue)
        styles = panel.order(self.style) if self.style else [None]
        keys = [self.hue, *([self.style] if self.style else [])]
        every = len(hues) * len(styles)
        for number, ((hue, style), rows) in enumerate(_pairs(panel.rows, keys, hues, styles)):
            colour, look = colours[hues.index(hue)], _look(styles, style, few)
            rows = rows.dropna(subset=[self.y]).sort_values(self.x)
            if (not few or self.connect) and len(rows) > 1:
                panel.axes.fill_between(
                    rows[self.x], rows[self.low], rows[self.high],
                    color=colour, alpha=0.15, linewidth=0,
                )  # fmt: skip
                panel.axes.plot(rows[self.x], rows[self.y], color=colour, linewidth=1.2, **look)
                continue
            # Beside each other; a single place among lines stays where it is.
            x = rows[self.x] + (0 if self.connect else 0.7 * ((number + 0.5) / every - 0.5))
            panel.axes.vlines(x, rows[self.low], rows[self.high], color=colour, linewidth=1.1)
            panel.axes.plot(x, rows[self.y], color=colour, **{**look, "linestyle": ""})
        blank = {"linestyle": ""} if few and not self.connect else {}
        for hue, colour in zip(hues, colours, strict=True):
            mark = {**_look(styles, styles[0], few), **blank}
            panel.legend[panel.label(self.hue, hue)] = Line2D([], [], color=colour, **mark)
        for style in styles if self.style else ():
            mark = {**_look(styles, style, few), **blank}
            panel.legend[panel.label(str(self.style), style)] = Line2D([], [], color=GREY, **mark)
        panel.legend[self.interval] = (
            Line2D([], [], color=GREY, linewidth=1.1)
            if few and not self.connect
            else Patch(color=GREY, alpha=0.2, linewidth=0)
        )


@dataclass(frozen=True)
class Points:
    """Single rows as points, such as seeds or chosen values."""

    x: str
    y: str
    label: str
    hue: str | None = None
    rows: Callable[[pd.DataFrame], pd.DataFrame] = lambda rows: rows
    look: dict[str, Any] = field(default_factory=lambda: {"s": 6, "linewidth": 0})

    def draw(self, panel: Panel) -> None:
        """Draw the points."""
        import seaborn as sns
        from matplotlib.lines import Line2D

        rows = self.rows(panel.rows)
        hue: dict[str, Any] = {"color": self.look.get("edgecolor", GREY)}
        if self.hue:
            hue = {"hue": self.hue, "hue_order": panel.order(self.hue),
                   "palette": panel.colours(self.hue)}  # fmt: skip
        sns.scatterplot(
            data=rows, x=self.x, y=self.y, legend=False, ax=panel.axes, zorder=3, **hue, **self.look
        )
        face = self.look.get("facecolor", GREY)
        panel.legend[self.label] = Line2D(
            [], [], linestyle="", marker=self.look.get("marker", "o"), markerfacecolor=face,
            color=self.look.get("edgecolor", GREY), markersize=self.look.get("s", 12) ** 0.5,
        )  # fmt: skip


@dataclass(frozen=True)
class Reference:
    """A line across a panel: a number, or from the panel to one (None or NaN: no line)."""

    at: float | Callable[[Panel], float | None]
    look: str
    label: str | Callable[[Panel], str] = ""
    axis: str = "y"

    def draw(self, panel: Panel) -> None:
        """Draw the line."""
        from matplotlib.lines import Line2D

        at = self.at(panel) if callable(self.at) else self.at
        if at is None or at != at:
            return
        line = panel.axes.axhline if self.axis == "y" else panel.axes.axvline
        line(at, zorder=1, **LINES[self.look])
        label = self.label(panel) if callable(self.label) else self.label
        if label:
            panel.legend[label] = Line2D([], [], **LINES[self.look])


@dataclass(frozen=True)
class Heat:
    """A heat map: values from 0 to `most` by `index` (down) and `column` (across).

    Cells have numbers where there are at most `numbers` columns; colours follow a `power`, so that
    small values can be told from none. `bar` names what a bar of colours below stands for; `names`
    writes the values of both axes, where labels of their columns do not.
    """

    value: str
    index: str
    column: str
    power: float = 1.0
    most: float | Callable[[Panel], float] = 100.0
    numbers: int = 30
    write: str = ".0f"
    bar: str = ""
    names: Callable[[Any, Panel], str] | None = None
    colours: str = "Blues"
    size: float = SMALL - 0.5

    def draw(self, panel: Panel) -> None:
        """Draw the cells of the panel's rows."""
        import seaborn as sns
        from matplotlib.colors import PowerNorm

        rows = panel.rows
        panel.axes.tick_params(length=0)
        if rows.empty:
            panel.axes.set(xticks=[], yticks=[])
            panel.axes.text(0.5, 0.5, "not measured", ha="center", color=GREY, fontsize=SMALL,
                            transform=panel.axes.transAxes)  # fmt: skip
            return
        down, across = panel.figure.order(rows, self.index), panel.figure.order(rows, self.column)
        grid = rows.pivot(index=self.index, columns=self.column, values=self.value)
        grid = grid.reindex(index=down, columns=across).astype(float)
        most = self.most(panel) if callable(self.most) else self.most
        sns.heatmap(
            grid, ax=panel.axes, cmap=self.colours, norm=PowerNorm(self.power, 0, most),
            annot=len(across) <= self.numbers, fmt=self.write, annot_kws={"size": self.size},
            cbar=False, linewidths=0.6, linecolor="white", rasterized=grid.size > 1000,
            yticklabels=[self._name(panel, self.index, v) for v in down], xticklabels=False,
        )  # fmt: skip
        panel.axes.tick_params(length=0, rotation=0)
        step = max(1, -(-len(across) // 8))
        places = range(0, len(across), step)
        labels = [self._name(panel, self.column, across[i]) for i in places]
        panel.axes.set_xticks([i + 0.5 for i in places], labels, rotation=0)
        if self.bar:
            _colour_bar(panel, self.bar)

    def _name(self, panel: Panel, column: str, value: Any) -> str:
        return panel.label(column, value) if self.names is None else self.names(value, panel)


def _colour_bar(panel: Panel, label: str) -> None:
    """Put one bar of colours below all panels, when the first of them is drawn."""
    figure: Any = panel.axes.figure
    if getattr(figure, "colour_bar", None) is None:
        image: Any = panel.axes.collections[0]
        figure.colour_bar = figure.colorbar(
            image, ax=figure.axes, location="bottom", aspect=35, shrink=0.9, pad=0.02
        )
        most = float(image.norm.vmax or 100.0)
        figure.colour_bar.set_ticks([most * part for part in (0, 0.01, 0.05, 0.2, 0.5, 1)])
        figure.colour_bar.ax.xaxis.set_major_formatter(lambda v, _: f"{float(f'{v:.2g}'):g}")
        figure.colour_bar.set_label(label)


def _pairs(
    rows: pd.DataFrame, keys: list[str], hues: list[Any], styles: list[Any]
) -> list[tuple[tuple[Any, Any], pd.DataFrame]]:
    found = []
    for hue in hues:
        for style in styles:
            own = rows[rows[keys[0]] == hue]
            if style is not None:
                own = own[own[keys[1]] == style]
            if len(own):
                found.append(((hue, style), own))
    return found


def _look(styles: list[Any], style: Any, markers: bool) -> dict[str, Any]:
    look = dict(STYLES[styles.index(style) % len(STYLES)])
    return look if markers else {"linestyle": look["linestyle"]}


def _legend(panel: Panel, hue: str, hues: list[Any], colours: list[str]) -> None:
    from matplotlib.lines import Line2D

    for value, colour in zip(hues, colours, strict=True):
        panel.legend[panel.label(hue, value)] = Line2D([], [], color=colour, linewidth=1.8)
