"""Prefix sharing: the common prefix and the own suffixes of several texts in one row.

Questions of one relation differ by the name and the answer only. A row holds the common prefix
once, then each text's suffix, at the positions it would have alone; a suffix attends to the prefix
and to itself (tree attention with one level). So every token's logits are those of its text alone,
up to the order in which attention adds.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import torch

ROW_TOKENS = 64
"""Longest row of several texts: attention is quadratic in it (48 to 96 are about as quick)."""


class Row(NamedTuple):
    """Texts in one row.

    Attributes
    ----------
    texts : tuple of int
        Which texts, in the order of their suffixes.
    shared : int
        Tokens of their common prefix; 0 if there is one text only.
    """

    texts: tuple[int, ...]
    shared: int


def pack(
    texts: Sequence[np.ndarray], own: Sequence[int], most_tokens: int = ROW_TOKENS
) -> list[Row]:
    """Put texts into rows with the fewest tokens in all, and then the fewest and most even rows.

    Rows are runs of the sorted texts; where `most_tokens` binds, rows of texts that are not
    neighbours might have fewer tokens still.

    Parameters
    ----------
    texts : sequence of ndarray of int64
        Tokens of each text.
    own : sequence of int
        The first position of each text that must not be shared: where an answer is predicted.
    most_tokens : int
        Longest row of several texts; a longer text goes alone.
    """
    order = sorted(range(len(texts)), key=lambda i: texts[i].tolist())
    alike = [0, *(_common(texts[a], texts[b]) for a, b in pairwise(order))]
    # best[j]: least (tokens, rows, squares of their lengths) of the first j texts in this order, of
    # which the last row holds those from start[j] on.
    best, start, shared = [(0, 0, 0)], [0], [0]
    for j in range(1, len(order) + 1):
        common = min(len(texts[order[j - 1]]), own[order[j - 1]])
        total, found = 0, []
        for i in range(j - 1, -1, -1):
            common = min(common, own[order[i]])
            total += len(texts[order[i]])
            tokens = total - (j - i - 1) * common
            if j - i > 1 and (not common or tokens > most_tokens):
                break
            cost = best[i][0] + tokens, best[i][1] + 1, best[i][2] + tokens**2
            found.append((cost, i, common if j - i > 1 else 0))
            common = min(common, alike[i])
        least, first, length = min(found)
        best.append(least)
        start.append(first)
        shared.append(length)
    result, j = [], len(order)
    while j:
        result.append(Row(tuple(order[start[j] : j]), shared[j]))
        j = start[j]
    return result[::-1]


def _common(a: np.ndarray, b: np.ndarray) -> int:
    length = min(len(a), len(b))
    differ = np.flatnonzero(a[:length] != b[:length])
    return int(differ[0]) if len(differ) else length


def layout(rows: Sequence[Row], lengths: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return positions and attention of rows padded on the right to the longest.

    `lengths` are the tokens of each text, by its number.

    Returns
    -------
    positions : int64 tensor, shape (rows, length)
        Of each token in its text.
    attends : bool tensor, shape (rows, 1, length, length)
        Whether the token of the third axis attends to that of the fourth.
    """
    import torch

    sizes = [row.shared + sum(lengths[i] - row.shared for i in row.texts) for row in rows]
    positions = np.zeros((len(rows), max(sizes)), dtype=np.int64)
    text = np.full(positions.shape, -1)  # 0 the prefix, 1, 2, … the suffixes, -1 padding
    for row, (texts, shared) in enumerate(rows):
        positions[row, :shared] = np.arange(shared)
        text[row, :shared] = 0
        at = shared
        for number, i in enumerate(texts, start=1):
            end = at + lengths[i] - shared
            positions[row, at:end] = np.arange(shared, lengths[i])
            text[row, at:end] = number
            at = end
    mine = text[:, :, None] == text[:, None, :]
    attends = np.tril(mine | (text == 0)[:, None, :])
    return torch.from_numpy(positions), torch.from_numpy(attends)[:, None]
