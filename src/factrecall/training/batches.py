"""Examples as tokens, the order they are seen in, and micro-batches that waste no padding.

An update's examples are sorted by length and cut into micro-batches so that the padded tokens,
plus a fixed cost for each pass, are fewest. Padding stands on the right of causal models: no
real token ever attends to it, so each example's logits are those it has alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch

from factrecall.models.passes import cut, pad
from factrecall.runtime.seeds import generator

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

    @property
    def predicted(self) -> int:
        """How many of its tokens are to be predicted."""
        return int((self.targets != IGNORED).sum())


@dataclass(frozen=True)
class MicroBatch:
    """Examples that pass through a model together.

    Attributes
    ----------
    tokens : int64 tensor, shape (rows, length)
        Token ids; fillers are 0.
    where : int64 tensor, shape (targets,)
        Positions at which a token is predicted, counted row by row.
    targets : int64 tensor, shape (targets,)
        What is to be predicted there, example by example.
    members : list of Example
        In the order of their targets.
    starts : int64 tensor, shape (length,), optional
        Where the example of each token begins, if examples share a row (see `rows`).
    """

    tokens: torch.Tensor
    where: torch.Tensor
    targets: torch.Tensor
    members: list[Example]
    starts: torch.Tensor | None = None

    def idle(self) -> MicroBatch:
        """Return the same without targets and members: a pass of it changes nothing."""
        return replace(self, where=self.where[:0], targets=self.targets[:0], members=[])

    def pinned(self) -> MicroBatch:
        """Return the same in page-locked memory, from which a GPU copies by itself."""
        return self._each(torch.Tensor.pin_memory)

    def to(self, device: torch.device) -> MicroBatch:
        """Return the same on a device; a copy from pinned memory is not waited for."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def _each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> MicroBatch:
        return MicroBatch(
            change(self.tokens),
            change(self.where),
            change(self.targets),
            self.members,
            None if self.starts is None else change(self.starts),
        )


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


def micro_batches(examples: Sequence[Example], most_tokens: int) -> list[MicroBatch]:
    """Cut the examples of an update into padded micro-batches (see `cut`)."""
    groups = cut([len(e.tokens) for e in examples], most_tokens)
    return [padded([examples[i] for i in group]) for group in groups]


def padded(members: Sequence[Example]) -> MicroBatch:
    """Give each example a row of its own."""
    wanted = pad([e.targets for e in members], IGNORED)
    flat = wanted.flatten()
    where = torch.nonzero(flat != IGNORED)[:, 0]
    return MicroBatch(pad([e.tokens for e in members], 0), where, flat[where], list(members))
