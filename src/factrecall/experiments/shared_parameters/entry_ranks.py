"""Entry ranks: the k at which a parameter enters the intersection of two tasks' top k.

A parameter is in both tops when k reaches the worse of its two ranks, e = max(rank_BIO, rank_QA).
One pass over two rankings gives |S_I(k)| for every k at once (docs/method.md). Entry ranks are
kept by index, for the parameters of one of the rankings.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

_CHUNK = 1 << 18
"""Parameters of a chunk: what stays in a core's cache."""


class Ranked(NamedTuple):
    """A ranking sorted by index: ascending flat indices and their ranks, counted from 1."""

    at: np.ndarray
    rank: np.ndarray


def by_index(ranking: np.ndarray) -> Ranked:
    """Sort a ranking by index.

    Parameters
    ----------
    ranking : ndarray of uint32 or uint64, shape (ranked,)
        Flat indices, most influenced first; fewer than 2³² − 1.

    Notes
    -----
    Memory: 16 bytes a ranked parameter, of which 8 are kept (32 and 16 of uint64).
    """
    if ranking.dtype != np.uint32:
        order = np.argsort(ranking, kind="stable")
        index = ranking[order]
        order += 1
        return Ranked(index, order)
    # Index and rank in one number: sorting those is twice as fast as sorting with an order.
    keys = ranking.astype(np.uint64)
    keys <<= np.uint64(32)
    for part in _parts(len(keys)):
        keys[part] |= np.arange(part.start + 1, part.stop + 1, dtype=np.uint64)
    keys.sort()
    rank = keys.astype(np.uint32)
    keys >>= np.uint64(32)
    return Ranked(keys.astype(np.uint32), rank)


def entries(question: Ranked, statement: Ranked) -> np.ndarray:
    """Return the k at which each parameter of `question` is in the tops of both rankings.

    Returns
    -------
    ndarray of the dtype of ranks, shape (ranked,)
        The larger of its ranks; `never` where it is in one ranking only.
    """
    found = np.full(len(question.at), never(question.rank), dtype=question.rank.dtype)
    for part in _parts(len(statement.at) if len(found) else 0):
        place = np.searchsorted(question.at, statement.at[part])
        place[place == len(found)] = 0
        common = question.at[place] == statement.at[part]
        place = place[common]
        found[place] = np.maximum(question.rank[place], statement.rank[part][common])
    return found


def never(entry: np.ndarray) -> int:
    """Return what stands for a parameter that enters at no k."""
    return int(np.iinfo(entry.dtype).max)


def sizes(entry: np.ndarray, ks: np.ndarray) -> np.ndarray:
    """Return, for each k, how many entry ranks are at most k; int64."""
    found = np.zeros(len(ks), dtype=np.int64)
    for part in _parts(len(entry)):
        found += [np.count_nonzero(entry[part] <= k) for k in ks.astype(entry.dtype)]
    return found


def log_grid(keep: int, k: int) -> np.ndarray:
    """Return 10, 20, 50, 100 … up to `keep`, which is in it, and so is `k`."""
    decades = 10 ** np.arange(1, 20, dtype=np.int64)[: len(str(keep))]
    grid = (decades[:, None] * np.array([1, 2, 5])).ravel()
    return np.unique(np.concatenate([grid[grid < keep], [min(k, keep), keep]]))


def _parts(length: int) -> Iterator[slice]:
    for start in range(0, length, _CHUNK):
        yield slice(start, min(start + _CHUNK, length))
