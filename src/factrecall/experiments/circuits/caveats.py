"""What a run's own numbers say against reading circuits as the paper does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from factrecall.experiments.circuits.tables import ENOUGH
from factrecall.report.claims import NAMES, with_sign
from factrecall.report.published import COLUMNS
from factrecall.report.style import KIND_LABELS
from factrecall.report.tables import NO_BREAK, percent
from factrecall.vocabulary import COMPARED

if TYPE_CHECKING:
    from factrecall.experiments.circuits.measures import Circuits

FEW = 100
"""Of fewer nodes one is more than a per cent."""

ALL = 0.999
"""From which share on nodes hold as good as all of S."""

MOSTLY = 0.5
"""From which share on something counts as most of it."""

GAINED = 0.1
"""From which share on of the questions that were wrong a mask has learnt answers itself."""


def grafted_models(m: Circuits) -> list[str]:
    """Say in what the grafted models are not the fine-tuned ones they stand for."""
    said = []
    if (gained := m.learnt()) > GAINED:
        said.append(
            "Circuits are those of the grafted model, not of the fine-tuned one. Its mask was "
            f"fitted to the right answers, and it gives them to {with_sign(gained)} of the "
            "questions that the fine-tuned Mix-tuned model has wrong: what the nodes support is in "
            "part what the mask learnt."
        )
    masks = m.masks()
    poor = masks[~masks["chosen"].astype(bool)]
    each = ", ".join(
        f"{NAMES[row.tuning]} seed {row.seed}"
        + (f" {with_sign(row.recovery)}" if row.recovery >= 0 else ", which recalls none")
        for row in poor.itertuples()
    )
    if each:
        enough = f"{100 * m.settings['recovery']:g}{NO_BREAK}%"
        said.append(
            f"Where no mask recovers {enough}, the one that recovers most is used ({each})."
        )
    return said


def high_floor(kind: str, m: Circuits) -> str | None:
    """Say where little is left to add: everything else recalls most of it."""
    floors = {t: list(m.floor(kind, t).values()) for t in COMPARED[::-1]}
    high = {t: f for t, v in floors.items() if v and (f := sum(v) / len(v)) > MOSTLY}
    if "mix" not in high:
        return None
    floor = high["mix"]
    each = ", ".join(f"{NAMES[t]} {with_sign(f)}" for t, f in high.items())
    reached = (
        f"{100 * ENOUGH:g} % is reached with no node at all"
        if floor >= ENOUGH
        else f"In Mix-tuned models {100 * ENOUGH:g} % is "
        f"{percent((ENOUGH - floor) / (1 - floor))} % of the way"
    )
    return (
        f"With none of the {KIND_LABELS[kind]} grafted completeness is already high ({each}): "
        f"everything else that is grafted gives that much. {reached}, and resetting nodes can "
        f"hardly cost more than {percent(1 - floor)} %."
    )


def one_tensor(m: Circuits) -> str | None:
    """Say where S in attention lies in one tensor, so that its order is not one of heads."""
    places = m.places()
    places = places[(places["tuning"] == "mix") & (places["chosen"] == "shared")]
    tensors = places.groupby(["layer", "projection"])["part"].agg(["sum", "size"])
    if tensors.empty or not tensors["sum"].max() > MOSTLY:
        return None
    layer, projection = tensors["sum"].idxmax()
    part, nodes = tensors.loc[(layer, projection)]
    return (
        f"{with_sign(float(part))} of S in the attention of Mix-tuned models is in one tensor, "
        f"{projection} of layer {layer}, which has {percent(float(nodes) / len(places))} % of the "
        "nodes. The ranking by shared parameters is then mostly one of layers and projections; it "
        "says little of one head against another."
    )


def end_of_s(kind: str, m: Circuits) -> str | None:
    """Say where S ends and the ranking by shared parameters goes on at random."""
    line = m.curves(kind)
    for column, value in {
        "tuning": "mix", "ranking": "shared", "quantity": "shared_fraction",
    }.items():  # fmt: skip
        line = line[line[column] == value]
    full, every = line[line["mean"] >= ALL], m.nodes(kind)
    if full.empty or full["nodes"].min() > MOSTLY * every:
        return None
    nodes = int(full["nodes"].min())
    return (
        f"All of S in {KIND_LABELS[kind]} is in the first {nodes:,} or fewer of {every:,} "
        f"({percent(nodes / every)} %). The others follow at random: from there on the ranking by "
        "shared parameters is a random one."
    )


def few_nodes(kind: str, m: Circuits) -> str | None:
    """Say where one node is a large share of all."""
    nodes = m.nodes(kind)
    if nodes >= FEW:
        return None
    return (
        f"There are {nodes} {KIND_LABELS[kind]}, and each is {percent(1 / nodes)} % of them: "
        "shares of nodes are coarse, and numbers between two nodes are interpolated."
    )


def coarse_steps(m: Circuits) -> str | None:
    """Say where the paper's first columns are fewer than the first step takes."""
    nodes, share = m.nodes("column"), COLUMNS.nodes / COLUMNS.of
    step = m.first_step("column", "mix", "shared", "backward")
    if share * nodes >= step:
        return None
    return (
        f"The paper's first {COLUMNS.nodes} of {COLUMNS.of:,} columns would be "
        f"{share * nodes:.1f} of the {nodes:,} here, where the first step resets {step:,}. "
        "What so few cost is not known."
    )


def attention(m: Circuits) -> list[str]:
    """Return the caveats on attention heads."""
    if "attention" not in m.kinds:
        return []
    kind = "attention"
    found = [high_floor(kind, m), one_tensor(m), end_of_s(kind, m), few_nodes(kind, m)]
    return [said for said in found if said]


def mlp(m: Circuits) -> list[str]:
    """Return the caveats on the nodes of the MLP."""
    found = [rule(kind, m) for kind in m.mlp for rule in (high_floor, end_of_s, few_nodes)]
    found.append(coarse_steps(m) if "column" in m.mlp else None)
    return [said for said in found if said]


def always_right(m: Circuits) -> str | None:
    """Say where most of what lasts was right before any node was grafted."""
    if m.lasting is None:
        return None
    rows = m.continuity(m.lasting, "mix", shuffled=False)
    always = rows["right"] == rows["evaluated"]
    if not len(rows) or not always.mean() > MOSTLY:
        return None
    return (
        f"{with_sign(float(always.mean()))} of the attributes are right at every step, the first "
        f"included, where none of the {KIND_LABELS[m.lasting]} is grafted. They do not need these, "
        "and count as continuous whatever is in them."
    )
