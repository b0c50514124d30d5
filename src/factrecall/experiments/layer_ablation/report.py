"""Layer-wise ablation in the report: whether a single layer carries what S carries."""

from __future__ import annotations

from typing import Any

from factrecall.experiments.ablation.claims import costs_nothing
from factrecall.experiments.ablation.measures import Ablation, pooled
from factrecall.report.ledger import Claim
from factrecall.report.marks import Lines
from factrecall.report.observations import minus, scaled, where
from factrecall.report.plots import Axis, Figure
from factrecall.report.section import Section

HALF = 0.5
"""A layer that costs less than this share of what S costs does not carry it."""


def layers(m: Ablation) -> Any:
    """Return what each layer's members of S, and as many random ones, cost of each split."""
    rows = where(m.rows("ablation"), influence=m.settings["influence"])
    found = rows["ablated"].str.extract(r"^(layer|layer_random):(-?\d+)$")
    rows = rows.assign(ablated=found[0], layer=found[1]).dropna(subset="layer")
    return pooled(rows.astype({"layer": int}), "split", "layer")


def _no_layer_carries(m: Ablation) -> Any:
    whole = scaled(m.lost("shared", "mix"), HALF)
    names = sorted({int(layer) for layer in layers(m)["layer"]})
    return {f"layer {n}": minus(m.lost(f"layer:{n}", "mix"), whole) for n in names}


SECTION = Section(
    name="layer_ablation",
    title="Layer-wise ablation",
    question="Does a single layer carry what S carries?",
    read=Ablation,
    reads=("ablation", "ablation_people"),
    settings=lambda study, model: {"influence": study.shared.influence},
    figures=(
        Figure(
            "layer_ablation", layers,
            {"tuning": "string", "seed": "int32", "split": "string", "layer": "int32",
             "ablated": "string", "accuracy": "float64", "drop": "float64"},
            layers=(Lines("layer", "drop", style="ablated", units="seed", markers=True),),
            row="split",
            labels={"ablated": {"layer": "S of a layer", "layer_random": "as many random of it"}},
            x=Axis("layer (-1: outside the layers)", ticks=lambda rows: sorted(set(rows["layer"]))),
            y=Axis("accuracy lost (points)", percent=("drop",)),
            caption="<b>What each layer of S costs.</b> The members of S in one layer are reset to "
            "θpre, and as many random parameters of that layer. Thin lines are seeds.",
        ),
    ),
    claims=(
        Claim(
            id="layer_ablation.no-layer-carries",
            text="For every layer, resetting the members of S in that layer costs Mix-tuned models "
            "less than half the accuracy on unseen questions that resetting all of S costs.",
            observe=_no_layer_carries, comparison="less",
            why="Zero, because half of what resetting S costs is already subtracted.",
            unmeasurable=costs_nothing,
        ),
    ),
)  # fmt: skip
