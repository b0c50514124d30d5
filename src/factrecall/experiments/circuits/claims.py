"""What the paper says of circuits, and what its numbers have to be held against."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd

from factrecall.experiments.circuits.measures import MLP, RATIOS, CircuitMeasures
from factrecall.experiments.circuits.summary import ENOUGH
from factrecall.report.claim import (
    NOT_MEASURED,
    Claim,
    Section,
    listed,
    of_all,
    with_sign,
    word,
)
from factrecall.report.published import (
    COLUMNS,
    CONTINUITY,
    HEADS,
    PYTHIA,
    TOP_HEADS,
)
from factrecall.report.style import KIND_LABELS, PRIORITY_LABELS
from factrecall.report.tables import NO_BREAK, points

MOST = 0.8
"""Completeness of `ENOUGH` that takes more than this share of the nodes takes almost all of them:
fewer would be enough if each gave the same."""


def circuit_claims(measures: CircuitMeasures, paper: str) -> Iterator[Claim]:
    """Yield the claims on circuits of Mix-tuned models, of the kinds that were looked at.

    Parameters
    ----------
    measures : CircuitMeasures
        Of one model.
    paper : str
        The paper's model to compare with (see `published.counterpart`).
    """
    if "attention" in measures.kinds:
        yield from _attention(measures, paper)
    if measures.lasting in MLP:
        yield from _mlp(measures, measures.lasting)
        yield from _continuity(measures, measures.lasting)


# --- attention --------------------------------------------------------------------------------


def _attention(measures: CircuitMeasures, paper: str) -> Iterator[Claim]:
    theirs, key = HEADS[paper], ("attention", "mix", "shared")
    share, top = theirs.share / 100, TOP_HEADS / 100
    heads = f"{_whole(share)} of the heads"
    ours, needed = measures.reached(*key, share), _needed(measures, "attention")
    yield Claim(
        "Attention heads",
        f"{heads} of a Mix-tuned model, taken by their shared parameters, are enough for more than "
        f"{theirs.reached:g} % completeness.",
        False,
        word(_above(ours, theirs.reached / 100)),
        f"By seed {_shares(ours)}; {_whole(ENOUGH)} needs, by seed, {_shares(needed)} of them."
        f"{_floor(measures)}"
        if ours
        else NOT_MEASURED,
        f"over {theirs.reached:g} % with {heads}",
    )
    others = measures.reached("attention", "mix", "grafted", share)
    yield Claim(
        "Attention heads",
        f"{heads}, taken by shared parameters, reach more completeness than as many taken by "
        "grafted parameters.",
        False,
        word(_minus(ours, others)),
        _two("By shared", ours, "by grafted", others),
        f"over {theirs.reached:g} % against {theirs.grafted:g} %"
        + (" or less" if paper == PYTHIA else ""),
    )
    for part, bound in ((share, theirs.held), (top, theirs.top_held)):
        held = measures.held(*key, part)
        yield Claim(
            "Attention heads",
            f"The first {_whole(part)} of the heads by shared parameters hold more than "
            f"{bound:g} % of S in attention.",
            False,
            word(_above(held, bound / 100)),
            f"By seed {_shares(held)}." if held else NOT_MEASURED,
            f"over {bound:g} %",
        )
    lost = measures.lost(*key, top)
    first = f"the first {_whole(top)} of the heads by shared parameters"
    yield Claim(
        "Attention heads",
        f"Putting back {first} costs more than {theirs.top_lost:g} % of completeness.",
        False,
        word(_above(lost, theirs.top_lost / 100)),
        f"By seed {_shares(lost)}.{_floor(measures)}" if lost else NOT_MEASURED,
        f"over {theirs.top_lost:g} %",
    )
    yield from _orders(measures, "attention", ("forward", "backward"), ("grafted", "random"))
    added = measures.added(*key[:2], ours)
    yield Claim(
        "Attention heads",
        f"Even of what heads add to all else, {heads} bring back more than {theirs.reached:g} %.",
        True,
        word(_above(added, theirs.reached / 100)),
        f"By seed {_shares(added)}." if added else NOT_MEASURED,
        "",
    )
    gone = measures.added(*key[:2], {seed: 1 - value for seed, value in lost.items()})
    gone = {seed: 1 - value for seed, value in gone.items()}
    yield Claim(
        "Attention heads",
        f"Putting back {first} costs more than {theirs.top_lost:g} % of what heads add to all "
        "else.",
        True,
        word(_above(gone, theirs.top_lost / 100)),
        f"By seed {_shares(gone)}." if gone else NOT_MEASURED,
        "",
    )


def _floor(measures: CircuitMeasures) -> str:
    floor = measures.floor("attention", "mix")
    return f" Completeness with no head grafted: {_shares(floor)}." if floor else ""


# --- the MLP ----------------------------------------------------------------------------------


def _mlp(measures: CircuitMeasures, kind: str) -> Iterator[Claim]:
    nodes, key = KIND_LABELS[kind], (kind, "mix", "shared")
    if kind == "column":
        share = COLUMNS.nodes / COLUMNS.of
        told = f"{COLUMNS.nodes} of {COLUMNS.of:,} ({100 * share:.2f} %)"
        held = measures.held(*key, share)
        one = share * measures.nodes(kind) < 1.5
        coarse = (
            f"Not measured: {100 * share:.2f} % of {measures.nodes(kind):,} {nodes} are fewer than "
            "the first step takes."
        )
        yield Claim(
            "MLP nodes",
            f"As small a share of the {nodes} as the paper's {told}, taken by shared parameters, "
            f"holds more than {COLUMNS.held:g} % of S in the MLP.",
            False,
            word(_above(held, COLUMNS.held / 100)),
            f"By seed {_shares(held)}{', of the first one alone' if one else ''}."
            if held
            else NOT_MEASURED,
            f"over {COLUMNS.held:g} %",
        )
        lost = measures.lost(*key, share)
        yield Claim(
            "MLP nodes",
            f"Putting back that share of them costs more than {COLUMNS.lost:g} % of completeness.",
            False,
            word(_above(lost, COLUMNS.lost / 100)),
            f"By seed {_shares(lost)}." if lost else coarse,
            f"over {COLUMNS.lost:g} %",
        )
    needed = _needed(measures, kind)
    yield Claim(
        "MLP nodes",
        f"Almost all {nodes} are needed: {_whole(ENOUGH)} completeness takes more than "
        f"{_whole(MOST)} of them, in the order of shared parameters.",
        False,
        word(_above(needed, MOST)),
        f"By seed {_shares(needed)}." if needed else NOT_MEASURED,
        "“almost all neurons”; no number",
    )
    yield from _orders(measures, kind, ("forward",), ("grafted", "random"))
    yield from _orders(measures, kind, ("backward",), ("grafted",))


def _continuity(measures: CircuitMeasures, kind: str) -> Iterator[Claim]:
    nodes, theirs = KIND_LABELS[kind], pd.DataFrame(CONTINUITY).T.set_axis(RATIOS, axis=1)
    real, chance = (
        measures.continuous(kind, "mix", shuffled).groupby("seed")[list(RATIOS)].mean()
        for shuffled in (False, True)
    )
    least = theirs.min()
    found = {int(str(seed)): of_all(row - least / 100) for seed, row in real.iterrows()}
    yield Claim(
        "MLP nodes",
        f"What is recalled stays so while {nodes} are added: of the steps from the first to the "
        f"last at which an attribute is right, at least {least['overall']:g} % are, at least "
        f"{least['longest']:g} % in a row, and at least {least['retained']:g} % of the attributes "
        "are right at the end.",
        False,
        word(found),
        _ratios(real) if found else NOT_MEASURED,
        "; ".join(f"{model} {_listed(row / 100)}" for model, row in theirs.iterrows()),
    )
    above = {
        int(str(seed)): of_all(row - chance.loc[seed])
        for seed, row in real.iterrows()
        if seed in chance.index
    }
    yield Claim(
        "MLP nodes",
        "All three are above those of outcomes exchanged between people, step by step, which have "
        "the same curves.",
        True,
        word(above),
        f"{_ratios(real)} Exchanged: {_ratios(chance)}" if above else NOT_MEASURED,
        "",
    )


def _ratios(means: pd.DataFrame) -> str:
    return f"{_listed(means.mean())}."


def _listed(ratios: pd.Series) -> str:
    return ", ".join(with_sign(float(value)) for value in ratios)


# --- what both share --------------------------------------------------------------------------


def _orders(
    measures: CircuitMeasures, kind: str, directions: tuple[str, ...], others: tuple[str, ...]
) -> Iterator[Claim]:
    """Yield that shared parameters order a kind's nodes better than others, by whole curves."""
    section: Section = "Attention heads" if kind == "attention" else "MLP nodes"
    for direction in directions:
        forward = direction == "forward"
        measure = "area" if forward else "area_lost"
        ours = measures.number(kind, "mix", "shared", measure)
        for other in others:
            if other == "random" and not measures.random:
                continue
            theirs = measures.number(kind, "mix", other, measure)
            said = (
                "Adding nodes brings recall back" if forward else "Putting nodes back costs recall"
            )
            what = "completeness" if forward else "completeness lost"
            than = "at random" if other == "random" else "in that of grafted parameters"
            early = kind != "attention" and forward
            yield Claim(
                section,
                f"{said} sooner in the order of shared parameters than {than}: mean {what} "
                "over all steps.",
                early,
                word(_minus(ours, theirs)),
                _two("By shared parameters", ours, PRIORITY_LABELS[other], theirs),
                "in steps 1 to 20 of 49 (Llama)" if early else "so in the figures; no number",
            )


