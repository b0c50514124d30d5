"""The figures of sweeps, and what the other figures of circuits have besides their layers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from factrecall.experiments.circuits.tables import CURVE, MLP
from factrecall.report.marks import Lines, Reference
from factrecall.report.plots import Axis, Figure, Panel
from factrecall.report.style import COLOURS, KIND_LABELS

if TYPE_CHECKING:
    import pandas as pd

    from factrecall.experiments.circuits.measures import Circuits

PANELS = {
    "forward": "grafting nodes:\ncompleteness (%)",
    "backward": "resetting nodes:\ncompleteness (%)",
    "held": "in these nodes:\nof S, of γ (%)",
}
LINES = {"completeness": "completeness", "shared_fraction": "of S", "grafted_fraction": "of γ"}


def sweeps(name: str, kinds: tuple[str, ...], caption: str) -> Figure:
    """Return the figure of sweeps over some kinds of nodes."""
    return Figure(
        name,
        data=lambda m: m.curves(*kinds),
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
        annotate=_spread,
        caption=caption,
        when=lambda m: any(kind in m.settings["kinds"] for kind in kinds),
    )


def _by_panel(data: pd.DataFrame, m: Circuits) -> pd.DataFrame:
    """Put completeness in a panel a direction, and what nodes ranked by S hold in another."""
    held = data["quantity"] != "completeness"
    chosen = ~held | ((data["direction"] == "forward") & (data["ranking"] == "shared"))
    panel = data["kind"] + " " + data["direction"].where(~held, "held")
    return data.assign(panel=panel)[chosen]


def _floor(panel: Panel) -> float | None:
    """Return the completeness with no node grafted, where a sweep begins (forward) or ends."""
    direction = panel.key["panel"].split()[1]
    end = panel.rows["share"] == (0 if direction == "forward" else 100)
    return None if direction == "held" else float(panel.rows.loc[end, "mean"].mean())


def _spread(panel: Panel) -> None:
    """Mark what nodes would hold if S were spread evenly."""
    if panel.key["panel"].endswith("held"):
        line = panel.axes.plot([0, 100], [0, 100], color="#bbbbbb", linewidth=0.8, zorder=0)
        panel.legend["below: spread evenly"] = line[0]


def maps(data: pd.DataFrame, m: Circuits) -> pd.DataFrame:
    """Return columns `map` and `node`: heads of all projections, from left to right."""
    order = data["projection"].map("QKVO".index)
    data = data.assign(
        map=data["chosen"] + " " + data["tuning"],
        node=data["projection"] + data["head"].astype(str),
        part=data["part"].fillna(0.0),
    )
    return data.iloc[(1e6 * order + data["head"]).argsort(kind="stable")]


def strips(panel: Panel) -> None:
    """Draw a line a fact where it is right, and name it with the whole grafted model's answer."""
    axes, names = panel.axes, []
    for place, ((person, relation), rows) in enumerate(
        panel.rows.groupby(["individual", "relation"], sort=False)
    ):
        rows = rows.sort_values("step")
        share = 100 * rows["nodes"] / max(1, rows["nodes"].max())
        axes.plot(share, [place] * len(rows), color="#cccccc", linewidth=0.8, zorder=1)
        # A line breaks where a value is missing; of a single step there is only the marker.
        line = rows["right"].map({True: place, False: math.nan})
        axes.plot(share, line, color=COLOURS["mix"], linewidth=4, marker="o", markersize=4,
                  markeredgewidth=0)  # fmt: skip
        names.append(
            f"person {person}: {panel.label('relation', relation)} "
            f"{'✓' if rows['grafted'].iloc[0] else '✗'}"
        )
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
