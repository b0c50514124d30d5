"""Probes in the report: whether statements and questions represent an attribute alike."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import TYPE_CHECKING, Any

from factrecall.experiments.representations.claims import (
    BIO,
    CLAIMS,
    Probes,
    near_chance,
    states_ahead,
)
from factrecall.experiments.representations.tables import CONSISTENCY, PROBES
from factrecall.report.marks import Estimates, Points, Reference
from factrecall.report.observations import TOGETHER, where
from factrecall.report.plots import Axis, Figure, Panel, layer_ticks
from factrecall.report.section import Section
from factrecall.report.style import RELATION_LABELS
from factrecall.report.tables import Column, Table, mean_sd, points

if TYPE_CHECKING:
    import pandas as pd

SIDES = {"out": "facts out", "held": "facts in"}
DELTAS = {"rep": "Δrep", "mech": "Δmech", "mech_bio": "Δmech of\nBIO states"}


def by_pair(data: pd.DataFrame, m: Probes) -> pd.DataFrame:
    """Return the rows of each panel: QA and one BIO format, with the format of the states."""
    import pandas as pd

    parts = []
    for bio in BIO:
        rows = data[data["trained"].isin(("qa", bio)) & data["tested"].isin(("qa", bio))]
        own = (rows["trained"] == rows["tested"]).map({True: "own", False: "other"})
        parts.append(rows.assign(bio=bio, states=rows["tested"].replace(bio, "bio"), probe=own))
    return pd.concat(parts)


def _own(column: str) -> Callable[[Panel], float]:
    return lambda panel: float(where(panel.rows, probe="own")[column].mean())


def _panels(data: pd.DataFrame, m: Probes) -> pd.DataFrame:
    """Name the rows of panels, and set apart single seeds."""
    together = data["seed"] == TOGETHER
    return data.assign(
        panel=data["measure"] + " " + data["split"],
        mean=data["signed"].where(together),
        single=data["signed"].where(~together),
    )


def _points(column: str) -> Callable[[pd.DataFrame, Probes, dict[str, Any]], str]:
    return lambda rows, m, key: mean_sd(rows[column], points)


SECTION = Section(
    name="representations",
    title="Representations",
    question="Does a model represent a fact alike in a statement and in a question?",
    read=Probes,
    reads=("probes", "consistency"),
    claims=CLAIMS,
    trust=(near_chance, states_ahead),
    figures=(
        Figure(
            "probes",
            data=Probes.accuracies,
            schema={
                **{name: PROBES[name] for name in ("tuning", "trained", "tested", "layer")},
                **dict.fromkeys(("mean", "low", "high", "shuffled", "chance"), "float64"),
            },
            prepare=by_pair,
            row="bio",
            col="tuning",
            layers=(
                Reference(_own("chance"), "chance", "most frequent answer"),
                Reference(_own("shuffled"), "nothing", "shuffled labels"),
                Estimates("layer", "mean", "low", "high", hue="states", style="probe",
                          interval="lowest to highest seed"),
            ),
            labels={
                "bio": BIO,
                "states": {"qa": "QA states", "bio": "BIO states"},
                "probe": {"own": "probe of the same format", "other": "of the other format"},
            },
            palettes={"states": {"qa": "#aa3377", "bio": "#009e73"}},
            height=1.9,
            x=Axis("layer", ticks=layer_ticks),
            y=Axis("first token right (%)", limits=(0, 104), grid=True,
                   percent=("mean", "low", "high", "shuffled", "chance")),
            caption="<b>What probes decode</b>: facts out, all relations, means over seeds. Δrep "
            "is the distance between QA states and BIO states under the QA probe. Δmech is that "
            "between the two probes on QA states.",
        ),
        Figure(
            "consistency",
            data=Probes.differences,
            schema={
                **{name: CONSISTENCY[name] for name in ("split", "tuning", "seed", "layer", "bio",
                                                         "measure")},
                **dict.fromkeys(("value", "signed", "low", "high"), "float64"),
            },
            prepare=_panels,
            row="panel",
            col="bio",
            layers=(
                Reference(0, "zero"),
                Estimates("layer", "mean", "low", "high"),
                Points("layer", "single", "one seed", hue="tuning"),
            ),
            labels={
                "bio": BIO,
                "panel": {
                    f"{measure} {split}": f"{name},\n{side}"
                    for (measure, name), (split, side) in product(DELTAS.items(), SIDES.items())
                },
            },
            height=0.92,
            x=Axis("layer", ticks=layer_ticks),
            y=Axis("points of accuracy", percent=("mean", "low", "high", "single"), grid=True),
            caption="<b>How far formats differ</b>, with the sign: above zero, the format that "
            "the probe was fitted to is decoded better. The paper’s Δ is the distance from zero. "
            "Facts in are those of people held out from the probes.",
        ),
    ),
    tables=(
        Table(
            lambda m: "Δrep by relation, signed, in points: means over layers "
            f"{', '.join(map(str, m.top))} and seeds (± SD), facts out. The later a relation, the "
            "more of the biography stands before it.",
            data=Probes.by_relation,
            row="relation",
            columns=tuple(Column(f", {name}", _points(bio)) for bio, name in BIO.items()),
            labels={"relation": RELATION_LABELS},
            head="Relation",
        ),
    ),
    method="""
<p>For each layer, relation and format a linear probe predicts the first token of the attribute
from the hidden state at the prompt's last token, between attention and MLP. BIO long is the
biography up to the attribute, BIO short one sentence with the full name. Probes are fitted to
people in distribution and judged on people out of distribution.</p>
<p>Δrep = |Acc(h_QA·W_QA) − Acc(h_BIO·W_QA)|, Δmech = |Acc(h_QA·W_QA) − Acc(h_QA·W_BIO)|. Δmech
of BIO states, which the paper has a number for, is |Acc(h_BIO·W_BIO) − Acc(h_BIO·W_QA)|. Claims
are judged by the mean over the top third of the layers{% if m.top %} ({{ m.top | join(', ') }}){%
endif %}, since the paper reads the top ones. The absolute value is taken last, after the mean over
people, seeds, relations and layers; the interval is that of the signed difference.</p>""",
)  # fmt: skip
