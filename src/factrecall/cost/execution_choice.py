"""How a training is done on a device: the first mode whose memory fits.

Modes come in the order of what they cost in time; all compute the same updates. What the user set
stays. Only `auto` is chosen, and never 8-bit moments, which are an approximation.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from itertools import product
from typing import TYPE_CHECKING, Literal

from factrecall.cost.memory import training_memory
from factrecall.training.execution import Execution
from factrecall.vocabulary import TRACED_TASKS

if TYPE_CHECKING:
    import torch

    from factrecall.config import training as execution
    from factrecall.config.study import Study
    from factrecall.config.training import Recipe, TrainingSettings
    from factrecall.cost.shapes import Shape

FITS = 0.95
"""Share of a GPU's memory that a training may fill: the allocator's gaps take the rest."""


def choose(
    settings: execution.ExecutionSettings,
    shape: Shape,
    tokens: int,
    tasks: int,
    memory: int | None,
    precision: str = "bfloat16",
) -> Execution:
    """Return how a training is done.

    Parameters
    ----------
    settings : ExecutionSettings
        The configuration's `training.mode`.
    shape : Shape
        Of the model.
    tokens : int
        Tokens of one pass at most: ``recipe.micro_batch_tokens``.
    tasks : int
        Traced tasks of the tuning: 2 of bio, 1 of stage, 3 of mix, 0 of pre-training.
    memory : int, optional
        Bytes of the device, as PyTorch says; None for a CPU.
    precision : {"bfloat16", "float32"}
        What matrix products are computed in.

    Returns
    -------
    Execution
        The first that fits (see `fits`) or, where none does, the one that takes least.
    """
    possible = list(candidates(settings, gpu=memory is not None))
    if memory is None:
        return possible[0]
    needs = [training_memory(shape, m, tokens, tasks, precision).device for m in possible]
    fitting = (m for m, need in zip(possible, needs, strict=True) if fits(need, memory))
    return next(fitting, possible[needs.index(min(needs))])


def settle(
    training: TrainingSettings, shape: Shape, recipe: Recipe, tuning: str, memory: int | None
) -> tuple[Execution, str]:
    """Return how a training is done, and in which precision (see `choose`).

    Parameters
    ----------
    training : Training
        The configuration's section.
    shape, memory
        As in `choose`.
    recipe : Recipe
        What is trained by.
    tuning : {"base", "bio", "stage", "mix"}
        What is learnt; "base" is pre-training.
    """
    precision = training.precision
    if precision == "auto":
        precision = "float32" if memory is None else "bfloat16"
    tokens, tasks = recipe.micro_batch_tokens, len(TRACED_TASKS[tuning])
    mode = choose(training.mode, shape, tokens, tasks, memory, precision)
    # Models built from scratch are small.
    return (replace(mode, gpus=1) if tuning == "base" else mode), precision


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
        tokens, tasks = recipe.micro_batch_tokens, len(TRACED_TASKS[tuning])
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


def fits(need: float, memory: int | None) -> bool:
    """Say whether so many bytes are safe on a device of so many; a CPU takes anything."""
    return memory is None or need <= FITS * memory


def candidates(settings: execution.ExecutionSettings, *, gpu: bool) -> Iterator[Execution]:
    """Yield the modes that the settings leave open, in the order in which they are tried.

    Sums on the host come after activations computed twice: their additions are as slow as main
    memory, and there may be none to spare. Offloading, which waits for the host at each update and
    has its gradients there anyway, comes last. On a CPU there is nothing to gain: main memory holds
    everything anyway.
    """
    optimisers: list[Literal["adamw", "adamw_8bit", "cpu_offload"]]
    traces: list[Literal["device", "host"]]
    if settings.optimiser != "auto":
        optimisers = [settings.optimiser]
    else:
        optimisers = ["adamw", "cpu_offload"] if gpu else ["adamw"]
    if settings.trace != "auto":
        traces = [settings.trace]
    else:
        traces = ["device", "host"] if gpu else ["device"]
    for optimiser, trace, checkpointing in product(
        optimisers, traces, _switch(settings.checkpointing, auto=(False, True) if gpu else (False,))
    ):
        if gpu and optimiser == "cpu_offload" and trace == "device" and settings.trace == "auto":
            continue  # where its gradients are, in main memory, are their sums
        yield Execution(
            optimiser=optimiser,
            checkpointing=checkpointing,
            trace=trace,
            gpus=settings.gpus,
            packing=_switch(settings.packing, auto=(gpu,))[0],
            # Kernels that PyTorch fuses would save a few per cent, by our reckoning; what it takes
            # to compile them was not measured yet.
            compile=_switch(settings.compile, auto=(False,))[0],
        )


def _switch(setting: execution.Switch, auto: tuple[bool, ...]) -> tuple[bool, ...]:
    return auto if setting == "auto" else (setting == "always",)
