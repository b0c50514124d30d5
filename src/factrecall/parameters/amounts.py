"""Amounts of parameters: a count, or a fraction of all."""

from __future__ import annotations


def absolute_count(amount: int | float, n: int) -> int:
    """Return a count, or a fraction of n, as a count from 1 to n."""
    return min(n, max(1, amount if isinstance(amount, int) else round(amount * n)))
