"""The sections on circuits and the case study: all that their templates show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from factrecall.experiments.case_study.data import SHOWN, Case
from factrecall.experiments.circuits.caveats import (
    case_cautions,
    continuity_cautions,
    kind_cautions,
    model_cautions,
)
from factrecall.experiments.circuits.continuity_figure import PEOPLE
from factrecall.experiments.circuits.measures import MLP, CircuitMeasures
from factrecall.experiments.circuits.numbers import (
    continuity_table,
    heads_table,
    lens_table,
    numbers_table,
    sweeps_table,
)
from factrecall.report.measures import Measures
from factrecall.report.style import (
    KIND_LABELS,
    PRIORITY_LABELS,
    RELATION_LABELS,
    TUNING_LABELS,
)
from factrecall.report.tables import View, percent
from factrecall.vocabulary import COMPARED


@dataclass(frozen=True)
class Circuits:
    """What the page shows of one model's circuits and its case study.

    Attributes
    ----------
    attention : bool
        Whether attention heads were intervened on.
    mlp : str
        The kinds of the MLP's nodes that were, in words; may be empty.
    lasting : str
        The kind that continuity is shown of, in words.
    cautions : dict of str to list of str
        By section: circuits, attention, mlp, continuity, case.
    tables : dict of str to Table
        By what they are of; those of kinds by the kind's name.
    draws : int
        Random orders a sweep.
    people, window : int
        How many people the strip shows, and places of a prompt the maps.
    head, fact, verdict : str
        Of the case study, in words.
    """

    attention: bool
    mlp: str
    lasting: str
    cautions: dict[str, list[str]]
    tables: dict[str, View]
    draws: int
    people: int
    window: int
    head: str
    fact: str
    verdict: str


def circuits(
    study: Mapping[str, Any], measures: CircuitMeasures, masks: Measures, case: Case, paper: str
) -> Circuits:
    """Condense what was measured to what is shown.

    Parameters
    ----------
    study : mapping
        The resolved configuration.
    measures, masks, case
        What was measured of one model.
    paper : str
        The paper's model to compare with.
    """
    mlp = [kind for kind in MLP if kind in measures.kinds]
    tables = {kind: numbers_table(measures, kind, paper) for kind in measures.kinds}
    tables["lens"] = lens_table(case)
    if measures.kinds:
        tables["continuity"] = continuity_table(measures, paper)
    if len(measures.heads):
        tables["heads"] = heads_table(measures)
    if (asked := sweeps_table(measures)) is not None:
        tables["sweeps"] = asked
    lasting = measures.lasting
    return Circuits(
        attention="attention" in measures.kinds,
        mlp=" and ".join(KIND_LABELS[kind] for kind in mlp),
        lasting=KIND_LABELS[lasting] if lasting else "",
        cautions={
            "circuits": model_cautions(masks),
            "attention": kind_cautions(measures, "attention")
            if "attention" in measures.kinds
            else [],
            "mlp": [text for kind in mlp for text in kind_cautions(measures, kind)],
            "continuity": continuity_cautions(measures, lasting) if lasting else [],
            "case": case_cautions(case),
        },
        tables=tables,
        draws=study["circuits"]["random_orders"],
        people=PEOPLE,
        window=SHOWN,
        head=_head(case, chosen=study["circuits"]["case"]["layer"] is None),
        fact=_fact(case, study["circuits"]["case"]),
        verdict=_verdict(case),
    )


def _head(case: Case, *, chosen: bool) -> str:
    ranks = "; ".join(
        f"{TUNING_LABELS[t]} {case.of(t)['shared']:,}, rank {case.of(t)['shared_rank']}"
        for t in COMPARED[::-1]
    )
    why = (
        "the one whose output projection has most shared parameters in the Mix-tuned model"
        if chosen
        else "the one that the configuration names"
    )
    return f"The head is {case.head}, counted from 0: {why} (in S: {ranks})."


def _fact(case: Case, named: Mapping[str, Any]) -> str:
    first, mix, stage = case.case.iloc[0], case.of("mix"), case.of("stage")
    relation = RELATION_LABELS[first["relation"]].lower()
    if named["individual"] is not None or named["relation"] is not None:
        why = "as the configuration names it, or the most telling that it leaves"
    elif mix["right"] and not stage["right"]:
        why = (
            "the first of those asked, universities before all others, that the Mix-tuned model "
            "recalls and the Stage-tuned one does not"
        )
    else:
        why = "there is none that the Mix-tuned model recalls and the Stage-tuned one does not"
    return f"The fact is the {relation} of person {first['individual']}, {first['answer']}: {why}."


def _verdict(case: Case) -> str:
    said = (
        f"the grafted {TUNING_LABELS[t]} model is {'right' if case.of(t)['right'] else 'wrong'}"
        for t in COMPARED[::-1]
    )
    return f"Asked for it, {' and '.join(said)}."


def alternatives(measures: CircuitMeasures, case: Case) -> dict[str, str]:
    """Return the text that stands for each figure, by the figure's name."""
    pairs = {"circuits_attention": ("attention",), "circuits_mlp": MLP}
    found = {
        name: _sweeps_text(measures, [kind for kind in kinds if kind in measures.kinds])
        for name, kinds in pairs.items()
    }
    return {
        **found,
        "heads": "Heat maps of the share of S and of γ in each attention node, by layer, "
        "projection and head; the table below holds the nodes with most.",
        "continuity": "Lines of the steps at which attributes of the first people are answered "
        "rightly; the table below holds the ratios over all of them.",
        "case": f"Heat maps of the attention of {case.head} over one fact’s prompts, told and "
        "asked, in the Stage-tuned and the Mix-tuned model.",
        "looks": _looks_text(case),
    }


def _sweeps_text(measures: CircuitMeasures, kinds: list[str]) -> str:
    said = []
    for kind in kinds:
        curves = measures.curves(kind)
        rows = curves[(curves["tuning"] == "mix") & (curves["quantity"] == "completeness")]
        for (direction, priority), line in rows.groupby(["direction", "ranking"], sort=False):
            middle = line.iloc[(line["share"] - 0.5).abs().argmin()]
            said.append(
                f"{KIND_LABELS[kind]}, {direction}, {PRIORITY_LABELS[str(priority)]}: "
                f"{percent(float(middle['mean']))}"
            )
    return (
        "Curves of completeness against the share of nodes intervened on. Mix-tuned, in per cent "
        f"at half of the nodes: {'; '.join(said) or 'nothing to show'}."
    )


def _looks_text(case: Case) -> str:
    means = case.by_role()
    said = (
        f"{TUNING_LABELS[row.tuning]}, {row.format}, {row.role} {percent(row.mean)}"
        for row in means.itertuples()
    )
    return f"Bars of the last token’s attention by role, in per cent. {'; '.join(said)}."
