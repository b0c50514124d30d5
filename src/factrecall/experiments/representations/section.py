"""The section on representations: all that its template shows, and what stands for its figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from factrecall.experiments.representations.caveats import (
    gradient_cautions,
    patching_cautions,
    probe_cautions,
    signature_cautions,
)
from factrecall.experiments.representations.figures import FEW
from factrecall.experiments.representations.measures import (
    BIO_LABELS,
    DELTAS,
    MEAN,
    RESTORED,
    SPLIT,
    Represented,
    chosen,
    together,
)
from factrecall.experiments.representations.report_tables import (
    cosine,
    deltas_table,
    gradients_table,
    patching_table,
    points_of,
    probes_table,
    relations_table,
    signature_table,
    with_interval,
)
from factrecall.report.claim import NAMES
from factrecall.report.tables import View, percent
from factrecall.vocabulary import COMPARED


@dataclass(frozen=True)
class Representations:
    """What the page shows of one model's representations.

    Attributes
    ----------
    cautions : dict of str to list of str
        By section: probes, gradients, signature, patching.
    tables : dict of str to Table
        By what they are of.
    points : bool
        Whether figures by layer have points in place of lines.
    middle : str
        The middle one of the patched layers, in words; may be empty.
    """

    cautions: dict[str, list[str]]
    tables: dict[str, View]
    points: bool
    middle: str


def representations(study: Mapping[str, Any], measures: Represented) -> Representations:
    """Condense what was measured to what is shown.

    Parameters
    ----------
    study : mapping
        The resolved configuration.
    measures : Represented
        Of one model.
    """
    return Representations(
        cautions={
            "probes": probe_cautions(measures, study),
            "gradients": gradient_cautions(measures),
            "signature": signature_cautions(measures),
            "patching": patching_cautions(measures),
        },
        tables={
            "deltas": deltas_table(measures),
            "relations": relations_table(measures),
            "probes": probes_table(measures),
            "gradients": gradients_table(measures),
            "signature": signature_table(measures),
            "patching": patching_table(measures),
        },
        points=len(measures.layers) <= FEW,
        middle="" if measures.middle is None else str(measures.middle),
    )


def texts(measures: Represented) -> dict[str, str]:
    """Return the text that stands for each figure, by the figure's name."""
    said = {
        name: "; ".join(words) or "nothing was measured"
        for name, words in {
            "consistency": _deltas(measures),
            "probes": _probes(measures),
            "gradients": _gradients(measures),
            "signature": _signature(measures),
            "patching": _patching(measures),
        }.items()
    }
    return {
        "probes": "Accuracies of probes by layer. Means over layers in per cent, QA states and QA "
        f"probe: {said['probes']}.",
        "consistency": "Signed differences of the accuracies of probes by layer. Means over "
        f"layers in points: {said['consistency']}.",
        "gradients": "Cosines of the gradients of facts told and asked, over training and by "
        f"layer. Above other people's, over training: {said['gradients']}.",
        "signature": "Bars of the share of attribution by part of the prompt, and of the logit "
        f"lost when it is exchanged. Share of name and wording, told: {said['signature']}.",
        "patching": "Accuracy gained by layer, position and direction of the patch. Restored "
        "behind the middle one of the layers looked at, at the last token, from BIO to QA: "
        f"{said['patching']}.",
    }


def _deltas(measures: Represented) -> list[str]:
    rows = measures.difference(split=SPLIT, layer=MEAN)
    return [
        f"{name}, {told}, {NAMES[tuning]}: {points_of(found)}"
        for measure, name in DELTAS.items()
        for bio, told in BIO_LABELS.items()
        for tuning in COMPARED
        if (
            found := together(chosen(rows, measure=measure, bio=bio, tuning=tuning), "signed")
        ).known
    ]


def _probes(measures: Represented) -> list[str]:
    table = chosen(measures.accuracies(), trained="qa", tested="qa")
    return [
        f"{NAMES[tuning]} {percent(float(rows['mean'].mean()))}"
        for tuning in COMPARED
        if len(rows := chosen(table, tuning=tuning))
    ]


def _gradients(measures: Represented) -> list[str]:
    return [
        f"{NAMES[tuning]} {with_interval(found, cosine)}"
        for tuning in COMPARED
        if (found := together(measures.trained(tuning, "all", "matched - person"), "cosine")).known
    ]


def _signature(measures: Represented) -> list[str]:
    rows = chosen(measures.signature, split=SPLIT, relation="all", format="bio")
    return [
        f"{NAMES[tuning]} {percent(name.value)} and {percent(wording.value)} %"
        for tuning in COMPARED
        for name, wording in [
            [
                together(chosen(rows, tuning=tuning, role=role), "share")
                for role in ("subject", "relation")
            ]
        ]
        if name.known or wording.known
    ]


def _patching(measures: Represented) -> list[str]:
    rows = chosen(
        measures.patching, split=SPLIT, source_fact=RESTORED, source="bio", target="qa",
        position="last", layer=-1 if measures.middle is None else measures.middle,
    )  # fmt: skip
    return [
        f"{NAMES[tuning]} {points_of(found)} points"
        for tuning in COMPARED
        if (found := together(chosen(rows, tuning=tuning), "gain")).known
    ]
