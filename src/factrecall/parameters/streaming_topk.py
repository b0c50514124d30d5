"""The largest of n scores, exactly, in one pass over a stream of tensors, without sorting n.

Scores above the least of the best so far go to a buffer; when it is full, only the best are kept.
Of equal scores the first by index count, and the stream is in that order. Of n scores in random
order about keep · (1 + ln(n / keep)) pass through the buffer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch

from factrecall.runtime.errors import FactRecallError

Scores = Callable[[], Iterable[torch.Tensor]]
"""Yields the scores tensor by tensor, in the order of the space; it is called once."""

_CHUNK = {"cpu": 1 << 16, "cuda": 1 << 24}
"""Scalars of a chunk: what stays in a core's cache, and what keeps a GPU busy."""

_ROOM = 1 << 19
"""Least room of the buffer, beside those that are kept."""

_SAMPLE = 1 << 16
"""Numbers sorted to estimate a rank."""

_LOWEST = -(1 << 31)


def top_k(
    scores: Scores, keep: int, dtype: np.dtype | type = np.uint64, *, positive: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Select the largest of many scores.

    Parameters
    ----------
    scores : callable
        Yields tensors of any shape and floating dtype, at most float32 in precision.
    keep : int
        How many to select at most.
    dtype : dtype
        Of the index; it must hold the number of scores.
    positive : bool
        Select scores above zero only.

    Returns
    -------
    index, value : ndarray of `dtype` and of float32, shape (selected,)
        Ascending flat indices and their scores; of equal scores the first are taken.

    Raises
    ------
    FactRecallError
        When a score is not a number.

    Notes
    -----
    Memory: 13 bytes a selected parameter while selecting (19 with uint64), 8 (12) at the end.
    """
    best = _Best(keep, np.dtype(dtype), positive)
    start = 0
    for chunk in _chunks(scores):
        best.offer(chunk, start)
        start += chunk.numel()
    return best.end()


class _Best:
    """Buffer of the largest scores so far and others that may be among them."""

    def __init__(self, keep: int, dtype: np.dtype, positive: bool) -> None:
        self._keep = keep
        # Pages that nothing is written to are none: a short stream takes no more than it has.
        room = keep + max(keep // 2, _ROOM)
        self._index, self._value = np.empty(room, dtype), np.empty(room, np.float32)
        self._count = 0
        self._least: float | None = 0.0 if positive else None  # only what is larger is wanted

    def offer(self, chunk: torch.Tensor, start: int) -> None:
        """Add a chunk of scores, the first of which has this index."""
        if not chunk.numel():
            return
        scores: Any = chunk.numpy() if chunk.device.type == "cpu" else chunk
        highest = float(scores.max())
        if math.isnan(highest):
            raise FactRecallError(
                "scores of parameters",
                "some are not numbers: the training they come from went astray",
                "lower its learning rate and run it again",
            )
        if self._least is not None and highest <= self._least:
            return
        wanted = scores > self._least if self._least is not None else scores == scores
        if isinstance(wanted, torch.Tensor):
            there = wanted.nonzero().squeeze(1)
            self._add(there.cpu().numpy(), scores[there].cpu().numpy(), start)
        else:  # torch's own nonzero is slower
            where = np.flatnonzero(wanted)
            self._add(where, scores[where], start)

    def _add(self, where: np.ndarray, value: np.ndarray, start: int) -> None:
        while len(where):
            if self._count == len(self._index):
                self._drop()
                wanted = value > self._least
                where, value = where[wanted], value[wanted]
            part = slice(0, len(self._index) - self._count)
            taken = slice(self._count, self._count + len(where[part]))
            np.add(where[part], start, out=self._index[taken], casting="unsafe")
            self._value[taken] = value[part]
            self._count = taken.stop
            where, value = where[part.stop :], value[part.stop :]

    def _drop(self) -> None:
        """Drop all but the best."""
        value = self._value[: self._count]
        least = _at_rank(value, self._keep)
        ties = self._keep - sum(np.count_nonzero(value[part] > least) for part in _parts(value))
        done = 0
        for part in _parts(value):
            chosen = value[part] > least
            equal = np.flatnonzero(value[part] == least)[:ties]
            chosen[equal] = True
            ties -= len(equal)
            where = np.flatnonzero(chosen)  # twice as quick as a mask
            for array in (self._index, self._value):  # never beyond what was read
                array[done : done + len(where)] = array[part][where]
            done += len(where)
        self._count, self._least = done, float(least)

    def end(self) -> tuple[np.ndarray, np.ndarray]:
        """Return index and value of the best."""
        if self._count > self._keep:
            self._drop()
        for array in (self._index, self._value):
            array.resize(self._count, refcheck=False)  # in place
        return self._index, self._value


def _at_rank(value: np.ndarray, rank: int) -> np.float32:
    """Return the `rank`-th largest: between two numbers of a sample, or of all if it is not."""
    sample = np.sort(value[:: -(-len(value) // _SAMPLE)])[::-1]
    expected, margin = rank * len(sample) // len(value), len(sample) // 100
    high = sample[max(expected - margin, 0)]
    low = sample[min(expected + margin, len(sample) - 1)]
    above, between = 0, list[np.ndarray]()
    for part in _parts(value):
        some = value[part]
        above += int(np.count_nonzero(some > high))
        between.append(some[np.flatnonzero((some <= high) & (some >= low))])
    among, left = np.concatenate(between), rank - above
    if not 0 < left <= len(among):
        among, left = value, rank
    found: np.float32 = np.partition(among, len(among) - left)[len(among) - left]
    return found


def _parts(array: np.ndarray) -> Iterator[slice]:
    for start in range(0, len(array), _CHUNK["cpu"]):
        yield slice(start, min(start + _CHUNK["cpu"], len(array)))


def argsort_descending(value: np.ndarray) -> np.ndarray:
    """Return the stable order of descending values; uint32, shape (count,).

    `value` is float32 without NaN, of fewer than 2³² numbers.
    """
    # Sorting integers that hold both value and position takes half the time of a stable argsort.
    bits = (value + np.float32(0)).view(np.int32)  # minus zero becomes zero
    bits ^= (bits >> 31) & 0x7FFFFFFF
    np.invert(bits, out=bits)
    bits ^= np.int32(_LOWEST)
    keys = bits.view(np.uint32).astype(np.uint64)
    keys <<= np.uint64(32)
    keys |= np.arange(len(value), dtype=np.uint32)
    keys.sort()
    return keys.astype(np.uint32)


def _chunks(scores: Scores) -> Iterator[torch.Tensor]:
    for tensor in scores():
        flat = tensor.detach().reshape(-1)
        size = _CHUNK.get(flat.device.type, _CHUNK["cpu"])
        for part in flat.split(size) if flat.numel() else ():
            yield part.float()
