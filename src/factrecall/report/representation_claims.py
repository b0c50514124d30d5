"""What the paper says of representations, and what its revised abstract says of gradients.

The abstract names no method and no numbers, so that its claims are judged by measures of our own;
which ones was settled before any was computed. Judged are facts whose question was never trained
on (`representation_measures.SPLIT`); the others stand beside, unjudged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import pandas as pd

from factrecall.report.claim import NAMES, NOT_MEASURED, Claim, Interval, listed, word
from factrecall.report.measures import COMPARED
from factrecall.report.published import DELTA_BOUNDS, LLAMA
from factrecall.report.reading_claims import ABSTRACT, reading_claims
from factrecall.report.representation_measures import (
    BIO_LABELS,
    DELTAS,
    MEAN,
    NOTHING,
    SPLIT,
    Found,
    Represented,
    apart,
    chosen,
    minus,
    single,
    together,
)
from factrecall.report.tables import NO_BREAK, points

_SMALL = {
    ("mech", "bio_long"): "“relatively small”, about 20 % at layer 24 of the Stage-tuned model; "
    "the bound is our reading",
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
    yield _larger(
        measures,
        "rep",
        "With BIO long, features differ more between the formats in Stage-tuned models: Δrep, the "
        "mean over layers, is larger than in Mix-tuned ones.",
        _theirs("so in the short paper's figure 3, for jobs; no number", paper),
    )
    yield _small(measures, "rep", "bio_short", paper)
    yield _larger(
        measures,
        "mech",
        "With BIO long, what reads an attribute off the features differs more, too: Δmech, the "
        "mean over layers, is larger in Stage-tuned models.",
        _theirs("so at layer 24, where it is about 20 %, for jobs", paper),
    )
    yield _small(measures, "mech", "bio_long", paper)
    yield _small(measures, "mech", "bio_short", paper)
    yield from _gradients(measures)
    yield from reading_claims(measures)


# --- probes -----------------------------------------------------------------------------------


def _larger(measures: Represented, measure: str, text: str, paper: str) -> Claim:
    """Judge that a Δ of Stage-tuned models is larger, as the mean over layers."""
    rows = measures.difference(bio="bio_long", measure=measure, layer=MEAN)
    judged = rows[rows["split"] == SPLIT]
    found, said = _stage_minus_mix(judged)
    interval = together(chosen(judged, tuning="stage - mix"), "value")
    if found:
        others, beside = _stage_minus_mix(rows[rows["split"] == "held"])
        said = f"Facts out: {said}{_interval(interval)}"
        if others:
            said += (
                " Beside it, facts whose question was trained on, of people kept from the probes: "
                f"{beside}{_interval(together(_held(rows), 'value'))}"
            )
    return Claim("Representations", text, False, word(found, bounds(interval)), said, paper)


def _held(rows: pd.DataFrame) -> pd.DataFrame:
    return chosen(rows, tuning="stage - mix", split="held")


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


def _small(measures: Represented, measure: str, bio: str, paper: str) -> Claim:
    """Judge that a Δ of either tuning stays below a bound at every layer."""
    bound = DELTA_BOUNDS[f"{measure}_{bio.removeprefix('bio_')}"] / 100
    rows = measures.at_layers()
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
            "Facts out, largest of all layers and both models by seed "
            f"{listed(largest, points_of)} points. {each}."
        )
    what = "Features" if measure == "rep" else "What reads an attribute off the features"
    differ = "differ" if measure == "rep" else "differs"
    return Claim(
        "Representations",
        f"{what} {differ} little with {BIO_LABELS[bio]}: {DELTAS[measure]} is below "
        f"{100 * bound:g} points at every layer of both models.",
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
    shared, rest = (measures.trained("mix", group, kind) for group in ("S", "rest"))
    yield _cosines(
        "In mixed training this consistency sits in the parameters that both formats update: it is "
        "larger in S than in what is neither in S nor in γ.",
        ("S", shared),
        ("rest", rest),
    )
    yield _cosines(
        "It does so more than in two-stage training: S is further ahead of the rest.",
        (NAMES["mix"], _ahead(shared, rest)),
        (NAMES["stage"], _ahead(*(measures.trained("stage", g, kind) for g in ("S", "rest")))),
        own=True,
    )


def _ahead(rows: pd.DataFrame, others: pd.DataFrame) -> pd.DataFrame:
    both = rows.merge(others, on="seed", suffixes=("", "_other"))
    return pd.DataFrame(
        {
            "seed": both["seed"],
            "cosine": both["cosine"] - both["cosine_other"],
            "low": both["low"] - both["high_other"],
            "high": both["high"] - both["low_other"],
        }
    )


def _cosines(
    text: str, ours: tuple[str, pd.DataFrame], other: tuple[str, pd.DataFrame], *, own: bool = False
) -> Claim:
    found = minus(*(single(rows, "cosine") for _, rows in (ours, other)))
    sides = [together(rows, "cosine") for _, rows in (ours, other)]
    difference = apart(*sides) if all(side.known for side in sides) else NOTHING
    said = NOT_MEASURED
    if found:
        each = ", ".join(
            f"{name} {_cosine(side.value)} ({_cosine(side.low)} to {_cosine(side.high)})"
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
