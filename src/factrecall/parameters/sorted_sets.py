"""Set operations on sorted, unique index arrays, and draws from them.

Time and memory are proportional to the arrays, never to the space the numbers are from.
"""

from __future__ import annotations

import numpy as np


def _merged(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    joined = np.concatenate([a, b])
    joined.sort(kind="stable")  # merges two sorted runs in one pass
    return joined


def union(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return what is in `a` or in `b`."""
    joined = _merged(a, b)
    first = np.ones(len(joined), dtype=bool)
    np.not_equal(joined[1:], joined[:-1], out=first[1:])
    return joined[first]


def intersection(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return what is in `a` and in `b`."""
    joined = _merged(a, b)
    twice: np.ndarray = np.equal(joined[1:], joined[:-1])
    found: np.ndarray = joined[1:][twice]
    return found


def symmetric_difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return what is in one of the two only."""
    joined = _merged(a, b)
    alone = np.ones(len(joined), dtype=bool)
    differs = joined[1:] != joined[:-1]
    alone[1:] &= differs
    alone[:-1] &= differs
    return joined[alone]


def is_member(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return for each of `a` whether it is in `b`."""
    if not len(b):
        return np.zeros(len(a), dtype=bool)
    place = np.searchsorted(b, a)
    place[place == len(b)] = 0
    return np.asarray(b[place] == a)


def difference(before: np.ndarray, after: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return what only `after` has and what only `before` has, of numbers below `size`."""
    if 16 * max(len(before), len(after)) < size:
        differs = symmetric_difference(before, after)
        enters = is_member(differs, after)
        return differs[enters], differs[~enters]
    # Where many are chosen, a byte for each scalar of the tensor is quicker than merging.
    was, is_ = np.zeros((2, size), dtype=bool)
    was[before], is_[after] = True, True
    return np.flatnonzero(is_ > was), np.flatnonzero(was > is_)


def sample_sorted(population: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """Draw `size` different numbers below `population`, sorted, in memory of about `size`."""
    if 2 * size > population:
        left = sample_sorted(population, population - size, rng)
        return np.delete(np.arange(population), left)
    drawn = np.empty(0, dtype=np.int64)
    while len(drawn) < size:
        # The order of drawing does not matter, as long as the surplus goes at random.
        more = rng.integers(0, population, size=size - len(drawn) + size // 8 + 8)
        drawn = np.unique(np.concatenate([drawn, more]))
    surplus = rng.choice(len(drawn), size=len(drawn) - size, replace=False)
    return np.delete(drawn, surplus)


def skip(positions: np.ndarray, left_out: np.ndarray) -> np.ndarray:
    """Return the numbers at these positions of those that `left_out` leaves."""
    # The j-th number left out has left_out[j] - j numbers before it that are not.
    before = left_out.astype(np.int64) - np.arange(len(left_out))
    return np.asarray(positions + np.searchsorted(before, positions, side="right"))
