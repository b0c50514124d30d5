"""Examples as tokens, the order they are seen in, and micro-batches that waste no padding.

An update's examples are sorted by length and cut into micro-batches so that the padded tokens,
plus a fixed cost for each pass, are fewest. Padding stands on the right of causal models: no
real token ever attends to it, so each example's logits are those it has alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from factrecall.seeds import generator

PASS_COST = 96
"""What one more forward and backward pass costs, in tokens (measured on 1M parameters, CPU)."""

IGNORED = -100


@dataclass(frozen=True)
class Example:
    """One training sequence.

    Attributes
    ----------
    tokens : ndarray of int64, shape (length,)
        Token ids.
    targets : ndarray of int64, shape (length,)
        `targets[i]` is the token to predict at position i, or ``IGNORED``.
    kind : str
        "bio" or "qa".
    individual : int
        Whose fact it tells.
    """

    tokens: np.ndarray
    targets: np.ndarray
    kind: str
    individual: int


def batch_indices(examples: int, batch_size: int, update: int, seed: int) -> np.ndarray:
    """Return which examples update number `update` (from 0) sees.

    Every pass over the data is a fresh permutation, and passes follow each other without a gap,
    so a batch may span two. The answer depends on the arguments alone: a resumed run needs no
    state of a sampler.
    """
    positions = np.arange(update * batch_size, (update + 1) * batch_size)
    epochs = positions // examples
    parts = [
        _permutation(examples, int(epoch), seed)[positions[epochs == epoch] % examples]
        for epoch in np.unique(epochs)
    ]
    return np.concatenate(parts)


@lru_cache(maxsize=4)
def _permutation(examples: int, epoch: int, seed: int) -> np.ndarray:
    return generator(seed, "order", epoch).permutation(examples)


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
        Positions in `lengths`; each position once.
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
    j = count
    while j > 0:
        groups.append(order[start[j] : j])
        j = int(start[j])
    return groups[::-1]


def pad(rows: Sequence[np.ndarray], filler: int) -> torch.Tensor:
    """Stack rows to an int64 tensor of shape (rows, longest), filled up on the right."""
    result = np.full((len(rows), max(map(len, rows))), filler, dtype=np.int64)
    for i, row in enumerate(rows):
        result[i, : len(row)] = row
    return torch.from_numpy(result)


def micro_batches(
    examples: Sequence[Example], most_tokens: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor, list[Example]]]:
    """Yield (tokens, targets, examples) of each micro-batch of one update."""
    for group in cut([len(e.tokens) for e in examples], most_tokens):
        members = [examples[i] for i in group]
        yield (
            pad([e.tokens for e in members], 0),
            pad([e.targets for e in members], IGNORED),
            members,
        )
