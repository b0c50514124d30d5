"""Entry ranks: the k at which a parameter enters the intersection of two tasks' top k.

A parameter is in both tops when k reaches the worse of its two ranks, e = max(rank_BIO, rank_QA).
So one pass over two rankings gives |S_I(k)| for every k at once, and each S_I(k) is a prefix of
the parameters by e (method, section 4).
"""

from __future__ import annotations

import numpy as np


def entry_ranks(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the parameters that are in both rankings, and the k at which each is in both tops.

    Parameters
    ----------
    one, other : ndarray of uint32 or uint64, shape (ranked,)
        Flat indices, most influenced first.

    Returns
    -------
    index : ndarray, shape (common,)
        Rising.
    entry : ndarray of uint32 or int64, shape (common,)
        max(rank in one, rank in other), counted from 1.
    """
    a, rank_a = _by_index(one)
    b, rank_b = _by_index(other)
    if not len(a):
        return a, np.empty(0, dtype=rank_a.dtype)
    place = np.searchsorted(a, b)
    place[place == len(a)] = 0
    common = a[place] == b
    entry = np.maximum(rank_a[place[common]], rank_b[common])
    entry += entry.dtype.type(1)
    return b[common], entry


def _by_index(ranking: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sort a ranking by index; return it with the ranks, counted from 0."""
    if ranking.dtype != np.uint32:
        order = np.argsort(ranking, kind="stable")
        return ranking[order], order
    # Index and rank in one number: sorting those is twice as fast as sorting with an order.
    keys = ranking.astype(np.uint64) << np.uint64(32)
    keys |= np.arange(len(ranking), dtype=np.uint64)
    keys.sort()
    rank = keys.astype(np.uint32)
    keys >>= np.uint64(32)
    return keys.astype(np.uint32), rank


def union_of_entries(
    one: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Return entry ranks into the union of two growing sets: the better of the two."""
    index = np.concatenate([one[0], other[0]])
    entry = np.concatenate([one[1], other[1]])
    order = np.lexsort((entry, index))
    index, entry = index[order], entry[order]
    first = np.ones(len(index), dtype=bool)
    np.not_equal(index[1:], index[:-1], out=first[1:])
    return index[first], entry[first]


def sizes(entry: np.ndarray, ks: np.ndarray) -> np.ndarray:
    """Return, for each k, how many entry ranks are at most k."""
    return np.searchsorted(np.sort(entry), ks, side="right")


def log_grid(keep: int, k: int) -> np.ndarray:
    """Return 10, 20, 50, 100 … up to `keep`, which is in it, and so is `k`."""
    decades = 10 ** np.arange(1, 20, dtype=np.int64)[: len(str(keep))]
    grid = (decades[:, None] * np.array([1, 2, 5])).ravel()
    return np.unique(np.concatenate([grid[grid < keep], [min(k, keep), keep]]))
