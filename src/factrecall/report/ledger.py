"""The ledger of claims: each claim is a row, and one rule turns its quantity into a verdict.

A claim compares a quantity with a bound, the smallest difference that matters, which is stated with
its reason before the quantity is measured. `judge` estimates the quantity with its 95 % interval
(`runtime.intervals`) and applies `RULE`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    import pandas as pd

    from factrecall.runtime.intervals import Effect

RULE = (
    "A claim says that a quantity is more, or less, than a bound: the smallest difference that "
    "matters, or a level such as the paper’s own number. It holds if all of the 95 % interval is "
    "beyond the bound, does not hold if none of it is, and is inconclusive otherwise, and always "
    "with fewer than two seeds. An interval over people and seeds covers other people of this "
    "study and other orders of its examples; one over replicates covers other people, texts, "
    "pre-trained models and orders."
)

SEEDS = 2
"""With fewer training runs no claim holds."""

ERROR = 0.025
"""The chance that a claim whose quantity lies at its bound holds: one end of a 95 % interval."""

MOVES = "On another make of CPU, accuracies of the same study moved by 2 points, or little more."
SMALLEST: dict[str, Any] = {"bound": 0.02, "why": MOVES}
"""The bound of most differences of accuracies, with its reason."""

MINUS = "\N{MINUS SIGN}"
FEW_PARTS = 4
"""Of so few parts, each is told where they differ in their verdicts."""

Verdict = Literal["holds", "does not hold", "inconclusive", "not measurable"]
VERDICTS: tuple[Verdict, ...] = ("holds", "does not hold", "inconclusive", "not measurable")


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A claim to be judged.

    Attributes
    ----------
    id : str
        ``<section>.<name>``; it stays when the text changes.
    text : str or callable
        What is claimed, one sentence; a callable takes the measures.
    observe : callable
        From the section's measures to observations: columns seed, value and, where people were
        observed, individual (see `runtime.intervals.estimate`). Several tables, by the name of a
        part, are a claim that all of its parts must meet. No rows: not measured.
    bound : float
        The smallest difference that matters, a share (0.02 is 2 points).
    why : str
        Why this bound.
    source : str
        Section and figure of the paper; empty: a check of this project, tallied apart.
    comparison : {"more", "less"}
        Whether the quantity is claimed to be more or less than the bound.
    unit : {"points", "%"}
        Whether the quantity is a difference (or share) in points or a relative change.
    published : float, optional, or callable
        The paper's value of the quantity; a callable takes the measures.
    quote : str or callable
        What the paper says where it prints no number.
    compares_tunings : bool
        Whether the quantity is Mix-tuned minus Stage-tuned (or the opposite): exchanging the labels
        changes its sign.
    unmeasurable : callable
        From the measures to the reason why this study cannot measure it, or None.
    lenient : callable
        From the measures to the reason why it would hold in this study whatever was true, or None:
        if it would hold, it is then not measurable; it can still fail.
    """

    id: str
    text: str | Callable[[Any], str]
    observe: Callable[[Any], pd.DataFrame | Mapping[str, pd.DataFrame]]
    why: str
    bound: float = 0.0
    source: str = ""
    comparison: Literal["more", "less"] = "more"
    unit: Literal["points", "%"] = "points"
    published: float | Callable[[Any], float | None] | None = None
    quote: str | Callable[[Any], str] = ""
    compares_tunings: bool = False
    unmeasurable: Callable[[Any], str | None] = lambda m: None
    lenient: Callable[[Any], str | None] = lambda m: None


class Judged(NamedTuple):
    """A claim and what became of it: a row of ``tables/claims.parquet`` (columns ``CLAIMS``).

    `part` names the part that decided, of a claim with several. Bounds, values and the paper's
    number are shares; NaN: not known.
    """

    model: str
    section: str
    id: str
    text: str
    source: str
    comparison: str
    bound: float
    unit: str
    why: str
    part: str
    value: float
    low: float
    high: float
    seeds: int
    people: int
    method: str
    published: float
    quote: str
    verdict: Verdict
    reason: str

    @property
    def paper_falls_short(self) -> bool:
        """Whether the paper's own number does not pass the bound."""
        beyond = (
            self.published - self.bound
            if self.comparison == "more"
            else (self.bound - self.published)
        )
        return beyond < 0

    @property
    def is_extension(self) -> bool:
        """Whether it is this project's check, not the paper's claim."""
        return not self.source


