"""The tables on representations: numbers of all seeds together, with intervals over people."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from factrecall.experiments.attribution.figures import DIRECTIONS, POSITION_LABELS, SIGNATURE_LABELS
from factrecall.experiments.attribution.tokenised_prompts import POSITIONS
from factrecall.experiments.gradient_similarity.figures import GROUP_LABELS, PAIRED_LABELS
from factrecall.experiments.representations.figures import PAIR_LABELS
from factrecall.experiments.representations.measures import (
    BIO_LABELS,
    DELTAS,
    MEAN,
    RESTORED,
    SPLIT,
    Found,
    Represented,
    chosen,
    together,
)
from factrecall.experiments.shared_parameters.report_tables import Groups
from factrecall.report.style import RELATION_LABELS, TUNING_LABELS
from factrecall.report.tables import MISSING, View, percent, points
from factrecall.runtime.statistics import TOGETHER
from factrecall.vocabulary import COMPARED, FORMATS, RELATIONS

_NAMES = [TUNING_LABELS[t].removesuffix("-tuned") for t in COMPARED]


def cosine(value: float) -> str:
    """Write a cosine, or a difference of two, with its sign."""
    return MISSING if pd.isna(value) else f"{value:+.3f}".replace("-", "\N{MINUS SIGN}")


def share(value: float) -> str:
    """Write a share that may be below zero as per cent, without the sign of per cent."""
    return percent(value).replace("-", "\N{MINUS SIGN}")


def with_interval(found: Found, write: Callable[[float], str]) -> str:
    """Write a number with its interval in brackets, if it has one."""
    if pd.isna(found.value):
        return MISSING
    if not found.known:
        return write(found.value)
    return f"{write(found.value)} ({write(found.low)} to {write(found.high)})"


def deltas_table(measures: Represented) -> View:
    """Return all Δ, signed, as means over layers, and where they are largest."""
    groups: Groups = []
    for measure, name in DELTAS.items():
        for bio, told in BIO_LABELS.items():
            rows = measures.difference(measure=measure, bio=bio)
            groups.append((f"{name}, {told}", [_delta(rows, tuning) for tuning in COMPARED]))
            pair = chosen(rows, tuning="stage - mix", layer=MEAN)
            cells = [_value(chosen(pair, split=split), "value") for split in (SPLIT, "held")]
            groups[-1][1].append(["|Stage| less |Mix|", *cells, MISSING, MISSING])
    return View(
        "Differences in accuracy of the probes, in points, over all relations and seeds, with 95 % "
        "intervals over people. They are signed, so that the interval is one of something that may "
        "be on either side of nothing: above zero, the accuracy with QA states and QA probe (of "
        "BIO states: BIO probe) is the higher one. The paper's Δ is the size without the sign, "
        "which is dropped after all means. The largest is that of the layer where the size "
        "is largest: picked among layers, it is too large on average.",
        ["Δ", "mean over layers, out", "in, kept apart", "largest, out", "at layer"],
        groups,
    )


def _delta(rows: pd.DataFrame, tuning: str) -> list[str]:
    own = chosen(rows, tuning=tuning)
    means = [_value(chosen(own, layer=MEAN, split=split), "signed") for split in (SPLIT, "held")]
    layers = chosen(own, split=SPLIT, seed=TOGETHER)
    layers = layers[layers["layer"] >= 0].dropna(subset=["value"])
    if layers.empty:
        return [TUNING_LABELS[tuning], *means, MISSING, MISSING]
    most = int(layers.loc[layers["value"].idxmax(), "layer"])
    largest = _value(chosen(layers, layer=most), "signed")
    return [TUNING_LABELS[tuning], *means, largest, str(most)]


def _value(rows: pd.DataFrame, value: str, write: Callable[[float], str] = points) -> str:
    return with_interval(together(rows, value), write)


def relations_table(measures: Represented) -> View:
    """Return the signed differences by relation, as means over layers."""
    rows = chosen(measures.consistency, split=SPLIT, seed=TOGETHER, layer=MEAN)
    head, columns = ["Relation"], []
    for measure in ("rep", "mech"):  # a third would make the table too wide
        name = DELTAS[measure]
        for bio, told in BIO_LABELS.items():
            head += [f"{name}, {told}: {tuning}" for tuning in _NAMES]
            columns += [chosen(rows, measure=measure, bio=bio, tuning=t) for t in COMPARED]
    cells = [
        [
            RELATION_LABELS[relation],
            *(points_of(together(chosen(c, relation=relation), "signed")) for c in columns),
        ]
        for relation in RELATIONS
    ]
    return View(
        "The same by relation, out, in points: means over layers and seeds. Their intervals, not "
        "shown, are wider than those over all relations. Relations stand in the order of the "
        "biography: the later, the more is told before.",
        head,
        [(None, cells)],
    )


def points_of(found: Found) -> str:
    """Write a signed number in points, if it is known."""
    return MISSING if pd.isna(found.value) else points(found.value)


def probes_table(measures: Represented) -> View:
    """Return accuracies of probes, as means over layers and seeds."""
    sides = {split: measures.accuracies(split) for split in (SPLIT, "held")}
    groups: Groups = []
    for bio, told in BIO_LABELS.items():
        formats = {"qa": "qa", "bio": bio}
        rows = []
        for (trained, tested), label in PAIR_LABELS.items():
            keys = {"trained": formats[trained], "tested": formats[tested]}
            cells = [
                percent(float(chosen(side, tuning=tuning, **keys)["mean"].mean()))
                for side in sides.values()
                for tuning in COMPARED
            ]
            own = chosen(sides[SPLIT], **keys)
            rows.append(
                [label, *cells, percent(own["shuffled"].mean()), percent(own["chance"].mean())]
            )
        groups.append((told, rows))
    return View(
        "Accuracy of probes for the first token of an attribute, in per cent, means over layers, "
        "relations and seeds. Shuffled: probes fitted to labels exchanged between people. Chance: "
        "the most frequent answer. Both are of facts out, and of both tunings.",
        ["States, probe", *(f"{name}, out" for name in _NAMES),
         *(f"{name}, in, kept apart" for name in _NAMES), "shuffled", "chance"],
        groups,
    )  # fmt: skip


def gradients_table(measures: Represented) -> View:
    """Return consistency of gradients above that of other facts, over training and at its end."""
    ends = measures.ends()
    groups: Groups = []
    for group, name in (GROUP_LABELS | PAIRED_LABELS).items():
        rows = []
        for kind, label in (
            ("matched", "same fact"),
            ("matched - person", "… above other people"),
            ("matched - relation", "… above other relations"),
        ):
            cells = [
                with_interval(together(found, "cosine"), cosine)
                for tuning in COMPARED
                for found in (
                    measures.trained(tuning, group, kind),
                    chosen(ends, tuning=tuning, group=group, kind=kind),
                )
            ]
            rows.append([label, *cells])
        groups.append((name, rows))
    return View(
        "Cosine of the gradients of a fact told and asked, facts out, all seeds, with 95 % "
        "intervals over people. Training: the mean over the moments after the start that were "
        "looked at, of both stages; its bounds are the means of theirs. S less others: differences "
        "within facts.",
        ["Gradients", *(f"{n}, {when}" for n in _NAMES for when in ("training", "end"))],
        groups,
    )


def signature_table(measures: Represented) -> View:
    """Return what facts are read from, by attribution and by exchange."""
    groups: Groups = []
    for form in FORMATS:
        rows = []
        every = chosen(measures.signature, split=SPLIT, relation="all", format=form)
        for role, label in SIGNATURE_LABELS.items():
            own = chosen(every, role=role)
            sides = [chosen(own, tuning=tuning) for tuning in COMPARED]
            if all(chosen(side, seed=TOGETHER).empty for side in sides):
                continue
            difference = together(chosen(own, tuning="mix - stage"), "share")
            rows.append(
                [
                    label.replace("\n", " "),
                    *(with_interval(together(side, "share"), share) for side in sides),
                    with_interval(difference, points),
                    *(_number(side, "logit_drop") for side in sides),
                    *(_share(side, "still_right") for side in sides),
                    *(_share(side, "source_answer") for side in sides),
                ]
            )
        groups.append(("Told (BIO)" if form == "bio" else "Asked (QA)", rows))
    both = [f"{what}, {name}" for what in ("logit lost", "still right", "follows")
            for name in _NAMES]  # fmt: skip
    return View(
        "What facts out are read from, all seeds. Share: of all roles' attributions to the "
        "logit of the answer's first token, each taken without its sign, in per cent, with 95 % "
        "intervals over people; below zero it speaks against the answer. The rest is with "
        "the part exchanged for another person's: what the logit loses, the share of first tokens "
        "that were right and still are, and the share that become what the exchanged part calls "
        "for, both in per cent.",
        ["Part", *(f"share, {name}" for name in _NAMES), "Mix less Stage", *both],
        groups,
    )


def _number(rows: pd.DataFrame, column: str) -> str:
    found = chosen(rows, seed=TOGETHER)[column]
    if found.empty or pd.isna(found.iloc[0]):
        return MISSING
    return f"{float(found.iloc[0]):.1f}".replace("-", "\N{MINUS SIGN}")


def _share(rows: pd.DataFrame, column: str) -> str:
    found = chosen(rows, seed=TOGETHER)[column]
    return MISSING if found.empty else percent(float(found.iloc[0]))


def patching_table(measures: Represented) -> View:
    """Return what patched states do behind the middle one of the layers looked at."""
    layer = measures.middle
    every = chosen(measures.patching, split=SPLIT, layer=-1 if layer is None else layer)
    groups: Groups = []
    for (source, target), title in DIRECTIONS.items():
        rows = []
        for position in POSITIONS:
            own = chosen(every, source=source, target=target, position=position)
            for tuning in COMPARED:
                mine = chosen(own, tuning=tuning)
                same, other = (chosen(mine, source_fact=donor) for donor in ("same", "other"))
                rows.append(
                    [
                        f"{POSITION_LABELS[position]}, {TUNING_LABELS[tuning]}",
                        _share(same, "unpatched"),
                        _share(same, "accuracy"),
                        _share(other, "accuracy"),
                        _value(chosen(mine, source_fact=RESTORED), "gain"),
                        _share(other, "source_answer"),
                    ]
                )
        groups.append((title, rows))
    where = "" if layer is None else f" ({layer})"
    return View(
        "Facts out answered rightly, in per cent, with states put behind the middle one of the "
        f"layers looked at{where}; all seeds. Restored: points that the fact's own state gives "
        "more than that of another person's fact, with 95 % intervals over people. Follows: "
        "with the other person's state, how often the other's answer comes.",
        ["Where", "unpatched", "same fact", "other person", "restored", "follows"],
        groups,
    )
