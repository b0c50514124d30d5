"""Probes in the report: whether statements and questions represent an attribute alike."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any

from factrecall.experiments.common.estimates import (
    SPLIT,
    TOGETHER,
    Estimate,
    cell,
    chosen,
    in_words,
    layer_ticks,
    picked,
    single_seeds,
    together,
)
from factrecall.experiments.representations.claims import (
    CLAIMS,
    chosen_layers,
    few_probed,
    no_room,
    nothing_decoded,
)
from factrecall.experiments.representations.measures import (
    BIO_LABELS,
    DELTAS,
    PAIRS,
    SIDE_LABELS,
    Probes,
    by_pair,
)
from factrecall.experiments.representations.tables import CONSISTENCY, PROBES
from factrecall.report.claims import NAMES
from factrecall.report.marks import Estimates, Reference
from factrecall.report.plots import Axis, Figure, Panel
from factrecall.report.section import Caveats, Section, Text
from factrecall.report.style import TUNING_LABELS
from factrecall.report.tables import MISSING, Column, Table, percent, points
from factrecall.vocabulary import COMPARED

if TYPE_CHECKING:
    import pandas as pd

_SHORT = {**DELTAS, "mech_bio": "Δmech of\nBIO states"}


def _own(column: str) -> Callable[[Panel], float]:
    return lambda panel: float(chosen(panel.rows, probe="own")[column].mean())


def _signed(data: pd.DataFrame, m: Probes) -> pd.DataFrame:
    """Name the row of panels of each difference; single seeds are drawn beside all together."""
    all_seeds = data["seed"] == TOGETHER
    side = data["tuning"].map({t: 0.35 * (n - 0.5) for n, t in enumerate(COMPARED)})
    return data.assign(
        panel=data["measure"] + " " + data["split"],
        mean=data["signed"].where(all_seeds),
        single=data["signed"].where(~all_seeds),
        beside=data["layer"] + side.astype(float) + 0.08,
    )


def _seeds(panel: Panel) -> None:
    """Draw single seeds beside the points of all together."""
    if not panel.measures.points:
        return
    for tuning, colour in zip(panel.order("tuning"), panel.colours("tuning"), strict=True):
        rows = chosen(panel.rows, tuning=tuning)
        single_seeds(panel, rows["beside"], rows["single"], color=colour, markersize=2.2, alpha=0.7)


# --- tables -----------------------------------------------------------------------------------


def _mean(
    split: str, column: str = "mean"
) -> Callable[[pd.DataFrame, Probes, dict[str, Any]], str]:
    return lambda rows, m, key: percent(float(chosen(rows, split=split)[column].mean()))


def _delta(split: str, rows: pd.DataFrame, m: Probes, key: dict[str, Any]) -> str:
    value = "signed" if key["tuning"] in COMPARED else "value"
    return together(rows, value, layer=TOGETHER, split=split).write()


def _at_largest(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the row of the layer where a tuning's difference is largest; none for the pair."""
    rows = chosen(rows, split=SPLIT, seed=TOGETHER)
    rows = rows[(rows["layer"] >= 0) & rows["tuning"].isin(COMPARED)].dropna(subset=["value"])
    return rows if rows.empty else rows.loc[[rows["value"].idxmax()]]


def _largest(rows: pd.DataFrame, m: Probes, key: dict[str, Any]) -> str:
    return together(_at_largest(rows), "signed").write()


def _at_layer(rows: pd.DataFrame, m: Probes, key: dict[str, Any]) -> str:
    return str(next(iter(_at_largest(rows)["layer"]), MISSING))


def _relations(m: Probes) -> pd.DataFrame:
    rows = m.deltas(split=SPLIT, seed=TOGETHER, layer=TOGETHER)
    return rows.assign(cell=rows["delta"] + " " + rows["tuning"])


_DELTA_LABELS = {
    f"{d} {b}": f"{DELTAS[d]}, {BIO_LABELS[b]}" for d, b in product(DELTAS, BIO_LABELS)
}
# A third Δ would make the table of relations too wide.
_CELLS = {
    f"{delta} {tuning}": f"{label}: {TUNING_LABELS[tuning].removesuffix('-tuned')}"
    for (delta, label), tuning in product(_DELTA_LABELS.items(), COMPARED)
    if not delta.startswith("mech_bio")
}


def _probes_alt(m: Probes) -> str:
    found = {NAMES[t]: Estimate(m.own(t, "qa")[0]) for t in COMPARED}
    return (
        "Accuracies of probes by layer. Means over layers in per cent, QA states and QA probe: "
        f"{in_words(found, percent)}."
    )


def _consistency_alt(m: Probes) -> str:
    rows = m.deltas(relation="all", split=SPLIT, layer=TOGETHER)
    found = {
        f"{label}, {NAMES[t]}:": together(rows, "signed", delta=delta, tuning=t)
        for (delta, label), t in product(_DELTA_LABELS.items(), COMPARED)
    }
    return (
        "Signed differences of the accuracies of probes by layer. Means over layers in points: "
        f"{in_words(found, points)}."
    )