_NUMBERS = {
    **dict.fromkeys(("bound", "value", "low", "high", "published"), "float64"),
    **dict.fromkeys(("seeds", "people"), "int32"),
}

CLAIMS = {name: _NUMBERS.get(name, "string") for name in Judged._fields}
"""Columns of ``tables/claims.parquet``: a row a model and claim."""


def judge(claim: Claim, measures: Any, *, model: str = "", section: str = "") -> Judged:
    """Apply `RULE` to a claim, given the section's measures."""
    reason = claim.unmeasurable(measures)
    parts = {} if reason else claim.observe(measures)
    if not isinstance(parts, Mapping):
        parts = {"": parts}
    found = {name: _rule(claim, rows) for name, rows in parts.items()}
    verdict, part = decide({name: said for name, (said, _, _) in found.items()})
    effect, why = found[part][1:] if found else (_nothing(), reason or "not measured in this study")
    if 1 < len(found) <= FEW_PARTS and len({said for said, _, _ in found.values()}) > 1:
        why = "; ".join(f"{name}{_points(e)} ({v})" for name, (v, e, _) in found.items())
    if verdict == "holds" and (easy := claim.lenient(measures)):
        verdict, why = "not measurable", easy
    published, quote, text = (
        value(measures) if callable(value) else value
        for value in (claim.published, claim.quote, claim.text)
    )
    return Judged(
        model, section, claim.id, str(text), claim.source, claim.comparison, claim.bound,
        claim.unit, claim.why, part, *effect, math.nan if published is None else float(published),
        str(quote), verdict, why,
    )  # fmt: skip


def _points(effect: Effect) -> str:
    """Return an effect's value in points behind a space; nothing if there is none."""
    value = f" {100 * effect.value:.1f}".replace("-", MINUS)
    return "" if math.isnan(effect.value) else value


def _rule(claim: Claim, observations: pd.DataFrame) -> tuple[Verdict, Effect, str]:
    from factrecall.runtime.intervals import estimate

    effect = estimate(observations)
    if math.isnan(effect.value):
        return "not measurable", effect, "not measured in this study"
    if effect.seeds < SEEDS:
        return "inconclusive", effect, "one training run"
    if math.isnan(effect.low):
        return "inconclusive", effect, "no interval"
    sign = 1 if claim.comparison == "more" else -1
    ends = sorted(sign * (end - claim.bound) for end in (effect.low, effect.high))
    if ends[0] > 0:
        return "holds", effect, ""
    if ends[1] <= 0:
        return "does not hold", effect, ""
    return "inconclusive", effect, "the interval contains the bound"


def decide(parts: Mapping[str, Verdict]) -> tuple[Verdict, str]:
    """Return the verdict on a claim of several parts, and the part that decided it.

    It holds if all parts do, and does not hold if one does not.
    """
    order: tuple[Verdict, ...] = ("does not hold", "not measurable", "inconclusive", "holds")
    if not parts:
        return "not measurable", ""
    part = min(parts, key=lambda name: order.index(parts[name]))
    return parts[part], part


def _nothing() -> Effect:
    from factrecall.runtime.intervals import Effect

    return Effect(math.nan, math.nan, math.nan, 0, 0, "")


def tally(claims: Iterable[Judged]) -> Counter[Verdict]:
    """Count claims by verdict."""
    return Counter(claim.verdict for claim in claims)


def decidable(claims: Iterable[Judged]) -> int:
    """Count the claims that could hold: measured, with an interval over several seeds."""
    return sum(
        c.verdict != "not measurable" and c.seeds >= SEEDS and math.isfinite(c.low) for c in claims
    )


def by_chance(claims: Iterable[Judged]) -> float:
    """Return how many claims would hold by chance if every quantity lay at its bound."""
    return ERROR * decidable(claims)


def read_claims(table: pd.DataFrame) -> list[Judged]:
    """Return the rows of ``tables/claims.parquet``."""
    return [Judged(*row) for row in table[list(CLAIMS)].itertuples(index=False)]
