"""The paper's claims on circuits of Mix-tuned models, as rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING

from factrecall.experiments.circuits.tables import ENOUGH, RATIOS
from factrecall.report.claims import Claim, Quantity, above, listed, minus, of_all, with_sign
from factrecall.report.published import COLUMNS, CONTINUITY, HEADS, PYTHIA, TOP_HEADS
from factrecall.report.style import KIND_LABELS, RANKING_LABELS
from factrecall.report.tables import NO_BREAK, points

if TYPE_CHECKING:
    import pandas as pd

    from factrecall.experiments.circuits.measures import Circuits

MOST = 0.8
"""Completeness of `ENOUGH` that takes more than this share of the nodes takes almost all of them:
fewer would be enough if each gave the same."""

Values = Mapping[int, float]
"""A share by seed."""


def claims(m: Circuits) -> list[Claim]:
    """Return the claims on the kinds of nodes that were intervened on."""
    found = [*_attention(m.paper), *_orders(m, "attention")] if "attention" in m.kinds else []
    for kind in m.mlp[:1]:
        found += [*_mlp(m, kind), *_orders(m, kind), *_continuity(kind)]
    return found


def _bounded(
    section: str,
    text: str,
    values: Callable[[Circuits], Values],
    bound: float,
    published: str = "",
    *,
    after: Callable[[Circuits], str] = lambda m: "",
    is_extension: bool = False,
) -> Claim:
    """Return the claim that a share is above a bound in every seed."""

    def quantity(m: Circuits) -> Quantity:
        found = values(m)
        return Quantity(above(found, bound), f"By seed {listed(found)}.{after(m)}")

    return Claim(text, quantity, published, is_extension, section)


# --- attention --------------------------------------------------------------------------------


def _attention(paper: str) -> Iterator[Claim]:
    theirs, key, section = HEADS[paper], ("attention", "mix", "shared"), "Attention heads"
    share, top = theirs.share / 100, TOP_HEADS / 100
    heads, first = f"{whole(share)} of the heads", f"the first {whole(top)} of the heads"

    def reached(m: Circuits) -> Values:
        return m.reached(*key, share)

    def lost(m: Circuits) -> Values:
        return m.lost(*key, top)

    def lost_of_added(m: Circuits) -> Values:
        left = m.added("attention", "mix", {seed: 1 - value for seed, value in lost(m).items()})
        return {seed: 1 - value for seed, value in left.items()}

    yield _bounded(
        section,
        f"{heads} of a Mix-tuned model, ranked by their shared parameters, are enough for more "
        f"than {theirs.reached:g} % completeness.",
        reached,
        theirs.reached / 100,
        f"over {theirs.reached:g} % with {heads}",
        after=lambda m: (
            f" {whole(ENOUGH)} needs, by seed, {listed(_needed(m, 'attention'))} of "
            f"them.{_floor(m)}"
        ),
    )
    yield Claim(
        f"{heads}, ranked by shared parameters, reach more completeness than as many ranked by "
        "grafted parameters.",
        lambda m: _two(
            "By shared", reached(m), "by grafted",
            m.reached("attention", "mix", "grafted", share),
        ),
        f"over {theirs.reached:g} % against {theirs.grafted:g} %"
        + (" or less" if paper == PYTHIA else ""),
        section=section,
    )  # fmt: skip
    for part, bound in ((share, theirs.held), (top, theirs.top_held)):
        yield _bounded(
            section,
            f"The first {whole(part)} of the heads by shared parameters hold more than "
            f"{bound:g} % of S in attention.",
            lambda m, part=part: m.held(*key, part),  # type: ignore[misc]
            bound / 100,
            f"over {bound:g} %",
        )
    yield _bounded(
        section,
        f"Resetting {first} by shared parameters costs more than {theirs.top_lost:g} % of "
        "completeness.",
        lost,
        theirs.top_lost / 100,
        f"over {theirs.top_lost:g} %",
        after=_floor,
    )
    yield _bounded(
        section,
        f"Of what heads add to everything else, {heads} alone bring back more than "
        f"{theirs.reached:g} %.",
        lambda m: m.added("attention", "mix", reached(m)),
        theirs.reached / 100,
        is_extension=True,
    )
    yield _bounded(
        section,
        f"Resetting {first} by shared parameters costs more than {theirs.top_lost:g} % of what "
        "heads add to everything else.",
        lost_of_added,
        theirs.top_lost / 100,
        is_extension=True,
    )


def _floor(m: Circuits) -> str:
    floor = m.floor("attention", "mix")
    return f" Completeness with no head grafted: {listed(floor)}." if floor else ""


# --- the MLP ----------------------------------------------------------------------------------


def _mlp(m: Circuits, kind: str) -> Iterator[Claim]:
    section, nodes, key = "MLP nodes", KIND_LABELS[kind], (kind, "mix", "shared")
    if kind == "column":
        share = COLUMNS.nodes / COLUMNS.of
        one = ", of the first one alone" if share * m.nodes(kind) < 1.5 else ""

        def held(m: Circuits) -> Quantity:
            found = m.held(*key, share)
            return Quantity(above(found, COLUMNS.held / 100), f"By seed {listed(found)}{one}.")

        def lost(m: Circuits) -> Quantity:
            found = m.lost(*key, share)
            if not found:
                return Quantity(
                    dict.fromkeys(m.floor(kind, "mix"), math.nan),
                    f"Not measured: {100 * share:.2f} % of {m.nodes(kind):,} {nodes} are fewer "
                    "than the first step takes.",
                )
            return Quantity(above(found, COLUMNS.lost / 100), f"By seed {listed(found)}.")

        yield Claim(
            f"As small a share of the {nodes} as the paper's {COLUMNS.nodes} of {COLUMNS.of:,} "
            f"({100 * share:.2f} %), ranked by shared parameters, holds more than "
            f"{COLUMNS.held:g} % of S in the MLP.",
            held,
            f"over {COLUMNS.held:g} %",
            section=section,
        )
        yield Claim(
            f"Resetting that share of them costs more than {COLUMNS.lost:g} % of completeness.",
            lost,
            f"over {COLUMNS.lost:g} %",
            section=section,
        )
    yield _bounded(
        section,
        f"Almost all {nodes} are needed: {whole(ENOUGH)} completeness takes more than "
        f"{whole(MOST)} of them, ranked by shared parameters.",
        lambda m: _needed(m, kind),
        MOST,
        "“almost all neurons”; no number",
    )


def _needed(m: Circuits, kind: str) -> Values:
    """Return the share of nodes that is enough; 1 where none is, if anything is recalled."""
    floor = m.floor(kind, "mix")
    needed = m.number(kind, "mix", "shared", "needed", ENOUGH)
    return {
        seed: 1.0 if math.isnan(value) and not math.isnan(floor[seed]) else value
        for seed, value in needed.items()
    }


def _continuity(kind: str) -> Iterator[Claim]:
    nodes, section = KIND_LABELS[kind], "MLP nodes"
    least = dict(zip(RATIOS, map(min, zip(*CONTINUITY.values(), strict=True)), strict=True))

    def lasts(m: Circuits) -> Quantity:
        means = _ratios(m, kind, shuffled=False)
        margins = means - [least[ratio] / 100 for ratio in RATIOS]
        return Quantity(_margins(margins), f"{_written(means.mean())}.")

    def above_chance(m: Circuits) -> Quantity:
        means, chance = (_ratios(m, kind, shuffled=s) for s in (False, True))
        both = means.index.intersection(chance.index)
        said = f"{_written(means.mean())}. Shuffled: {_written(chance.mean())}."
        return Quantity(_margins(means.loc[both] - chance.loc[both]), said)

    yield Claim(
        f"What is recalled stays so while {nodes} are grafted: of the steps from the first to the "
        f"last at which an attribute is right, at least {least['overall']:g} % are, at least "
        f"{least['longest']:g} % in a row, and at least {least['retained']:g} % of the attributes "
        "are right at the end.",
        lasts,
        "; ".join(
            f"{model} {', '.join(with_sign(value / 100) for value in row)}"
            for model, row in CONTINUITY.items()
        ),
        section=section,
    )
    yield Claim(
        "All three are above those of outcomes shuffled between people, step by step, which have "
        "the same curves.",
        above_chance,
        is_extension=True,
        section=section,
    )


def _ratios(m: Circuits, kind: str, *, shuffled: bool) -> pd.DataFrame:
    return m.continuity(kind, "mix", shuffled).groupby("seed")[list(RATIOS)].mean()


def _margins(rows: pd.DataFrame) -> dict[int, float]:
    return {int(str(seed)): of_all(row) for seed, row in rows.iterrows()}


def _written(ratios: pd.Series) -> str:
    return ", ".join(with_sign(float(value)) for value in ratios)


# --- both -------------------------------------------------------------------------------------


def _orders(m: Circuits, kind: str) -> Iterator[Claim]:
    """Yield that shared parameters rank a kind's nodes better than others do, by whole curves."""
    attention = kind == "attention"
    pairs = [("forward", "grafted"), ("forward", "random"), ("backward", "grafted")]
    for direction, other in [*pairs, *([("backward", "random")] if attention else [])]:
        if other == "random" and not m.random:
            continue
        forward = direction == "forward"
        effect = "Grafting nodes brings recall back" if forward else "Resetting nodes costs recall"
        what = "completeness" if forward else "completeness lost"
        than = "at random" if other == "random" else "by grafted parameters"
        early = not attention and forward
        yield Claim(
            f"{effect} sooner when they are ranked by shared parameters than {than}: mean {what} "
            "over all steps.",
            partial(_sooner, kind, "area" if forward else "area_lost", other),
            "in steps 1 to 20 of 49 (Llama)" if early else "so in the figures; no number",
            early,
            "Attention heads" if attention else "MLP nodes",
        )


def _sooner(kind: str, measure: str, other: str, m: Circuits) -> Quantity:
    ours, theirs = (m.number(kind, "mix", ranking, measure) for ranking in ("shared", other))
    return _two("By shared parameters", ours, RANKING_LABELS[other], theirs)


def _two(name: str, ours: Values, other: str, others: Values) -> Quantity:
    found = minus(ours, others)
    if not found:
        return Quantity()
    means = [with_sign(sum(side.values()) / len(side)) for side in (ours, others)]
    return Quantity(
        found,
        f"{name} {means[0]}, {other} {means[1]}; difference by seed {listed(found, points)} "
        "points.",
    )


def whole(share: float) -> str:
    """Write a share as whole per cent."""
    return f"{100 * share:g}{NO_BREAK}%"
