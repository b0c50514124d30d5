"""Loader of a training's updates: which examples each sees, batched before they are needed.

On a GPU a thread prepares them in page-locked memory while the updates before are computed, so
that the GPU copies without waiting. On a CPU, where the thread would only take time from the
computation, each is prepared when it is asked for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

import torch

from factrecall.training.batches import (
    BLOCK,
    Example,
    MicroBatch,
    batch_indices,
    micro_batches,
    pack,
    packed,
    padded,
    round_up,
)
from factrecall.training.optimisers import learning_rate

if TYPE_CHECKING:
    from factrecall.config.training import Recipe
    from factrecall.training.distributed import DistributedStrategy
    from factrecall.training.trace import GradientTrace

AHEAD = 2
"""How many updates are prepared in advance on a GPU."""


@dataclass(frozen=True)
class Update:
    """What one update sees.

    Attributes
    ----------
    number : int
        From 0.
    rate : float
        Learning rate.
    examples : list of Example
        The whole batch.
    targets : int
        Tokens to be predicted in the whole batch.
    batches : list of MicroBatch
        This process's part of it.
    traced : list of (str, MicroBatch)
        Tasks, and examples whose gradient is traced, each by itself.
    """

    number: int
    rate: float
    examples: list[Example]
    targets: int
    batches: list[MicroBatch]
    traced: list[tuple[str, MicroBatch]]


@dataclass(frozen=True)
class UpdateLoader:
    """All that determines what the updates of a training see.

    Attributes
    ----------
    examples, recipe, seed, strategy, trace
        As in `training.loop.train`.
    packing : bool
        Whether examples are packed; else they are padded.
    device : torch.device
        Where the training computes.
    """

    examples: Sequence[Example]
    recipe: Recipe
    seed: int
    packing: bool
    device: torch.device
    strategy: DistributedStrategy
    trace: GradientTrace | None

    def _collate(self, examples: Sequence[Example]) -> list[MicroBatch]:
        most = self.recipe.micro_batch_tokens
        return (
            pack(examples, most, self._multiple) if self.packing else micro_batches(examples, most)
        )

    def _alone(self, example: Example) -> MicroBatch:
        if self.packing:
            return packed([example], round_up(len(example.tokens), self._multiple))
        return padded([example])

    @property
    def _multiple(self) -> int:
        return BLOCK if self.device.type == "cuda" else 1

    def update(self, number: int) -> Update:
        """Prepare what one update sees."""
        indices = batch_indices(len(self.examples), self.recipe.batch_size, number, self.seed)
        batch = [self.examples[i] for i in indices]
        traced = []
        if self.trace is not None:
            tasks = ((self.trace.task(e.kind, e.individual), e) for e in batch)
            traced = [(task, self._alone(e)) for task, e in tasks if task]
        return Update(
            number,
            learning_rate(self.recipe, number),
            batch,
            sum(e.predicted for e in batch),
            self.strategy.local_batches(batch, self._collate),
            traced,
        )

    def _pinned(self, number: int) -> Update:
        update = self.update(number)
        return replace(
            update,
            batches=[batch.pinned() for batch in update.batches],
            traced=[(task, batch.pinned()) for task, batch in update.traced],
        )

    def updates(self, first: int) -> Iterator[Update]:
        """Yield all updates from number `first` on."""
        numbers = range(first, self.recipe.updates)
        if self.device.type == "cuda":
            return ahead(self._pinned, numbers)
        return map(self.update, numbers)


def ahead(
    make: Callable[[int], Update], numbers: Sequence[int], most: int = AHEAD
) -> Iterator[Update]:
    """Yield what a function makes of numbers; a thread makes up to `most` in advance."""
    rest = iter(numbers)
    with ThreadPoolExecutor(1, "loader") as thread:
        waiting = deque(thread.submit(make, number) for number in islice(rest, most))
        while waiting:
            made = waiting.popleft().result()
            waiting.extend(thread.submit(make, number) for number in islice(rest, 1))
            yield made
