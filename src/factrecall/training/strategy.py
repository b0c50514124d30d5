"""Choice of the processes that a training needs, from its execution."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from factrecall.runtime.errors import FactRecallError
from factrecall.training.distributed import DistributedStrategy

if TYPE_CHECKING:
    import torch

    from factrecall.training.execution import Execution


def strategy_of(mode: Execution, device: torch.device) -> DistributedStrategy:
    """Return what a resolved mode needs: several processes, or weights in main memory, or none.

    Raises
    ------
    FactRecallError
        When there are not as many processes as `mode.gpus` says.
    """
    if (count := int(os.environ.get("WORLD_SIZE", 1))) != mode.gpus:
        raise FactRecallError(
            f"training.mode.gpus = {mode.gpus}",
            f"the training was started as one of {count} processes (WORLD_SIZE)",
            "start it by the command line of factrecall, which starts the others, without the "
            "environment variable WORLD_SIZE; pre-training takes one process",
        )
    if mode.gpus == 1 and mode.optimiser != "cpu_offload":
        return DistributedStrategy()
    from factrecall.training.fully_sharded import FullySharded

    return FullySharded(mode, device)
