"""Examples laid end to end in rows, so that hardly a token is a filler.

No example sees another: positions begin anew with each, and a token attends to those between the
beginning of its own example and itself. That is one rule about one number a token, which PyTorch's
flex attention takes as it is (and passes over blocks between examples), and every other attention
as a mask. Rows of an update are equally long, and of few lengths in all, since kernels are compiled
for a length.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from factrecall.training.batches import IGNORED, Example, MicroBatch

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

BLOCK = 128
"""Tokens in a block of flex attention."""

LENGTHS = 16
"""How many lengths of rows there are; a sixteenth of the longest lies between them."""


def lay(examples: Sequence[Example], most_tokens: int, multiple: int = 1) -> list[MicroBatch]:
    """Lay the examples of an update into rows, each a micro-batch.

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
    step = _up(-(-most_tokens // LENGTHS), multiple)
    most = max(most_tokens, max(lengths))
    # The shortest rows that do with as few rows as the longest would.
    length = min(_up(-(-sum(lengths) // -(-sum(lengths) // most)), step), _up(most, multiple))
    fewest = len(fill(lengths, most))
    longest = _up(most, multiple)
    while len(groups := fill(lengths, max(length, max(lengths)))) > fewest and length < longest:
        length = min(length + step, longest)
    length = _up(max(length, max(lengths)), multiple)
    return [row([examples[i] for i in group], length) for group in groups]


def fill(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Put things into bins, the longest first, each into the first bin that has room for it.

    Returns
    -------
    list of lists of int
        Positions in `lengths`, by bin.
    """
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


def row(members: Sequence[Example], length: int) -> MicroBatch:
    """Lay examples end to end in one row; fillers are like one more example, without targets."""
    sizes = [len(e.tokens) for e in members]
    tokens, targets = np.zeros(length, np.int64), np.full(length, IGNORED, np.int64)
    tokens[: sum(sizes)] = np.concatenate([e.tokens for e in members])
    targets[: sum(sizes)] = np.concatenate([e.targets for e in members])
    sizes.append(length - sum(sizes))
    starts = np.repeat(np.cumsum([0, *sizes[:-1]]), sizes)
    where = np.flatnonzero(targets != IGNORED)
    return MicroBatch(
        torch.from_numpy(tokens)[None],
        torch.from_numpy(where),
        torch.from_numpy(targets[where]),
        list(members),
        torch.from_numpy(starts),
    )


def positions(starts: torch.Tensor) -> torch.Tensor:
    """Return each token's place in its example, shape (1, length)."""
    return (torch.arange(len(starts), device=starts.device) - starts)[None]


def scores_mask(starts: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return what is added to attention scores, shape (1, 1, length, length)."""
    place = torch.arange(len(starts), device=starts.device)
    hidden = (place[None] > place[:, None]) | (place[None] < starts[:, None])
    # The least number of every type, so that autocast makes no infinity of it.
    least = torch.finfo(torch.bfloat16).min
    return torch.zeros(hidden.shape, dtype=dtype, device=starts.device).masked_fill_(hidden, least)[
        None, None
    ]


def block_mask(starts: torch.Tensor) -> BlockMask:
    """Return the same for flex attention; the row is a multiple of ``BLOCK`` long.

    A block of queries sees the blocks from that in which its first token's example begins to
    itself, so which blocks these are is known without looking at pairs of tokens.
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


def _up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
