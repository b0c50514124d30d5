"""A claim is a row: what is claimed, the quantity that decides it, and what the paper has for it.

A quantity is one difference a seed, positive where the run is as the claim says, and where there is
one the 95 % interval of their mean over people. `judge` turns every row into a verdict by `RULE`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from factrecall.report.tables import NO_BREAK, percent, points
from factrecall.vocabulary import COMPARED

if TYPE_CHECKING:
    import pandas as pd

RULE = (
    "A claim holds if every seed shows it and, where there is a 95 % interval over people, all of "
    "it does; it does not hold if every seed shows the opposite and so does all of the interval; "
    "anything else, equality too, is inconclusive. So is a claim without an interval that fewer "
    "than three seeds speak to."
)

SEEDS = 3
"""So many must agree where no interval does."""

NOT_MEASURED = "Not measured."
NAMES = {"stage": "Stage-tuned", "mix": "Mix-tuned"}

Interval = tuple[float, float]
Verdict = Literal["holds", "does not hold", "inconclusive"]


class Quantity(NamedTuple):
    """What a claim is judged by: differences by seed, their interval, and the numbers in words."""

    differences: Mapping[int, float] = {}
    evidence: str = NOT_MEASURED
    interval: Interval | None = None


@dataclass(frozen=True)
class Claim:
    """A claim to be judged.

    Attributes
    ----------
    text : str
        What is claimed.
    quantity : callable
        From the section's measures to the `Quantity` that decides it.
    published : str or callable
        The paper's numbers, or from the measures to them; may be empty.
    is_extension : bool
        Whether it is this project's check, not the paper's claim.
    section : str
        The heading it stands under; empty: that of its section.
    """

    text: str
    quantity: Callable[[Any], Quantity]
    published: str | Callable[[Any], str] = ""
    is_extension: bool = False
    section: str = ""


class Judged(NamedTuple):
    """A claim and what became of it; `paper` may be empty."""

    section: str
    text: str
    is_extension: bool
    verdict: Verdict
    evidence: str
    paper: str


def judge(claim: Claim, section: str, measures: Any) -> Judged:
    """Apply `RULE` to a claim."""
    found = claim.quantity(measures)
    published = claim.published
    return Judged(
        claim.section or section,
        claim.text,
        claim.is_extension,
        verdict(found.differences, found.interval),
        found.evidence if found.differences else NOT_MEASURED,
        published(measures) if callable(published) else published,
    )


def verdict(differences: Mapping[int, float], interval: Interval | None = None) -> Verdict:
    """Apply `RULE`; without any difference nothing can be said."""
    values = [d for d in differences.values() if not math.isnan(d)]
    if not values or (interval is None and len(values) < SEEDS):
        return "inconclusive"
    low, high = interval or (min(values), max(values))
    return decide(values, low, high)


def decide(differences: Iterable[float], low: float, high: float) -> Verdict:
    """Ask whether all differences and their interval are on one side of zero."""
    values = [*differences, low, high]
    if all(value > 0 for value in values):
        return "holds"
    return "does not hold" if all(value < 0 for value in values) else "inconclusive"


def by_seed_difference(rows: pd.DataFrame, value: str) -> dict[int, float]:
    """Return Mix-tuned minus Stage-tuned, for the seeds that have both.

    Parameters
    ----------
    rows : DataFrame
        Columns tuning, seed and `value`; one row a tuning and seed.
    value : str
        What is compared; missing values leave their seed out.
    """
    if rows.empty:
        return {}
    sides = rows.pivot(index="seed", columns="tuning", values=value).reindex(columns=list(COMPARED))
    return by_seed((sides["mix"] - sides["stage"]).dropna())


def by_seed(values: pd.Series) -> dict[int, float]:
    """Return a series by seed as plain numbers."""
    return {int(str(seed)): float(value) for seed, value in values.items()}


def minus(ours: Mapping[int, float], others: Mapping[int, float]) -> dict[int, float]:
    """Return differences by seed, of those that are known."""
    found = {seed: ours[seed] - others[seed] for seed in ours if seed in others}
    return {seed: value for seed, value in found.items() if not math.isnan(value)}


def above(values: Mapping[int, float], bound: float) -> dict[int, float]:
    """Return by how much each seed is above a bound."""
    return {seed: value - bound for seed, value in values.items()}


def of_all(margins: pd.Series) -> float:
    """Return one margin for several: a seed shows it if all do, and the opposite if none does."""
    return float(margins.min() if margins.min() >= 0 else min(margins.max(), 0.0))


def with_sign(share: float) -> str:
    """Write a share as per cent with its sign."""
    return f"{percent(share)}{NO_BREAK}%"


def listed(by_seed: Mapping[int, float], write: Callable[[float], str] = with_sign) -> str:
    """Write the values of all seeds, in their order."""
    return ", ".join(write(value) for value in by_seed.values())


def compared(
    rows: pd.DataFrame, value: str, before: str = "", unit: str = "%", after: str = ""
) -> Quantity:
    """Compare Mix-tuned with Stage-tuned models: the difference by seed, and the means of both."""
    found = by_seed_difference(rows, value)
    if not found:
        return Quantity()
    means = rows.groupby("tuning")[value].mean()
    written = (percent(float(means[t])).replace("-", "\N{MINUS SIGN}") for t in ("mix", "stage"))
    mix, stage = (f"{number}{NO_BREAK}{unit}" for number in written)
    said = f"{before}{NAMES['mix']} {mix}, {NAMES['stage']} {stage}; difference by seed "
    return Quantity(found, f"{said}{listed(found, points)} points.{after}")
