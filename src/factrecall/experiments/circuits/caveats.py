"""What the data on circuits say against the paper's reading of them.

Each caution is said only where a run's own numbers show it, with these numbers.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from factrecall.experiments.case_study.data import Case
from factrecall.experiments.circuits.measures import CircuitMeasures
from factrecall.experiments.circuits.summary import ENOUGH
from factrecall.experiments.shared_parameters.caveats import GAINED, MOSTLY
from factrecall.report.claim import NAMES, with_sign
from factrecall.report.measures import Measures
from factrecall.report.published import COLUMNS
from factrecall.report.style import KIND_LABELS
from factrecall.report.tables import NO_BREAK, percent
from factrecall.vocabulary import COMPARED

FEW = 100
"""Of fewer nodes one is more than a per cent."""

ALL = 0.999
"""From which share on nodes hold as good as all of S."""


def model_cautions(measures: Measures) -> list[str]:
    """Say in what the grafted models are not the fine-tuned ones they stand for."""
    said = []
    gained = measures.checked("gained")
    gained = gained[(gained["split"] == "out") & (gained["tuning"] == "mix")]["value"].mean()
    if gained > GAINED:
        said.append(
            "Circuits are those of the grafted model, not of the fine-tuned one. Its mask was "
            "fitted to the right answers, and it gives them to "
            f"{with_sign(float(gained))} of the questions that the fine-tuned Mix-tuned model has "
            "wrong: what the nodes support is in part what the mask learnt."
        )
    masks = measures.masks()
    poor = masks[(masks["split"] == "out") & ~masks["chosen"].astype(bool)]
    if len(poor):
        each = ", ".join(
            f"{NAMES[row.tuning]} seed {row.seed} {with_sign(float(row.recovery))}"
            if not pd.isna(row.recovery)
            else f"{NAMES[row.tuning]} seed {row.seed}, which knows nothing"
            for row in poor.itertuples()
        )
        said.append(
            f"Where no mask recovered {100 * measures.recovery:g}{NO_BREAK}% the one that "
            f"recovered most is taken ({each})."
        )
    return said


def kind_cautions(measures: CircuitMeasures, kind: str) -> list[str]:
    """Say what keeps sweeps over a kind of nodes from showing what the paper's show."""
    said = [_floor(measures, kind), _order(measures, kind), _few(measures, kind)]
    if kind == "attention":
        said.insert(1, _placed(measures))
    if kind == "column":
        said.append(_coarse(measures))
    return [text for text in said if text]


def _floor(measures: CircuitMeasures, kind: str) -> str:
    floors = {t: list(measures.floor(kind, t).values()) for t in COMPARED}
    means = {t: float(np.mean(values)) for t, values in floors.items() if values}
    high = {t: floor for t, floor in means.items() if floor > MOSTLY}
    if "mix" not in high:
        return ""
    nodes, floor = KIND_LABELS[kind], high["mix"]
    each = ", ".join(f"{NAMES[t]} {with_sign(high[t])}" for t in COMPARED[::-1] if t in high)
    text = (
        f"With none of the {nodes} grafted completeness is already high ({each}): all else that is "
        "grafted gives that much. "
    )
    if floor >= ENOUGH:
        text += f"{100 * ENOUGH:g} % is reached with no node at all, and "
    else:
        way = (ENOUGH - floor) / (1 - floor)
        text += f"In Mix-tuned models {100 * ENOUGH:g} % is {percent(way)} % of the way, and "
    return text + f"putting nodes back can hardly cost more than {percent(1 - floor)} %."


def _placed(measures: CircuitMeasures) -> str:
    places = measures.places()
    places = places[(places["tuning"] == "mix") & (places["chosen"] == "shared")]
    tensors = places.groupby(["layer", "projection"])["part"].agg(["sum", "size"])
    if tensors.empty:
        return ""
    layer, projection = tensors["sum"].idxmax()
    part, nodes = tensors.loc[(layer, projection)]
    if not part > MOSTLY:
        return ""
    return (
        f"{with_sign(float(part))} of S in the attention of Mix-tuned models is in one tensor, "
        f"{projection} of layer {layer}, which has {percent(float(nodes) / len(places))} % of the "
        "nodes. The order by shared parameters is then mostly one by layer and projection; it "
        "says little of one head against another."
    )


def _order(measures: CircuitMeasures, kind: str) -> str:
    """Tell where S ends and the order by shared parameters goes on at random."""
    curves = measures.curves(kind)
    line = curves[
        (curves["tuning"] == "mix")
        & (curves["ranking"] == "shared")
        & (curves["quantity"] == "shared_fraction")
    ]
    full = line[line["mean"] >= ALL]
    if full.empty or full["nodes"].min() > MOSTLY * measures.nodes(kind):
        return ""
    nodes = int(full["nodes"].min())
    return (
        f"All of S in {KIND_LABELS[kind]} is in the first {nodes:,} or fewer of "
        f"{measures.nodes(kind):,} ({percent(nodes / measures.nodes(kind))} %); the others follow "
        "at random, so that the order by shared parameters is a random one from there on."
    )


def _few(measures: CircuitMeasures, kind: str) -> str:
    nodes = measures.nodes(kind)
    if nodes >= FEW:
        return ""
    return (
        f"There are {nodes} {KIND_LABELS[kind]}, and each is {percent(1 / nodes)} % of them: "
        "shares of nodes are coarse, and numbers between two nodes are read off straight lines."
    )


def _coarse(measures: CircuitMeasures) -> str:
    nodes, share = measures.nodes("column"), COLUMNS.nodes / COLUMNS.of
    step = measures.first_step("column", "mix", "shared", "backward")
    if share * nodes >= step:
        return ""
    return (
        f"The paper's first {COLUMNS.nodes} of {COLUMNS.of:,} columns would be "
        f"{share * nodes:.1f} of the {nodes:,} here, where the first step back takes {step:,}. "
        "What so few cost is not known."
    )


def continuity_cautions(measures: CircuitMeasures, kind: str) -> list[str]:
    """Say where most of what lasts was there before any node was."""
    rows = measures.continuous(kind, "mix", shuffled=False)
    always = rows["right"] == rows["evaluated"]
    if not len(rows) or not always.mean() > MOSTLY:
        return []
    return [
        f"{with_sign(float(always.mean()))} of the attributes are right at every step, the first "
        f"included, where none of the {KIND_LABELS[kind]} is grafted. They do not need these, and "
        "count as continuous whatever is in them."
    ]


def case_cautions(case: Case) -> list[str]:
    """Say where the case is not like the paper's."""
    mix, stage = (case.of(tuning) for tuning in ("mix", "stage"))
    said = []
    if stage["shared_rank"] <= mix["shared_rank"]:
        said.append(
            "This head's output projection has as high a rank by shared parameters in the "
            f"Stage-tuned model (rank {stage['shared_rank']}) as in the Mix-tuned one (rank "
            f"{mix['shared_rank']}). In the paper, which compares the two for that, it is 17th in "
            "the one and second in the other."
        )
    if not mix["right"] or stage["right"]:
        said.append(
            "The fact is not one that the Mix-tuned model recalls and the Stage-tuned one does "
            "not, as in the paper: what differs between the two is then no trace of recall."
        )
    return said
