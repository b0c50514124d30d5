"""Training examples as tokens, their order, and micro-batches of them, padded or packed.

*Padded* micro-batches are cut from an update's examples, sorted by length, so that the padded
tokens, plus a fixed cost for each pass, are fewest. Padding stands on the right of causal models:
no real token ever attends to it. A *packed* row holds examples end to end, so that hardly a token
is a filler: positions start at 0 in each example, and a token attends to those between the start
of its own example and itself. Flex attention takes that rule as it is (and skips blocks between
examples), every other attention as a mask. Kernels are compiled for a length, so packed rows of an
update are equally long, and there are few lengths in all. Both give each example the logits it has
alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from factrecall.models.chunked_head import loss_at
from factrecall.models.passes import cut, pad
from factrecall.runtime.seeds import generator

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask
    from transformers import PreTrainedModel

IGNORED = -100

FLEX = "flex_attention"
"""The library's name of the attention that takes block masks."""

BLOCK = 128
"""Tokens in a block of flex attention."""

LENGTHS = 16
"""How many lengths of packed rows there are; a sixteenth of the longest lies between them."""


@dataclass(frozen=True)
class Example:
    """One training sequence.

    Attributes
    ----------
    tokens : ndarray of int64, shape (length,)
    targets : ndarray of int64, shape (length,)
        `targets[i]` is the token to predict at position i, or ``IGNORED``.
    kind : str
        "bio" or "qa".
    individual : int
        Whose fact it states.
    """

    tokens: np.ndarray
    targets: np.ndarray
    kind: str
    individual: int

    @property
    def predicted(self) -> int:
        """Number of its tokens that are to be predicted."""
        return int((self.targets != IGNORED).sum())


@dataclass(frozen=True)
class MicroBatch:
    """Examples of one forward pass.

    Attributes
    ----------
    tokens : int64 tensor, shape (rows, length)
        Fillers are 0.
    where : int64 tensor, shape (targets,)
        Positions at which a token is predicted, counted row by row.
    targets : int64 tensor, shape (targets,)
        What is to be predicted there, example by example.
    members : list of Example
        In the order of their targets.
    starts : int64 tensor, shape (length,), optional
        Where the example of each token starts, in a packed row.
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
        fields = vars(self).items()
        tensors: dict[str, Any] = {k: change(v) for k, v in fields if isinstance(v, torch.Tensor)}
        return replace(self, **tensors)


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
    flat = pad([e.targets for e in members], IGNORED).flatten()
    where = torch.nonzero(flat != IGNORED)[:, 0]
    return MicroBatch(pad([e.tokens for e in members], 0), where, flat[where], list(members))


def pack(examples: Sequence[Example], most_tokens: int, multiple: int = 1) -> list[MicroBatch]:
    """Pack the examples of an update into rows, each a micro-batch.

    Parameters
    ----------
    examples : sequence of Example
        At least one.
    most_tokens : int
        Longest row; a longer example goes alone.
    multiple : int
        Lengths of rows are multiples of it.
    """
    lengths = [len(e.tokens) for e in examples]
    step = round_up(-(-most_tokens // LENGTHS), multiple)
    most = max(most_tokens, max(lengths))
    longest = round_up(most, multiple)
    # The shortest rows that do with as few rows as the longest would.
    length = min(round_up(-(-sum(lengths) // -(-sum(lengths) // most)), step), longest)
    fewest = len(first_fit(lengths, most))
    while len(groups := first_fit(lengths, max(length, *lengths))) > fewest and length < longest:
        length = min(length + step, longest)
    length = round_up(max(length, *lengths), multiple)
    return [packed([examples[i] for i in group], length) for group in groups]


def first_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Return a first-fit-decreasing bin packing: positions in `lengths`, by bin."""
    bins: list[list[int]] = []
    room = np.empty(0, dtype=np.int64)
    for i in np.argsort(-np.asarray(lengths), kind="stable").tolist():
        fitting = np.flatnonzero(room >= lengths[i])
        if not len(fitting):
            bins.append([])
            room = np.append(room, capacity)
            fitting = np.array([len(bins) - 1])
        bins[fitting[0]].append(i)
        room[fitting[0]] -= lengths[i]
    return bins


def packed(members: Sequence[Example], length: int) -> MicroBatch:
    """Put examples end to end in one row; fillers are like one more example, without targets."""
    sizes = [len(e.tokens) for e in members]
    tokens, targets = np.zeros(length, np.int64), np.full(length, IGNORED, np.int64)
    tokens[: sum(sizes)] = np.concatenate([e.tokens for e in members])
    targets[: sum(sizes)] = np.concatenate([e.targets for e in members])
    sizes.append(length - sum(sizes))
    starts = np.repeat(np.cumsum([0, *sizes[:-1]]), sizes)
    where = np.flatnonzero(targets != IGNORED)
    found = [torch.from_numpy(array) for array in (tokens, where, targets[where], starts)]
    return MicroBatch(found[0][None], found[1], found[2], list(members), found[3])


def positions(starts: torch.Tensor) -> torch.Tensor:
    """Return each token's position in its example, shape (1, length)."""
    return (torch.arange(len(starts), device=starts.device) - starts)[None]


def scores_mask(starts: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return what is added to attention scores, shape (1, 1, length, length)."""
    place = torch.arange(len(starts), device=starts.device)
    hidden = (place[None] > place[:, None]) | (place[None] < starts[:, None])
    # The least number of every type, so that autocast makes no infinity of it.
    least = torch.finfo(torch.bfloat16).min
    mask = torch.zeros(hidden.shape, dtype=dtype, device=starts.device)
    return mask.masked_fill_(hidden, least)[None, None]


def block_mask(starts: torch.Tensor) -> BlockMask:
    """Return the same for flex attention; the row is a multiple of ``BLOCK`` long.

    A block of queries attends to the blocks from that in which its first token's example starts
    to itself, so which blocks these are is known without a look at pairs of tokens.
    """
    from torch.nn.attention.flex_attention import BlockMask

    def mask(batch: object, head: object, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        return (key <= query) & (key >= starts[query])

    first = starts[::BLOCK] // BLOCK
    number = torch.arange(len(first), device=starts.device)
    # Entries behind the number of those that count are not read, but must be blocks.
    seen = (first[:, None] + number).clamp_(max=len(first) - 1)
    return BlockMask.from_kv_blocks(
        (number - first + 1).int()[None, None],
        seen.int()[None, None],
        BLOCK_SIZE=BLOCK,
        mask_mod=mask,
        seq_lengths=(len(starts), len(starts)),
    )


def round_up(number: int, multiple: int) -> int:
    """Return the least multiple that is no less than a number."""
    return -(-number // multiple) * multiple


def batch_loss(model: PreTrainedModel, batch: MicroBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the sum of the losses of a micro-batch on its model's device, and each by itself.

    See `loss_at`.
    """
    more: dict[str, Any] = {}
    if (starts := batch.starts) is not None:
        flex = model.config._attn_implementation == FLEX
        mask = block_mask(starts) if flex else scores_mask(starts, model.dtype)
        more = {"position_ids": positions(starts), "attention_mask": mask}
    return loss_at(model, batch.tokens, batch.where, batch.targets, **more)


def example_loss(model: PreTrainedModel, batch: MicroBatch) -> torch.Tensor:
    """Return the mean loss of the targets of a micro-batch of one example, with its graph."""
    return batch_loss(model, batch)[0] / len(batch.targets)
