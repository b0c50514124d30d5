"""The axis of the scoreboard, common to all claims, and how their effects are written."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from factrecall.report.ledger import Judged
from factrecall.report.tables import MISSING

TICKS = (-100, -25, -4, 0, 4, 25, 100, 400)
LEAST, MOST = (-100, 400), (-30, 105)
"""Points that the axis never goes beyond, and those that it always holds."""

WIDTH, MARGIN = 320, 14
"""Pixels."""


class Scale(NamedTuple):
    """A signed square root of points: differences of one point and of eighty are both seen."""

    low: float
    high: float

    @classmethod
    def of(cls, claims: Iterable[Judged]) -> Scale:
        """Return the axis that holds all effects, intervals and published values."""
        shares = [s for c in claims for s in (c.value, c.low, c.high, c.published, c.bound)]
        points = [100 * share for share in shares if math.isfinite(share)]
        return cls(max(LEAST[0], min(MOST[0], *points)), min(LEAST[1], max(MOST[1], *points)))

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


def written(claim: Judged, *names: str) -> str:
    """Write fields of a claim in points (or per cent) as precisely as its effect needs."""
    known = [abs(s) for s in (claim.value, claim.low, claim.high) if math.isfinite(s)]
    decimals = 2 if known and max(known) < 0.01 else 1
    shares = [getattr(claim, name) for name in names]
    if not all(map(math.isfinite, shares)):
        return MISSING
    texts = [f"{100 * share:.{decimals}f}".replace("-", "\N{MINUS SIGN}") for share in shares]
    return " to ".join(texts) + ("\N{NO-BREAK SPACE}%" if claim.unit == "%" else "")
