"""What each update of a training sees, made ready before it is needed.

On a GPU a thread makes it while the updates before are computed, in page-locked memory, so that the
GPU copies it when it comes to it and nobody waits. On a CPU, where the thread would only take time
from the computation, it is made when it is asked for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import torch

from factrecall.training.batches import (
    Example,
    MicroBatch,
    batch_indices,
    micro_batches,
    padded,
)
from factrecall.training.optimisers import learning_rate
from factrecall.training.packing import BLOCK, lay, row

if TYPE_CHECKING:
    from factrecall.config.training import Recipe
    from factrecall.training.distributed import DistributedStrategy
    from factrecall.training.execution import Execution
    from factrecall.training.trace import GradientTrace

AHEAD = 2
"""How many updates are made ready beforehand on a GPU."""


@dataclass(frozen=True)
class Collator:
    """How examples become micro-batches.

    Attributes
    ----------
    most_tokens : int
        Of a micro-batch.
    packing : bool
        Whether examples are laid end to end in place of padding them.
    multiple : int
        What the lengths of rows are multiples of, if they are.
    """

    most_tokens: int
    packing: bool = False
    multiple: int = 1

    @classmethod
    def of(cls, recipe: Recipe, mode: Execution, device: torch.device) -> Collator:
        """Return the layout of a training."""
        multiple = BLOCK if device.type == "cuda" else 1
        return cls(recipe.micro_batch_tokens, mode.packing, multiple)

    def cut(self, examples: Sequence[Example]) -> list[MicroBatch]:
        """Cut the examples of an update."""
        if self.packing:
            return lay(examples, self.most_tokens, self.multiple)
        return micro_batches(examples, self.most_tokens)

    def alone(self, example: Example) -> MicroBatch:
        """Return an example by itself."""
        if self.packing:
            return row([example], -(-len(example.tokens) // self.multiple) * self.multiple)
        return padded([example])


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
    """All that determines what the updates of a training see."""

    examples: Sequence[Example]
    recipe: Recipe
    seed: int
    layout: Collator
    strategy: DistributedStrategy
    trace: GradientTrace | None

    def update(self, number: int) -> Update:
        """Make ready what one update sees."""
        indices = batch_indices(len(self.examples), self.recipe.batch_size, number, self.seed)
        batch = [self.examples[i] for i in indices]
        traced = []
        for example in batch if self.trace is not None else ():
            assert self.trace is not None
            if task := self.trace.task(example.kind, example.individual):
                traced.append((task, self.layout.alone(example)))
        return Update(
            number,
            learning_rate(self.recipe, number),
            batch,
            sum(e.predicted for e in batch),
            self.strategy.local_batches(batch, self.layout.cut),
            traced,
        )

    def pinned(self, number: int) -> Update:
        """Make the same ready in page-locked memory."""
        made = self.update(number)
        return Update(
            made.number,
            made.rate,
            made.examples,
            made.targets,
            [batch.pinned() for batch in made.batches],
            [(task, batch.pinned()) for task, batch in made.traced],
        )

    def updates(self, first: int, device: torch.device) -> Iterator[Update]:
        """Yield all updates from number `first` on."""
        numbers = range(first, self.recipe.updates)
        if device.type == "cuda":
            return ahead(self.pinned, numbers, AHEAD)
        return map(self.update, numbers)


def ahead(
    make: Callable[[int], Update], numbers: Sequence[int], most: int = AHEAD
) -> Iterator[Update]:
    """Yield what a function makes of numbers, made by a thread up to `most` beforehand."""
    rest = iter(numbers)
    with ThreadPoolExecutor(1, "feed") as thread:
        waiting = deque(thread.submit(make, number) for number in islice(rest, most))
        while waiting:
            made = waiting.popleft().result()
            waiting.extend(thread.submit(make, number) for number in islice(rest, 1))
            yield made
