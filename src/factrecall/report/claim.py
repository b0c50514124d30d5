"""A claim, the rule that judges it, and the words its evidence is told in."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import pandas as pd

from factrecall.experiments.recall.verdict import Word, decide
from factrecall.report.tables import NO_BREAK, percent, points

RULE = (
    "A claim holds if every seed shows it and, where there is a 95 % interval over people, all of "
    "it does; it does not hold if every seed shows the opposite and so does all of the interval; "
    "anything else, equality too, is inconclusive. So is a claim without an interval that fewer "
    "than three seeds speak to."
)

SEEDS = 3
"""So many must agree where no interval does."""

Interval = tuple[float, float]
Section = Literal[
    "Shared parameters",
    "Ablation",
    "Grafting",
    "Attention heads",
    "MLP nodes",
    "Case study",
    "Representations",
    "Gradients of both formats",
    "What facts are read from",
]


class Claim(NamedTuple):
    """A claim and what became of it.

    Attributes
    ----------
    section : str
        Under which heading it stands.
    text : str
        What is claimed.
    own : bool
        Whether it is this project's check, not the paper's claim.
    word : str
        The verdict, by `RULE`.
    evidence : str
        The numbers behind it.
    paper : str
        The paper's numbers; may be empty.
    """

    section: Section
    text: str
    own: bool
    word: Word
    evidence: str
    paper: str


NOT_MEASURED = "Not measured."
NAMES = {"stage": "Stage-tuned", "mix": "Mix-tuned"}


def word(differences: Mapping[int, float], interval: Interval | None = None) -> Word:
    """Apply `RULE`; without any difference nothing can be said."""
    values = [d for d in differences.values() if not math.isnan(d)]
    if not values or (interval is None and len(values) < SEEDS):
        return "inconclusive"
    low, high = interval or (min(values), max(values))
    return decide(values, low, high)


def of_all(margins: pd.Series) -> float:
    """Return one margin for several: a seed shows it if all do, and the opposite if none does."""
    return float(margins.min() if margins.min() >= 0 else min(margins.max(), 0.0))


def with_sign(share: float) -> str:
    """Write a share as per cent with its sign."""
    return f"{percent(share)}{NO_BREAK}%"


def listed(by_seed: Mapping[int, float], write: Callable[[float], str]) -> str:
    """Write the values of all seeds, in their order."""
    return ", ".join(write(value) for value in by_seed.values())


def compared(
    rows: pd.DataFrame,
    value: str,
    found: Mapping[int, float],
    *,
    before: str = "",
    unit: str = "%",
) -> str:
    """Say the means of both tunings and the difference by seed."""
    if not found:
        return NOT_MEASURED
    means = rows.groupby("tuning")[value].mean()
    written = (percent(float(means[t])).replace("-", "\N{MINUS SIGN}") for t in ("mix", "stage"))
    mix, stage = (f"{number}{NO_BREAK}{unit}" for number in written)
    return (
        f"{before}Mix-tuned {mix}, Stage-tuned {stage}; difference by seed {listed(found, points)} "
        "points."
    )
