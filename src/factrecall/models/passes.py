"""Passes of a model: how sequences are batched, and how many logits they may have.

It loads PyTorch only to pad, since cost estimates use it, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

PASS_COST = 96
"""What one more forward and backward pass costs, in tokens (measured on 1M parameters, CPU)."""

LOGITS = 2**27
"""How many logits there are at most at a time: half a gigabyte in float32."""


def cut(lengths: Sequence[int], most_tokens: int, pass_cost: int = PASS_COST) -> list[np.ndarray]:
    """Group sequences into micro-batches with the least padded tokens plus pass costs.

    Parameters
    ----------
    lengths : sequence of int
        Length of each sequence in tokens.
    most_tokens : int
        Largest padded size (rows × longest) of a micro-batch; a longer sequence goes alone.
    pass_cost : int
        Cost of one more micro-batch, in tokens.

    Returns
    -------
    list of ndarray of int64
        Positions in `lengths`, each once.
    """
    order = np.argsort(lengths, kind="stable")
    sizes = np.asarray(lengths)[order]
    count = len(sizes)
    # best[j]: least cost of the j shortest; the last group of them is i..j-1, padded to sizes[j-1]
    best = np.zeros(count + 1)
    start = np.zeros(count + 1, dtype=np.int64)
    for j in range(1, count + 1):
        first = max(0, j - max(1, most_tokens // sizes[j - 1]))
        cost = best[first:j] + np.arange(j - first, 0, -1) * sizes[j - 1] + pass_cost
        start[j] = first + int(np.argmin(cost))
        best[j] = cost[start[j] - first]
    groups = []
    while count:
        groups.append(order[start[count] : count])
        count = int(start[count])
    return groups[::-1]


def pad(rows: Sequence[np.ndarray], filler: int) -> torch.Tensor:
    """Stack rows to an int64 tensor of shape (rows, longest), filled up on the right."""
    import torch

    result = np.full((len(rows), max(map(len, rows))), filler, dtype=np.int64)
    for i, row in enumerate(rows):
        result[i, : len(row)] = row
    return torch.from_numpy(result)
