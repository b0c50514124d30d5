"""What the data on representations say against reading them as the paper does.

Each caution is said only where a run's own numbers show it, with these numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from factrecall.experiments.attribution.figures import SIGNATURE_LABELS
from factrecall.experiments.representations.measures import (
    BIO_LABELS,
    SPLIT,
    Represented,
    chosen,
    together,
)
from factrecall.report.claim import NAMES, with_sign
from factrecall.report.tables import NO_BREAK
from factrecall.runtime.statistics import TOGETHER
from factrecall.vocabulary import COMPARED, RELATIONS

NEAR = 0.05
"""Accuracies closer than this to chance, or to all, leave differences no room."""

FEW = 20
"""Of fewer people an interval by the bootstrap is rough."""

MOSTLY = 0.5

_START = 0.2
"""The share of attribution from which the start token, which says nothing, is worth a word."""


def probe_cautions(measures: Represented, study: Mapping[str, Any]) -> list[str]:
    """Say what leaves Δrep and Δmech no room, and which layers were not looked at."""
    table = measures.accuracies()
    said = [_room(table, tuning) for tuning in COMPARED]
    said += [_untold(table, tuning) for tuning in COMPARED]
    people = measures.difference(split=SPLIT)["people"]
    if len(people) and (count := int(people.max())) < FEW:
        said.append(_rough(count))
    layers = study["representations"]["layers"]
    if layers is not None:
        named = ", ".join(map(str, layers))
        said.append(f"Only the layers that the configuration names were looked at: {named}.")
    return [text for text in said if text]


def _room(table: pd.DataFrame, tuning: str) -> str:
    """Tell where QA probes of QA states, which both Δ start from, are at chance or at all."""
    own = chosen(table, tuning=tuning, trained="qa", tested="qa")
    accuracy, chance = float(own["mean"].mean()), float(own["chance"].mean())
    if accuracy - chance < NEAR:
        return (
            f"{NAMES[tuning]}: the states of a question say little of facts out. Probes fitted to "
            f"them read {with_sign(accuracy)} off them, where the most frequent answer gives "
            f"{with_sign(chance)}. Δrep and Δmech start from this number: what they can be is then "
            "decided by how little is recalled, and a small one is no sign of like representations."
        )
    if accuracy > 1 - NEAR:
        return (
            f"{NAMES[tuning]}: QA probes read {with_sign(accuracy)} of the facts out off QA "
            "states. So near to all, differences in how facts are represented hardly show."
        )
    return ""


def _untold(table: pd.DataFrame, tuning: str) -> str:
    """Tell where a format's own probes read nothing off its states."""
    for bio, name in BIO_LABELS.items():
        own = chosen(table, tuning=tuning, trained=bio, tested=bio)
        accuracy, chance = float(own["mean"].mean()), float(own["chance"].mean())
        if accuracy - chance < NEAR:
            return (
                f"{NAMES[tuning]}: even {name} probes read only {with_sign(accuracy)} off {name} "
                f"states of facts out (chance {with_sign(chance)}). That other probes read nothing "
                "off them says nothing of formats."
            )
    return ""


def gradient_cautions(measures: Represented) -> list[str]:
    """Say where gradients of a fact are no more alike than those of others, or people are few."""
    said = []
    for kind, others in (
        ("person", "the same relation of other people"),
        ("relation", "other relations of the same person"),
    ):
        found = {t: together(measures.trained(t, "all", f"matched - {kind}"), "cosine")
                 for t in COMPARED}  # fmt: skip
        poor = [NAMES[t] for t in COMPARED if found[t].known and found[t].low <= 0]
        if poor:
            said.append(
                f"{' and '.join(poor)}: over training, the gradients of a fact told and asked are "
                f"not surely more alike than those of a fact told and {others} asked."
            )
    return [*said, *_few(measures.gradients)]


def signature_cautions(measures: Represented) -> list[str]:
    """Say what the attribution cannot tell."""
    rows = chosen(measures.signature, split=SPLIT, relation="all", seed=TOGETHER)
    rows = rows[rows["tuning"].isin(COMPARED)]
    said = []
    start = chosen(rows, role="start")["share"].abs()
    if start.max() > _START:
        said.append(
            f"The start token, which says nothing of the fact, has up to "
            f"{with_sign(float(start.max()))} of the attribution: part of it is no reading."
        )
    part = rows["replaced"] / rows["facts"].where(rows["facts"] > 0)
    short = rows[(part < MOSTLY) & rows["logit_drop"].notna()].drop_duplicates(["format", "role"])
    if len(short):
        each = "; ".join(
            f"{_label(str(row.role))}, {'told' if row.format == 'bio' else 'asked'} "
            f"({row.replaced} of {row.facts})"
            for row in short.itertuples()
        )
        said.append(f"Some parts could be exchanged in fewer than half of the facts: {each}.")
    return [*said, *_few(measures.signature[measures.signature["relation"] == "all"])]


def _label(role: str) -> str:
    return SIGNATURE_LABELS.get(role, role).replace("\n", " ")


def patching_cautions(measures: Represented) -> list[str]:
    """Say how much a state can restore at most."""
    rows = chosen(measures.patching, split=SPLIT, seed=TOGETHER, target="bio", source_fact="same")
    said = []
    for tuning in COMPARED:
        told = chosen(rows, tuning=tuning)["unpatched"].mean()
        if told < MOSTLY:
            said.append(
                f"The {NAMES[tuning]} model continues only {with_sign(float(told))} of these "
                "biographies rightly. The states of facts that it does not know when told cannot "
                "restore them when asked."
            )
    return [*said, *_few(measures.patching)]


def _few(rows: pd.DataFrame) -> list[str]:
    """Tell of few people, of rows with the number of facts of a seed's people."""
    facts = chosen(rows, split=SPLIT)
    facts = facts[facts["seed"] >= 0]["facts"]
    if facts.empty:
        return []
    people = round(int(facts.max()) / len(RELATIONS))
    return [_rough(people)] if people < FEW else []


def _rough(people: int) -> str:
    return (
        f"Intervals are over {people}{NO_BREAK}people out. Of so few they are rough, and narrower "
        "than they should be."
    )