def _needed(measures: CircuitMeasures, kind: str) -> dict[int, float]:
    """Return the share of nodes that is enough; all where no share is, if anything is recalled."""
    floor = measures.floor(kind, "mix")
    needed = measures.number(kind, "mix", "shared", "needed", ENOUGH)
    return {
        seed: (1.0 if np.isnan(value) else value) if not np.isnan(floor[seed]) else float("nan")
        for seed, value in needed.items()
    }


def _above(values: Mapping[int, float], bound: float) -> dict[int, float]:
    return {seed: value - bound for seed, value in values.items()}


def _minus(ours: Mapping[int, float], others: Mapping[int, float]) -> dict[int, float]:
    """Return differences by seed, of those that are known."""
    found = {seed: ours[seed] - others[seed] for seed in ours if seed in others}
    return {seed: value for seed, value in found.items() if not np.isnan(value)}


def _shares(values: Mapping[int, float]) -> str:
    return listed(values, with_sign)


def _whole(share: float) -> str:
    return f"{100 * share:g}{NO_BREAK}%"


def _two(name: str, ours: Mapping[int, float], other: str, others: Mapping[int, float]) -> str:
    found = _minus(ours, others)
    if not found:
        return NOT_MEASURED
    means = (with_sign(float(np.mean(list(side.values())))) for side in (ours, others))
    return (
        f"{name} {next(means)}, {other} {next(means)}; difference by seed "
        f"{listed(found, points)} points."
    )
