"""What the configuration's `training.mode` comes to on the device that a command runs on."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from factrecall.cost.execution_choice import fits, settle
from factrecall.cost.jobs import TASKS
from factrecall.cost.memory import training_memory

if TYPE_CHECKING:
    import torch

    from factrecall.config import Recipe, Study
    from factrecall.cost.shapes import Shape
    from factrecall.training.execution import Execution


def resolve(
    study: Study, shape: Shape, recipe: Recipe, tuning: str, device: torch.device
) -> Execution:
    """Return how a training is done; say so in the log, if it is not the plain way of a CPU.

    This is no part of a stage: what is known of devices must not train models again.
    """
    import torch

    cuda = device.type == "cuda"
    memory = torch.cuda.get_device_properties(device).total_memory if cuda else None
    chosen, precision = settle(study.training, shape, recipe, tuning, memory)
    if memory is not None:
        tokens, tasks = recipe.micro_batch_tokens, TASKS[tuning]
        need = training_memory(shape, chosen, tokens, tasks, precision).device
        if not fits(need, memory):
            print(
                f"this training is planned to take {need / 1e9:.0f} GB of a GPU of "
                f"{memory / 1e9:.0f}: lower micro_batch_tokens, or raise training.mode.gpus",
                file=sys.stderr,
            )
    if (cuda or chosen != type(chosen)()) and not int(os.environ.get("RANK", 0)):
        print(
            "trains with " + ", ".join(f"{k} {v}" for k, v in asdict(chosen).items()),
            file=sys.stderr,
        )
    return chosen
