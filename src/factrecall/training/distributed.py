"""Interface of a training to the processes that share it; here one process alone.

The loop, the trace and snapshots call a `DistributedStrategy` wherever several processes, or
offloaded weights, make a difference. `training.fully_sharded` has the strategy for these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from factrecall.runtime.checkpoint import Checkpoint, State
    from factrecall.training.batches import Example, MicroBatch

Result = TypeVar("Result")


class DistributedStrategy:
    """One process with a whole model.

    All processes call each method but `local_batches`, `local` and `put` at the same point of the
    run, and may wait for the others.
    """

    rank = 0
    """Which process this is; process 0 alone writes files."""
    count = 1
    """Number of processes."""
    caches = True
    """Whether autocast may keep half-precision copies of all weights during an update."""

    def shard(self, model: PreTrainedModel, device: torch.device) -> PreTrainedModel:
        """Move a model, the same in all processes' main memory, to its device, or shard it.

        Trace and optimiser are made afterwards.
        """
        model.to(device)  # type: ignore[arg-type]  # the library's wrapper loses the signature
        return model

    def gather(self, model: PreTrainedModel) -> PreTrainedModel:
        """Return a plain model with the trained weights, to be saved by process 0."""
        return model

    def local_batches(
        self, batch: Sequence[Example], cut: Callable[[Sequence[Example]], list[MicroBatch]]
    ) -> list[MicroBatch]:
        """Return the micro-batches, as `cut` makes them, of this process's part of a batch.

        All processes get as many, since they make each pass together; what is missing is idle
        (`MicroBatch.idle`). Called in a thread: no communication.
        """
        return cut(batch)

    def total(self, values: torch.Tensor) -> torch.Tensor:
        """Sum a float64 tensor in main memory over all processes."""
        return values

    def clip(self, parameters: Iterable[torch.Tensor], most: float) -> torch.Tensor:
        """Scale gradients down to a norm over all processes; return what it was, as a scalar."""
        return torch.nn.utils.clip_grad_norm_(parameters, most)

    def local(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return this process's part of a parameter, gradient or moment; it shares its memory."""
        return tensor

    def put(self, whole: torch.Tensor, tensor: torch.Tensor) -> None:
        """Write this process's part of a whole tensor into one that may be sharded."""
        tensor.copy_(whole)

    def on_rank0(
        self,
        tensors: Mapping[str, torch.Tensor],
        use: Callable[[Mapping[str, torch.Tensor]], Result],
    ) -> Result | None:
        """Let process 0 use tensors that may be sharded as if they were whole; None in others."""
        return use(tensors)

    def any_rank(self, flag: bool) -> bool:
        """Say whether a flag is set in any process."""
        return flag

    def restore(self, checkpoint: Checkpoint) -> State | None:
        """Return the saved state, of whole tensors, in all processes, or None in all."""
        return checkpoint.restore()
