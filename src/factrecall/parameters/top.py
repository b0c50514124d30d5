"""The largest of n scores, exactly, without sorting n and without a second array of n.

A float's bits, read as a signed integer with the negative ones turned round, are in the order of
the floats. Two histograms of 2¹⁶ bins, of the upper and of the lower half of these bits, find the
value that the last chosen score has; one more pass collects what lies above it, and of those
that equal it the first by index. Scores come tensor by tensor, three times, and are never held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch

from factrecall.errors import FactRecallError

Scores = Callable[[], Iterable[torch.Tensor]]
"""Yields the scores tensor by tensor, in the order of the space; the same at every call."""

_CHUNK = {"cpu": 1 << 19, "cuda": 1 << 26}
"""Scalars looked at at a time: what stays in a core's cache, and what keeps a GPU busy."""

_HALF = 1 << 16
_LOWEST = -(1 << 31)


def top(
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
    index : ndarray of `dtype`, shape (selected,)
        Flat indices, rising. Of equal scores the first by index are taken.
    value : ndarray of float32, shape (selected,)
        Their scores.

    Raises
    ------
    FactRecallError
        When a score is no number.
    """
    least, ties, count = _cut(scores, keep, positive)
    index, found = np.empty(count, dtype), np.empty(count, np.float32)
    done = start = 0
    for chunk in _chunks(scores):
        chosen = chunk >= least if ties else chunk > least
        # torch's own nonzero is slower than NumPy's, but a GPU's scores stay there.
        where = (
            np.flatnonzero(chosen.numpy())
            if chunk.device.type == "cpu"
            else chosen.nonzero().squeeze(1).cpu().numpy()
        )
        if len(where):
            value = chunk[torch.from_numpy(where).to(chunk.device)].cpu().numpy()
            equal = np.flatnonzero(value == least)
            if len(equal) > ties:  # more than are still wanted: the later ones go
                where, value = np.delete(where, equal[ties:]), np.delete(value, equal[ties:])
            ties -= min(ties, len(equal))
            part = slice(done, done + len(where))
            index[part] = where + start
            found[part] = value
            done = part.stop
        start += chunk.numel()
    return index, found


def falling(value: np.ndarray) -> np.ndarray:
    """Return the order of falling value, equal ones as they stand.

    Parameters
    ----------
    value : ndarray of float32, shape (count,)
        Not NaN; fewer than 2³².

    Returns
    -------
    ndarray of uint32, shape (count,)
        ``value[order]`` falls.
    """
    # Sorting one array of whole numbers that hold both value and position takes half the time of
    # a stable argsort.
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


def _ordered(chunk: torch.Tensor) -> torch.Tensor:
    """Return int32 in the order of the floats; adding zero makes minus zero equal to zero."""
    bits = (chunk + 0.0).view(torch.int32)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


def _cut(scores: Scores, keep: int, positive: bool) -> tuple[float, int, int]:
    """Return the least score chosen, how many that equal it are chosen, and how many in all."""
    upper = np.zeros(_HALF, dtype=np.int64)
    for chunk in _chunks(scores):
        upper += _counts((_ordered(chunk) >> 16) + _HALF // 2)
    # An infinity's bits are the last before those of "not a number", on both sides.
    if upper[0xFF81:].any() or upper[:0x007F].any():
        raise FactRecallError(
            "scores of parameters",
            "some are not numbers: the training they come from went astray",
            "lower its learning rate and run it again",
        )
    zero = _HALF // 2
    if positive:
        upper[:zero] = 0
    bin_, above = _last_bin(upper, keep)
    lower = np.zeros(_HALF, dtype=np.int64)
    for chunk in _chunks(scores):
        bits = _ordered(chunk)
        bits = bits[(bits >> 16) == bin_ - zero]
        if bits.numel():
            lower += _counts(bits & (_HALF - 1))
    if positive and bin_ == zero:
        lower[0] = 0
    part, more = _last_bin(lower, keep - above)
    found = torch.tensor([(bin_ - zero) * _HALF + part], dtype=torch.int32)
    least = (found ^ ((found >> 31) & 0x7FFFFFFF)).view(torch.float32)
    ties = int(min(lower[part], keep - above - more))
    return least.item(), ties, above + more + ties


def _counts(bins: torch.Tensor) -> np.ndarray:
    counted: np.ndarray = torch.bincount(bins, minlength=_HALF).cpu().numpy()
    return counted


def _last_bin(counts: np.ndarray, keep: int) -> tuple[int, int]:
    """Return the bin in which the `keep`-th largest lies, and how many lie above that bin."""
    from_above = np.cumsum(counts[::-1])
    last = min(
        int(np.searchsorted(from_above, keep)), int(np.searchsorted(from_above, from_above[-1]))
    )
    return _HALF - 1 - last, int(from_above[last] - counts[_HALF - 1 - last])
