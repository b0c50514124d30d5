"""What the paper says of representations, and what its revised abstract says of gradients.

The abstract names no method and no numbers, so that its claims are judged by measures of our own;
which ones was settled before any was computed. Judged are facts whose question was never trained
on (`representation_measures.SPLIT`); of probes, also facts of people in distribution that were kept
from them, as the short paper does not say on whom it tested.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import pandas as pd

from factrecall.experiments.attribution.claims import ABSTRACT, reading_claims
from factrecall.experiments.representations.measures import (
    BIO_LABELS,
    DELTAS,
    MEAN,
    NOTHING,
    Found,
    Represented,
    apart,
    chosen,
    minus,
    single,
    together,
)
from factrecall.report.claim import NAMES, NOT_MEASURED, Claim, Interval, listed, word
from factrecall.report.published import DELTA_BOUNDS, LLAMA
from factrecall.report.tables import NO_BREAK, points
from factrecall.vocabulary import COMPARED

WHOM = {"out": "facts out", "held": "facts in, of people kept from the probes"}
"""On whom probes are judged: the short paper does not say, and the two may differ."""

_SMALL = {
    ("mech", "bio_long"): "“relatively small”; the bound of 20 is our reading: the paper gives 20 "
    "% for that of BIO states, at layer 24 of the Stage-tuned model",
    ("mech", "bio_short"): "“nearly zero”; the bound is our reading",
    ("rep", "bio_short"): "below 10 %",
}


def representation_claims(measures: Represented, paper: str) -> Iterator[Claim]:
    """Yield the claims on representations.

    Parameters
    ----------
    measures : Represented
        Of one model.
    paper : str
        The paper's model to compare with (see `published.counterpart`).
    """
    for split in WHOM:
        yield from _probes(measures, paper, split)
    yield from _gradients(measures)
    yield from reading_claims(measures)


# --- probes -----------------------------------------------------------------------------------


def _probes(measures: Represented, paper: str, split: str) -> Iterator[Claim]:
    yield _larger(
        measures,
        "rep",
        "With BIO long, features differ more between the formats in Stage-tuned models: Δrep, the "
        "mean over layers, is larger than in Mix-tuned ones",
        _theirs("so in the short paper's figure 3, for jobs; no number", paper),
        split,
    )
    yield _small(measures, "rep", "bio_short", paper, split)
    yield _larger(
        measures,
        "mech_bio",
        "With BIO long, what reads an attribute off the features differs more, too: Δmech of BIO "
        "states, the mean over layers, is larger in Stage-tuned models",
        _theirs("so of h^BIO at layer 24, where it is about 20 %, for jobs", paper),
        split,
    )
    yield _small(measures, "mech", "bio_long", paper, split)
    yield _small(measures, "mech", "bio_short", paper, split)


def _larger(measures: Represented, measure: str, text: str, paper: str, split: str) -> Claim:
    """Judge that a Δ of Stage-tuned models is larger, as the mean over layers."""
    rows = measures.difference(bio="bio_long", measure=measure, layer=MEAN, split=split)
    found, said = _stage_minus_mix(rows)
    interval = together(chosen(rows, tuning="stage - mix"), "value")
    if found:
        signed = {t: together(chosen(rows, tuning=t), "signed") for t in COMPARED}
        signs = ", ".join(f"{NAMES[t]} {points(found.value)}" for t, found in signed.items())
        said += f"{_interval(interval)} With their signs: {signs}."
    text = f"{text} ({WHOM[split]})."
    return Claim("Representations", text, False, word(found, bounds(interval)), said, paper)


def _stage_minus_mix(rows: pd.DataFrame) -> tuple[dict[int, float], str]:
    sides = {tuning: single(chosen(rows, tuning=tuning), "value") for tuning in COMPARED}
    found = minus(sides["stage"], sides["mix"])
    if not found:
        return {}, NOT_MEASURED
    means = ", ".join(
        f"{NAMES[t]} {with_points(_mean({seed: sides[t][seed] for seed in found}))}"
        for t in COMPARED
    )
    return found, f"{means}; Stage minus Mix by seed {listed(found, points)} points."


def _small(measures: Represented, measure: str, bio: str, paper: str, split: str) -> Claim:
    """Judge that a Δ of either tuning stays below a bound at every layer."""
    bound = DELTA_BOUNDS[f"{measure}_{bio.removeprefix('bio_')}"] / 100
    rows = measures.at_layers(split)
    rows = chosen(rows, measure=measure, bio=bio).dropna(subset=["value", "signed"])
    rows = rows[rows["tuning"].isin(COMPARED)]
    found = {
        int(str(seed)): bound - float(part["value"].max())
        for seed, part in rows[rows["seed"] >= 0].groupby("seed")
        if set(part["tuning"]) == set(COMPARED)
    }
    sizes = [size(one) for _, part in _cells(rows) if (one := together(part, "signed")).known]
    interval = None
    if sizes and found:
        # Where it is largest decides: by how much it may be larger, and by how much it must be.
        interval = (bound - max(high for _, high in sizes), bound - max(low for low, _ in sizes))
    said = NOT_MEASURED
    if found:
        largest = {seed: bound - margin for seed, margin in found.items()}
        each = "; ".join(_largest(chosen(rows, tuning=tuning), tuning) for tuning in COMPARED)
        said = (
            "Largest of all layers and both models by seed "
            f"{listed(largest, points_of)} points. {each}."
        )
    what = "Features" if measure == "rep" else "What reads an attribute off the features"
    differ = "differ" if measure == "rep" else "differs"
    return Claim(
        "Representations",
        f"{what} {differ} little with {BIO_LABELS[bio]}: {DELTAS[measure]} is below "
        f"{100 * bound:g} points at every layer of both models ({WHOM[split]}).",
        False,
        word(found, interval),
        said,
        _theirs(_SMALL[measure, bio], paper),
    )


def _theirs(said: str, paper: str) -> str:
    """Say whose number it is where the short paper, which is on Llama alone, has no other."""
    return said if paper == LLAMA else f"{said} (of {LLAMA})"


def _cells(rows: pd.DataFrame) -> Iterator[tuple[object, pd.DataFrame]]:
    yield from rows.groupby(["tuning", "layer"], sort=False)


def size(signed: Found) -> Interval:
    """Return the bounds of an absolute value from those of the signed one."""
    ends = sorted((abs(signed.low), abs(signed.high)))
    return (0.0 if signed.low <= 0 <= signed.high else ends[0], ends[1])


def _largest(rows: pd.DataFrame, tuning: str) -> str:
    rows = rows[rows["seed"] < 0]
    if rows.empty:
        return f"{NAMES[tuning]}: not measured"
    row = rows.loc[rows["signed"].abs().idxmax()]
    return (
        f"{NAMES[tuning]}, all seeds, layer {row['layer']}: signed {points(row['signed'])} "
        f"({points(row['low'])} to {points(row['high'])})"
    )


# --- gradients --------------------------------------------------------------------------------


def _gradients(measures: Represented) -> Iterator[Claim]:
    kind = "matched - person"
    mix, stage = (measures.trained(t, "all", kind) for t in ("mix", "stage"))
    yield _cosines(
        "Gradients of a fact's two formats are more consistent in mixed training: over training, "
        "the cosine of its own telling and asking is further above that with the same relation of "
        "other people asked.",
        (NAMES["mix"], mix),
        (NAMES["stage"], stage),
    )
    yield _in_shared(measures, kind)
    mix, stage = (measures.trained(t, "S - random", kind) for t in ("mix", "stage"))
    yield _cosines(
        "It does so more than in two-stage training: S is further ahead of the random ones.",
        (NAMES["mix"], mix),
        (NAMES["stage"], stage),
        own=True,
    )


def _in_shared(measures: Represented, kind: str) -> Claim:
    """Judge S against as many random parameters, fact by fact; a small group's cosine is large."""
    ahead = measures.trained("mix", "S - random", kind)
    found, all_seeds = single(ahead, "cosine"), together(ahead, "cosine")
    said = NOT_MEASURED
    if found:
        groups = {"S": "S", "random": "random", "neither S nor γ": "rest"}
        sides = {n: together(measures.trained("mix", g, kind), "cosine") for n, g in groups.items()}
        each = ", ".join(_side(name, side) for name, side in sides.items() if side.known)
        said = f"Facts out: {each}; S minus random by seed {listed(found, _cosine)}."
        said += _interval(all_seeds, _cosine)
    return Claim(
        "Gradients of both formats",
        "In mixed training this consistency sits in the parameters that both formats update: it is "
        "larger in S than in random parameters, as many of each tensor as S has.",
        False,
        word(found, bounds(all_seeds)),
        said,
        ABSTRACT,
    )


