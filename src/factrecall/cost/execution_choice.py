"""Choice of a training's execution: the first whose memory fits the device.

Executions come in the order of what they cost in time; all compute the same updates. Only `auto` is
chosen, and never 8-bit moments, which are an approximation.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from itertools import product
from typing import TYPE_CHECKING, Any

from factrecall.cost.memory import training_memory
from factrecall.training.execution import Execution
from factrecall.vocabulary import TRACED_TASKS

if TYPE_CHECKING:
    import torch

    from factrecall.config import training as execution
    from factrecall.config.study import Study
    from factrecall.config.training import Recipe, TrainingSettings
    from factrecall.cost.shapes import Shape

FITS = 0.95  # share of a GPU's memory that a job may fill: the allocator's gaps take the rest


def fits(need: float, memory: int | None) -> bool:
    """Say whether so many bytes are safe on a device of so many; a CPU takes anything."""
    return memory is None or need <= FITS * memory


def choose(
    settings: execution.ExecutionSettings,
    shape: Shape,
    tokens: int,
    tasks: int,
    memory: int | None,
    precision: str = "bfloat16",
) -> Execution:
    """Return how a training is done: the first that fits or, where none does, the smallest.

    Its passes have at most so many tokens (``recipe.micro_batch_tokens``), of so many traced tasks;
    `memory` is that of the device in bytes, None for a CPU.
    """
    possible = list(candidates(settings, gpu=memory is not None))
    if memory is None:
        return possible[0]
    needs = [training_memory(shape, e, tokens, tasks, precision).device for e in possible]
    fitting = (e for e, need in zip(possible, needs, strict=True) if fits(need, memory))
    return next(fitting, possible[needs.index(min(needs))])


def settle(
    training: TrainingSettings, shape: Shape, recipe: Recipe, tuning: str, memory: int | None
) -> tuple[Execution, str]:
    """Return the execution and the precision of a training by `recipe` (see `choose`)."""
    precision = training.precision
    if precision == "auto":
        precision = "float32" if memory is None else "bfloat16"
    tokens, tasks = recipe.micro_batch_tokens, len(TRACED_TASKS[tuning])
    chosen = choose(training.mode, shape, tokens, tasks, memory, precision)
    # Models built from scratch are small.
    return (replace(chosen, gpus=1) if tuning == "base" else chosen), precision


def resolve(
    study: Study, shape: Shape, recipe: Recipe, tuning: str, device: torch.device
) -> Execution:
    """Return the execution of a training on this machine; log it, unless it is a CPU's default.

    This is no part of a stage: what is known of devices must not train models again.
    """
    import torch

    cuda = device.type == "cuda"
    memory = torch.cuda.get_device_properties(device).total_memory if cuda else None
    chosen, precision = settle(study.training, shape, recipe, tuning, memory)
    if memory is not None:
        tokens, tasks = recipe.micro_batch_tokens, len(TRACED_TASKS[tuning])
        need = training_memory(shape, chosen, tokens, tasks, precision).device
        if not fits(need, memory):
            print(
                f"this training is planned to take {need / 1e9:.0f} GB of a GPU of "
                f"{memory / 1e9:.0f}: lower micro_batch_tokens, or raise training.mode.gpus",
                file=sys.stderr,
            )
    if (cuda or chosen != Execution()) and not int(os.environ.get("RANK", 0)):
        settings = ", ".join(f"{k} {v}" for k, v in asdict(chosen).items())
        print(f"trains with {settings}", file=sys.stderr)
    return chosen


def candidates(settings: execution.ExecutionSettings, *, gpu: bool) -> Iterator[Execution]:
    """Yield the executions that the settings leave open, in the order in which they are tried.

    Sums on the host come after activations computed twice: their additions are as slow as main
    memory, and there may be none to spare. Offloading, which waits for the host at each update and
    has its gradients there anyway, comes last. On a CPU there is nothing to gain: main memory holds
    everything anyway.
    """
    for optimiser, trace, checkpointing in product(
        _options(settings.optimiser, ("adamw", "cpu_offload"), gpu),
        _options(settings.trace, ("device", "host"), gpu),
        _options(settings.checkpointing, (False, True), gpu),
    ):
        if gpu and optimiser == "cpu_offload" and trace == "device" and settings.trace == "auto":
            continue  # where its gradients are, in main memory, are their sums
        yield Execution(
            optimiser=optimiser,
            checkpointing=checkpointing,
            trace=trace,
            gpus=settings.gpus,
            packing=_options(settings.packing, (gpu,), gpu)[0],
            # Kernels that PyTorch fuses would save a few per cent, by our reckoning; what it takes
            # to compile them was not measured yet.
            compile=_options(settings.compile, (False,), gpu)[0],
        )


def _options(setting: str, auto: tuple[Any, ...], gpu: bool) -> tuple[Any, ...]:
    """Return what a setting leaves open: of `auto` all on a GPU, the first on a CPU."""
    if setting == "auto":
        return auto if gpu else auto[:1]
    return ({"always": True, "never": False}.get(setting, setting),)
