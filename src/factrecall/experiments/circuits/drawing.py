"""The figures of sweeps, and what the other figures of circuits have besides their layers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from factrecall.experiments.circuits.tables import CURVE, MLP
from factrecall.report.marks import Lines, Reference
from factrecall.report.plots import Axis, Figure, Panel
from factrecall.report.style import COLOURS, GREY, KIND_LABELS, RANKING_LABELS, SMALL
from factrecall.report.tables import percent

if TYPE_CHECKING:
    import pandas as pd

    from factrecall.experiments.circuits.measures import Circuits

PROJECTIONS = "QKVO"

PANELS = {
    "forward": "grafting nodes:\ncompleteness (%)",
    "backward": "resetting nodes:\ncompleteness (%)",
    "held": "in these nodes:\nof S, of γ (%)",
}
LINES = {"completeness": "completeness", "shared_fraction": "of S", "grafted_fraction": "of γ"}

TELL_APART = 65
"""Up to so many steps the figure of continuity has a tick for each."""


def _by_panel(data: pd.DataFrame, m: Circuits) -> pd.DataFrame:
    """Put completeness in a panel a direction, and what nodes ranked by S hold in another."""
    held = data["quantity"] != "completeness"
    chosen = ~held | ((data["direction"] == "forward") & (data["ranking"] == "shared"))
    panel = data["kind"] + " " + data["direction"].where(~held, "held")
    return data.assign(panel=panel)[chosen]


def _floor(panel: Panel) -> float | None:
    """Return the completeness with no node grafted, where a sweep begins (forward) or ends."""
    _, direction = panel.key["panel"].split()
    if direction == "held":
        return None
    end = panel.rows["share"] == (0 if direction == "forward" else 100)
    return float(panel.rows.loc[end, "mean"].mean())


def _limits(panel: Panel) -> None:
    kind, direction = panel.key["panel"].split()
    if direction == "held":
        line = panel.axes.plot([0, 100], [0, 100], color="#bbbbbb", linewidth=0.8, zorder=0)
        panel.legend["below: spread evenly"] = line[0]
        panel.axes.set_ylim(0, 104)
        return
    rows = panel.every
    rows = rows[rows["panel"].isin([f"{kind} forward", f"{kind} backward"])]
    low, high = float(rows["low"].min()), float(rows["high"].max())
    panel.axes.set_ylim(max(0.0, 10 * math.floor((low - 2) / 10)), max(104, 1.03 * high))
    if panel.rows.empty:
        panel.axes.text(50, low, "nothing recalled", ha="center", fontsize=SMALL)


def sweeps(name: str, kinds: tuple[str, ...], caption: str) -> Figure:
    """Return the figure of sweeps over some kinds of nodes."""
    return Figure(
        name,
        data=lambda m: m.curves(*(kind for kind in kinds if kind in m.kinds)),
        schema=CURVE,
        prepare=_by_panel,
        row="panel",
        col="tuning",
        layers=(
            Lines("share", "mean", "ranking", "quantity", low="low", high="high"),
            Reference(_floor, "random", "none of them grafted"),
        ),
        labels={
            "panel": {
                f"{kind} {key}": f"{KIND_LABELS[kind]},\n{label}" if kind in MLP else label
                for kind in kinds
                for key, label in PANELS.items()
            },
            "quantity": LINES,
        },
        height=1.55,
        x=Axis("nodes so far (% of all)", ("share",), limits=(0, 100), ticks=range(0, 101, 25)),
        y=Axis(percent=("mean", "low", "high"), grid=True),
        share_y="row",
        annotate=_limits,
        alt=lambda m: _sweeps_alt(m, kinds),
        caption=caption,
        when=lambda m: bool({*kinds} & {*m.kinds}),
    )


def _sweeps_alt(m: Circuits, kinds: tuple[str, ...]) -> str:
    curves = m.curves(*(kind for kind in kinds if kind in m.kinds))
    rows = curves[(curves["tuning"] == "mix") & (curves["quantity"] == "completeness")]
    said = []
    for (kind, direction, ranking), line in rows.groupby(
        ["kind", "direction", "ranking"], sort=False
    ):
        middle = line.iloc[(line["share"] - 0.5).abs().argmin()]
        named = f"{KIND_LABELS[kind]}, {direction}, {RANKING_LABELS[ranking]}"
        said.append(f"{named}: {percent(float(middle['mean']))}")
    return (
        "Curves of completeness against the share of nodes intervened on. Mix-tuned, in per cent "
        f"at half of the nodes: {'; '.join(said) or 'nothing to show'}."
    )


def maps(data: pd.DataFrame, m: Circuits) -> pd.DataFrame:
    """Return columns `map` and `node`: heads of all projections are numbered from left to right."""
    heads = data.groupby("projection")["head"].max() + 1
    first, place = 0, {}
    for projection in PROJECTIONS:
        place[projection], first = first, first + int(heads.get(projection, 0))
    return data.assign(
        map=data["chosen"] + " " + data["tuning"],
        node=data["projection"].map(place) + data["head"],
        part=data["part"].fillna(0.0),
    )


def projections(panel: Panel) -> None:
    """Set the projections of a map apart, and number its layers."""
    rows, axes = panel.rows, panel.axes
    if rows.empty:
        return
    ends = rows.groupby("projection")["node"].agg(["min", "max"]).loc[list(PROJECTIONS)]
    for end in ends["max"][:-1]:
        axes.axvline(end + 1, color="#444444", linewidth=1)
    labels = [f"{p} ({row['max'] - row['min'] + 1})" for p, row in ends.iterrows()]
    axes.set_xticks((ends.sum(axis=1) + 1) / 2, labels)
    layers = range(0, rows["layer"].nunique(), max(1, -(-rows["layer"].nunique() // 4)))
    axes.set_yticks([layer + 0.5 for layer in layers], [str(layer) for layer in layers])
    axes.spines[:].set(visible=True, color="#bbbbbb", linewidth=0.7)


def strips(panel: Panel) -> None:
    """Draw a line a fact, thick from the first to the last of every stretch of right steps."""
    import numpy as np

    axes, data = panel.axes, panel.rows
    if data.empty:
        return
    total = int(data["nodes"].max()) or 1
    place, ticks = 0, {}
    for person, own in data.groupby("individual", sort=False):
        ticks[place] = (f"person {person}", "bold")
        for relation in (r for r in panel.order("relation") if (own["relation"] == r).any()):
            place += 1
            fact = own[own["relation"] == relation].sort_values("step")
            ticks[place] = (panel.label("relation", relation), "normal")
            at, right = 100 * fact["nodes"].to_numpy() / total, fact["right"].to_numpy(dtype=bool)
            axes.plot([at[0], at[-1]], [place, place], color="#cccccc", linewidth=0.8, zorder=1)
            ends = np.flatnonzero(np.diff(np.concatenate([[False], right, [False]]).astype(int)))
            for begin, end in ends.reshape(-1, 2):
                # Of a single step there is no line, only the markers at its ends.
                axes.plot(
                    [at[begin], at[end - 1]], [place, place], color=COLOURS["mix"], linewidth=5,
                    marker="o", markersize=5, markeredgewidth=0, zorder=2,
                )  # fmt: skip
            sign, colour = ("✓", "#00684d") if fact["grafted"].iloc[0] else ("✗", GREY)
            axes.text(106, place, sign, ha="center", va="center", fontsize=9, color=colour)
        place += 1
    axes.set_yticks(list(ticks), [text for text, _ in ticks.values()])
    for label, (_, weight) in zip(axes.get_yticklabels(), ticks.values(), strict=True):
        label.set_fontweight(weight)
    steps = np.unique(data["nodes"].to_numpy(dtype=int))
    if len(steps) <= TELL_APART:
        axes.set_xticks(100 * steps / total, minor=True)
    axes.set_xlim(-3, 110)
    axes.set_ylim(place - 0.4, -0.8)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.text(106, -0.9, "all", ha="center", va="bottom", fontsize=SMALL)