SECTION = Section(
    name="representations",
    title="Representations",
    read=Probes,
    tables=("probes", "consistency"),
    settings=lambda study, model: {"layers": study.representations.layers},
    claims=CLAIMS,
    body=(
        Text(
            "<p>Does a model represent a fact alike in a statement and in a question? A linear "
            "probe is fitted, for each layer, relation and format, to predict the first token of "
            "the attribute from the hidden state at the last token of the prompt, between "
            "attention and MLP. BIO long is the biography up to the attribute, BIO short one "
            "sentence with the full name, QA the question. Probes are fitted to people in "
            "distribution. They are tested on held-out people in distribution (in) and on people "
            "whose questions were never trained on (out). Answers that begin with the same token "
            "count as one.</p><p>Δrep is how much accuracy the QA probe loses from QA states to "
            "BIO states; Δmech how much QA states lose from the QA probe to the BIO probe. The "
            "paper’s one number for Δmech is of BIO states: how much they lose from the BIO "
            "probe to the QA probe.</p>"
        ),
        Text(
            '<p class="small">So few layers are drawn as points: a line would claim what lies '
            "between two of them.</p>",
            when=lambda m: m.points,
        ),
        Caveats(no_room, nothing_decoded, few_probed, chosen_layers),
        Figure(
            "probes",
            data=Probes.accuracies,
            schema={
                **picked(PROBES, "tuning trained tested layer"),
                **dict.fromkeys(("mean", "low", "high", "shuffled", "chance"), "float64"),
            },
            prepare=lambda data, m: by_pair(data),
            row="bio",
            col="tuning",
            layers=(
                Reference(_own("chance"), "chance", "most frequent answer"),
                Reference(_own("shuffled"), "nothing", "shuffled labels"),
                Estimates("layer", "mean", "low", "high", hue="states", style="probe",
                          interval="lowest to highest seed"),
            ),
            labels={
                "bio": BIO_LABELS,
                "states": {"qa": "QA states", "bio": "BIO states"},
                "probe": {"own": "probe of the same format", "other": "of the other format"},
            },
            palettes={"states": {"qa": "#aa3377", "bio": "#009e73"}},
            height=1.9,
            x=Axis("layer", ticks=layer_ticks),
            y=Axis("first token right (%)", limits=(0, 104), grid=True,
                   percent=("mean", "low", "high", "shuffled", "chance")),
            alt=_probes_alt,
            caption="<b>What probes decode.</b> Facts out, all relations; means over seeds. "
            "Colours: whose states. Filled or solid: probes fitted to states of that format; "
            "hollow or dashed: to the other format. Δrep is the distance between QA states and "
            "BIO states under the QA probe, Δmech that between the QA and the BIO probe on QA "
            "states, Δmech of BIO states the same on BIO states. The lines across are the most "
            "frequent answer and probes of shuffled labels on their own format.",
        ),
        Table(
            "Accuracy of probes for the first token of an attribute, in per cent, means over "
            "layers, relations and seeds. Shuffled: probes fitted to labels permuted between "
            "people. Chance: the most frequent answer. Both are of facts out, and of both tunings.",
            data=Probes.by_pair,
            group="bio",
            row="pair",
            columns=(
                Column(", out", _mean(SPLIT)),
                Column(", in, held out", _mean("held")),
            ),
            last=(
                Column("shuffled", _mean(SPLIT, "shuffled")),
                Column("chance", _mean(SPLIT, "chance")),
            ),
            labels={"bio": BIO_LABELS, "pair": PAIRS},
            head="States, probe",
        ),
        Figure(
            "consistency",
            data=Probes.drawn,
            schema=picked(
                CONSISTENCY, "split tuning seed layer bio measure value signed low high"
            ),
            prepare=_signed,
            row="panel",
            col="bio",
            layers=(
                Reference(0, "zero"),
                Estimates("layer", "mean", "low", "high"),
            ),
            labels={
                "bio": BIO_LABELS,
                "panel": {
                    f"{measure} {split}": f"{name},\n{SIDE_LABELS[split]}"
                    for (measure, name), split in product(_SHORT.items(), SIDE_LABELS)
                },
            },
            annotate=_seeds,
            height=0.92,
            x=Axis("layer", ticks=layer_ticks),
            y=Axis("points of accuracy", percent=("mean", "low", "high", "single"), grid=True),
            alt=_consistency_alt,
            caption="<b>How far formats differ.</b> The same as differences, <b>with their "
            "sign</b>, for facts out and for facts in, of held-out people. Above zero, QA states "
            "are decoded better by the QA probe than BIO states are (Δrep), or than by the BIO "
            "probe (Δmech); and BIO states better by the BIO probe than by the QA probe (Δmech of "
            "BIO states). Below zero in facts out, the model states a fact that it does not "
            "answer; there Δrep says more about recall than about formats. The paper’s Δ is the "
            "distance from zero, which error keeps above zero. Intervals are over people, all "
            "seeds together.",
        ),
        Table(
            "Differences in accuracy of the probes, in points, over all relations and seeds, with "
            "95 % intervals over people. They are signed: above zero, the accuracy with QA states "
            "and QA probe (of BIO states: BIO probe) is the higher one. The paper's Δ is the size "
            "without the sign, taken after all means. The largest is that of the layer where the "
            "size is largest: picked among layers, it is too large on average.",
            data=partial(Probes.deltas, relation="all"),
            group="delta",
            row="tuning",
            last=(
                Column("mean over layers, out", partial(_delta, SPLIT)),
                Column("in, held out", partial(_delta, "held")),
                Column("largest, out", _largest),
                Column("at layer", _at_layer),
            ),
            labels={
                "delta": _DELTA_LABELS,
                "tuning": {
                    **{tuning: TUNING_LABELS[tuning] for tuning in COMPARED},
                    "stage - mix": "|Stage| less |Mix|",
                },
            },
            values={},
            head="Δ",
        ),
        Table(
            "The same by relation, out, in points: means over layers and seeds. Their intervals, "
            "not shown, are wider than those over all relations. Relations stand in the order of "
            "the biography: the later, the more is stated before.",
            data=_relations,
            row="relation",
            across="cell",
            columns=(Column("", cell("signed", interval=False)),),
            labels={"cell": _CELLS},
            head="Relation",
        ),
    ),
)  # fmt: skip
