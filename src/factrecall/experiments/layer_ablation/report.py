"""Layer-wise ablation in the report: whether a single layer carries what S carries."""

from __future__ import annotations

from typing import Any

from factrecall.experiments.common.estimates import TOGETHER
from factrecall.experiments.layer_ablation.stages import ALL, LAYER_ABLATION
from factrecall.report.claims import Claim, Quantity, by_seed, listed
from factrecall.report.marks import Estimates
from factrecall.report.plots import Axis, Figure
from factrecall.report.section import Section, Source
from factrecall.report.style import SPLIT_LABELS
from factrecall.report.tables import Column, Table, points

HALF = 0.5
"""A layer that costs less than this share of what S costs does not carry it."""


def _layers(m: Source) -> Any:
    rows = m.rows("layer_ablation")
    return rows[(rows["layer"] != ALL) & (rows["seed"] == TOGETHER)]


def _no_layer_carries(m: Source) -> Quantity:
    rows = m.rows("layer_ablation").query(
        "tuning == 'mix' & split == 'qa_out' & ablated == 'shared'"
    )
    whole = rows[rows["layer"] == ALL].set_index("seed")[["drop", "low", "high"]]
    most = rows[rows["layer"] != ALL].groupby("seed")[["drop", "low", "high"]].max()
    if whole.empty:
        return Quantity()
    found = by_seed((HALF * whole["drop"] - most["drop"]).drop(TOGETHER))
    said = f"The costliest layer: {listed(by_seed(most['drop'].drop(TOGETHER)), points)} points by "
    said += f"seed; all of S: {listed(by_seed(whole['drop'].drop(TOGETHER)), points)}."
    # Bounds of two intervals set as far apart as they allow: wider than that of the difference.
    s, layer = whole.loc[TOGETHER], most.loc[TOGETHER]
    return Quantity(found, said, (HALF * s["low"] - layer["high"], HALF * s["high"] - layer["low"]))


def _lost(ablated: str, head: str) -> Column:
    return Column(
        head, lambda rows, m, key: points(-rows[rows["ablated"] == ablated]["drop"].mean())
    )


SECTION = Section(
    name="layer_ablation",
    title="Layer-wise ablation",
    tables=("layer_ablation",),
    body=(
        Figure(
            "layer_ablation", _layers, LAYER_ABLATION, row="split",
            layers=(Estimates("layer", "drop", "low", "high", style="ablated"),),
            labels={"ablated": {"shared": "S of a layer", "random": "as many random of it"}},
            x=Axis("layer (-1: outside the layers)", ticks=lambda rows: sorted(set(rows["layer"]))),
            y=Axis("accuracy lost (points)", percent=("drop", "low", "high")),
            alt="Estimates of the accuracy lost by layer, split and tuning, as in the table below.",
            caption="<b>What each layer of S costs.</b> The members of S in one layer are reset to "
            "θpre, and as many random parameters of it. Means over seeds, intervals over people.",
        ),
        Table(
            "Change of accuracy, in points, where one layer's members of S, or as many random "
            "parameters of it, are reset: mean over seeds.",
            _layers, group="split", row="layer", head="Layer",
            columns=(_lost("shared", ", S"), _lost("random", ", random")),
            labels={"split": SPLIT_LABELS},
        ),
    ),
    claims=(
        Claim(
            "No single layer carries what S carries: resetting one layer's members of S costs "
            "Mix-tuned models less than half of what resetting all of S costs, on QA out.",
            _no_layer_carries,
            is_extension=True,
        ),
    ),
)  # fmt: skip
