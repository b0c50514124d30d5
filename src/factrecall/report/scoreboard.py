"""The scoreboard: every claim's effect, interval and bound beside the published value, on one axis.

The axis is a signed square root, in points: differences of one point and of eighty are both seen.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from factrecall.report.ledger import Judged
from factrecall.report.tables import MISSING

TICKS = (-100, -25, -4, 0, 4, 25, 100, 400)
LEAST, MOST = (-100, 400), (-30, 105)
"""Points that the axis never goes beyond, and those that it always holds."""

WIDTH, MARGIN = 320, 14


class Marks(NamedTuple):
    """Where a row's marks stand, in pixels; None: there is no such mark.

    `side` is the start and width of the stretch in which all of the interval must be; `beyond` are
    the ends of the axis, -1 and 1, that the interval goes beyond.
    """

    value: float | None
    low: float | None
    high: float | None
    bound: float
    published: float | None
    side: tuple[float, float]
    beyond: list[int]


@dataclass(frozen=True)
class Scale:
    """The common axis of some claims, from `low` to `high` points."""

    low: float
    high: float

    @classmethod
    def of(cls, claims: Iterable[Judged]) -> Scale:
        """Return the axis that holds all effects, intervals and published values."""
        shares = [s for c in claims for s in (c.value, c.low, c.high, c.published, c.bound)]
        points = [100 * share for share in shares if math.isfinite(share)]
        return cls(max(LEAST[0], min(MOST[0], *points, 0)), min(LEAST[1], max(MOST[1], *points, 0)))

    @property
    def ticks(self) -> list[tuple[str, float]]:
        """The labels of the axis, and where they stand."""
        shown = [tick for tick in TICKS if self.low <= tick <= self.high]
        return [(f"{t}".replace("-", "\N{MINUS SIGN}"), self.place(t / 100)) for t in shown]

    def place(self, share: float) -> float:
        """Return where a share stands, in pixels; what is beyond an end stands at the end."""
        low, at, high = (
            math.copysign(math.sqrt(abs(p)), p)
            for p in (self.low, min(max(100 * share, self.low), self.high), self.high)
        )
        return round(MARGIN + (WIDTH - 2 * MARGIN) * (at - low) / (high - low), 1)

    def marks(self, claim: Judged) -> Marks:
        """Return the marks of a claim's row."""
        value, low, high, published = (
            self.place(share) if math.isfinite(share) else None
            for share in (claim.value, claim.low, claim.high, claim.published)
        )
        bound = self.place(claim.bound)
        more = claim.comparison == "more"
        side = (bound, WIDTH - bound) if more else (0.0, bound)
        beyond = [-1] * (100 * claim.low < self.low) + [1] * (100 * claim.high > self.high)
        return Marks(value, low, high, bound, published, side, beyond)


def written(claim: Judged, *names: str) -> str:
    """Write fields of a claim in points (or per cent) as precisely as its effect needs."""
    known = [abs(s) for s in (claim.value, claim.low, claim.high) if math.isfinite(s)]
    decimals = 2 if known and max(known) < 0.01 else 1
    shares = [getattr(claim, name) for name in names]
    if not all(math.isfinite(share) for share in shares):
        return MISSING
    texts = [f"{100 * share:.{decimals}f}".replace("-", "\N{MINUS SIGN}") for share in shares]
    return " to ".join(texts) + ("\N{NO-BREAK SPACE}%" if claim.unit == "%" else "")


def described(claim: Judged) -> str:
    """Describe a claim's row for who cannot see it."""
    said = f"Effect {written(claim, 'value')}, 95 % interval {written(claim, 'low', 'high')}, "
    said += f"claimed: {claim.comparison} than {written(claim, 'bound')}"
    paper = written(claim, "published")
    return said if paper == MISSING else f"{said}, published: {paper}"