def _side(name: str, found: Found) -> str:
    return f"{name} {_cosine(found.value)} ({_cosine(found.low)} to {_cosine(found.high)})"


def _cosines(
    text: str, ours: tuple[str, pd.DataFrame], other: tuple[str, pd.DataFrame], *, own: bool = False
) -> Claim:
    found = minus(*(single(rows, "cosine") for _, rows in (ours, other)))
    sides = [together(rows, "cosine") for _, rows in (ours, other)]
    difference = apart(*sides) if all(side.known for side in sides) else NOTHING
    said = NOT_MEASURED
    if found:
        each = ", ".join(
            _side(name, side)
            for (name, _), side in zip((ours, other), sides, strict=True)
            if side.known
        )
        said = f"Facts out: {each}; difference by seed {listed(found, _cosine)}."
    paper = "" if own else ABSTRACT
    return Claim(
        "Gradients of both formats", text, own, word(found, bounds(difference)), said, paper
    )


# --- words ------------------------------------------------------------------------------------


def bounds(found: Found) -> Interval | None:
    """Return the interval of a number, if it has one."""
    return (found.low, found.high) if found.known else None


def _interval(found: Found, write: Callable[[float], str] = points) -> str:
    return f" 95 % interval {write(found.low)} to {write(found.high)}." if found.known else ""


def points_of(share: float) -> str:
    """Write a size in points, without a sign."""
    return f"{100 * share:.1f}"


def with_points(share: float) -> str:
    """Write a size in points, with the word."""
    return f"{points_of(share)}{NO_BREAK}points"


def _mean(values: Mapping[int, float]) -> float:
    return sum(values.values()) / len(values)


def _cosine(value: float) -> str:
    return f"{value:+.3f}".replace("-", "\N{MINUS SIGN}")
