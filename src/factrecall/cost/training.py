"""What pre-training and fine-tuning do: `training.loop`, its trace, its states and its files."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from factrecall.config.model import Scratch
from factrecall.cost.execution_choice import settle
from factrecall.cost.job_cost import EFFICIENCY, SELECTED, JobCost, Kind, Passes
from factrecall.cost.memory import (
    MOMENTS,
    PROCESS,
    SUMS,
    Memory,
    text_bytes,
    training_memory,
)
from factrecall.parameters.amounts import absolute_count
from factrecall.training.execution import Execution
from factrecall.vocabulary import TRACED_TASKS

if TYPE_CHECKING:
    from factrecall.config.study import Study
    from factrecall.config.training import Recipe
    from factrecall.cost.devices import Device
    from factrecall.cost.models import ModelInfo
    from factrecall.cost.texts import TextLengths

PASS_COST = 96
"""Tokens of padding that one more pass is worth (`training.batches`, which takes PyTorch)."""

UPDATE = 40.0
"""Bytes a parameter that an update moves beside its passes: AdamW reads weight, gradient and two
moments and writes three of them (28); the norm is taken and gradients are scaled (12)."""

CASTS = 6.0
"""Bytes a parameter: autocast reads float32 and writes bfloat16 once an update."""

TRACED = 28.0
"""Bytes a parameter that a traced gradient moves: |g| is made (8), both sums are read, added to and
written, with what is added (20)."""

HOST_BANDWIDTH = 1e11
"""Bytes a second of a server's main memory, as far as the threads of one job get it."""

RANKED = 3
"""Rankings of each task: absolute, magnitude, signed."""

KEPT = 8.0
"""Bytes of a kept parameter in a ranking: an index and a value of four each (below 2³² of them)."""


@dataclass(frozen=True)
class TrainingPlan:
    """A training as it is planned.

    Attributes
    ----------
    recipe : Recipe
        What the configuration says.
    mode : Execution
        How it is done on the device.
    lengths : ndarray of float
        Tokens of the examples, a sample of them.
    examples : float
        How many there are.
    traced : float
        Examples of traced people among them.
    tasks : int
        Traced tasks.
    tokens : float
        Of one pass, padding included.
    passes : float
        Of an update.
    precision : str
        Of matrix products.
    """

    recipe: Recipe
    mode: Execution
    lengths: np.ndarray
    examples: float
    traced: float
    tasks: int
    tokens: float
    passes: float
    precision: str


def planned(study: Study, known: ModelInfo, tuning: str, device: Device) -> TrainingPlan:
    """Plan a training: its examples, its passes and its mode.

    Parameters
    ----------
    study, known
        The study and what is known of the model.
    tuning : {"base", "bio", "stage", "mix"}
        What is learnt; "base" is pre-training.
    device : Device
        Where.
    """
    model = study.models[known.name]
    if tuning == "base":
        assert isinstance(model, Scratch)
        recipe = model.pretrain
    else:
        recipe = getattr(model.training, tuning)
    lengths, examples = _examples(study, known.texts, recipe, tuning)
    traced = _traced(study, recipe, tuning)
    batch = recipe.batch_size * float(lengths.mean())
    mode, precision = settle(study.training, known.shape, recipe, tuning, device.memory)
    passes: float
    if mode.packing:
        passes = max(1, math.ceil(batch / recipe.micro_batch_tokens))
        tokens = batch / passes
    else:
        passes, tokens = grouped(lengths, recipe.batch_size, recipe.micro_batch_tokens)
    tasks = len(TRACED_TASKS[tuning])
    return TrainingPlan(recipe, mode, lengths, examples, traced, tasks, tokens, passes, precision)


def _examples(
    study: Study, texts: TextLengths, recipe: Recipe, tuning: str
) -> tuple[np.ndarray, float]:
    """Return lengths of examples, in their shares, and how many there are."""
    facts = study.facts
    six = texts.six if recipe.questions_per_example == "all" else texts.question
    each = 1 if recipe.questions_per_example == "all" else 6
    inside, people = facts.sides[0], facts.people
    if tuning == "base":
        told = facts.pretrain_people * facts.pretrain_biographies
        kinds = [
            (texts.bio, told),
            (texts.short, 6 * told),
            (six, each * facts.pretrain_people),
        ]
    else:
        kinds = [(texts.bio, people if tuning != "stage" else 0)]
        kinds.append((six, each * inside if tuning != "bio" else 0))
    total = float(sum(count for _, count in kinds))
    drawn = [
        np.quantile(lengths, np.linspace(0, 1, max(1, round(1000 * count / total))))
        for lengths, count in kinds
        if count
    ]
    return np.concatenate(drawn), total


def _traced(study: Study, recipe: Recipe, tuning: str) -> float:
    """Count the examples of traced people."""
    trace = study.trace
    told = trace.in_distribution + trace.out_of_distribution
    asked = trace.in_distribution * (1 if recipe.questions_per_example == "all" else 6)
    return {"base": 0, "bio": told, "stage": asked, "mix": told + asked}[tuning]


def grouped(lengths: np.ndarray, batch: int, most: int) -> tuple[float, float]:
    """Return into how many passes a batch is cut, and of how many tokens each, with padding.

    As `training.batches.cut` does about: longer examples join a pass while the padding that they
    cause is cheaper than one more pass.
    """
    sizes = np.sort(np.quantile(lengths, (np.arange(batch) + 0.5) / batch))
    passes, rows, longest, total = 0, 0, 0.0, 0.0
    for size in sizes:
        padding = (size - longest) * rows
        if not rows or padding > PASS_COST or (rows + 1) * size > most:
            total += rows * longest
            passes, rows = passes + 1, 0
        rows, longest = rows + 1, size
    total += rows * longest
    return passes, total / passes


def training_cost(study: Study, known: ModelInfo, tuning: str, device: Device) -> JobCost:
    """Return what a training does on a device."""
    plan = planned(study, known, tuning, device)
    recipe, mode, shape = plan.recipe, plan.mode, known.shape
    n, split = shape.parameters, mode.gpus
    mean = float(plan.lengths.mean())
    targets = 1.0 if recipe.loss == "all" else known.texts.answer / mean
    kind: Kind = "checkpointed" if mode.checkpointing else "train"
    batch = Passes(
        recipe.updates * plan.passes,
        plan.tokens,
        plan.tokens * targets,
        mean,
        kind,
        plan.precision,
        split=split,
    )
    seen = recipe.updates * recipe.batch_size / plan.examples * plan.traced
    alone = Passes(seen, mean, mean * targets, mean, kind, plan.precision)
    device_bytes, link = seen * TRACED * n / split, 0.0
    if mode.trace == "host":
        # A gradient comes over the link, and main memory does the rest.
        device_bytes, link = 0.0, seen * 4.0 * n / split
    host = seen * TRACED * n / split / HOST_BANDWIDTH if mode.trace == "host" else 0.0
    if mode.optimiser == "cpu_offload":
        # Layers come twice a pass, forward and backward, and gradients leave after it.
        passes = recipe.updates * plan.passes + seen
        link += passes * 12.0 * n / split
        host += recipe.updates * UPDATE * n / split / HOST_BANDWIDTH
    else:
        device_bytes += recipe.updates * UPDATE * n / split
    if split > 1:
        # Layers are gathered twice a pass and gradients added up, over the links between GPUs.
        exchanged = (recipe.updates * plan.passes + seen) * 12.0 * n
        host += exchanged / device.between
    if plan.precision == "bfloat16":
        device_bytes += recipe.updates * CASTS * n
    tasks, keep = plan.tasks, kept(study, n)
    state = n * (4.0 + MOMENTS[mode.optimiser] + SUMS * tasks)
    snapshots = study.trace.checkpoints if tuning != "base" else 0
    work = JobCost(
        memory=_memory(study, known, plan, device),
        shape=shape,
        passes=(batch, alone) if seen else (batch,),
        texts=plan.examples,
        device_bytes=device_bytes + RANKED * tasks * SELECTED * n,
        link_bytes=link + 4.0 * n * (2 + snapshots),
        sorted=float(RANKED * tasks * keep),
        read=4.0 * n if tuning != "base" else 0.0,
        written=4.0 * n * (1 + snapshots) + RANKED * KEPT * tasks * keep,
        # Snapshots are first written beside the state.
        scratch=4.0 * n * snapshots + state,
        held=state + 4.0 * n * snapshots,
        more=host,
        models=1,
        threads=study.compute.pretrain_threads or study.compute.threads
        if tuning == "base"
        else study.compute.threads,
    )
    saves = work.seconds(device, EFFICIENCY) // study.compute.checkpoint_interval_s
    return replace(work, scratch=work.scratch + state * saves)


def kept(study: Study, n: int) -> int:
    """Return how many parameters each ranking keeps."""
    return absolute_count(study.trace.top_fraction, n)


def _memory(study: Study, known: ModelInfo, plan: TrainingPlan, device: Device) -> Memory:
    n, gpu = known.shape.parameters, device.is_gpu
    found = training_memory(
        known.shape, plan.mode, round(plan.tokens), plan.tasks, plan.precision, gpu=gpu
    )
    host: dict[str, float] = {"process": PROCESS, **(found.host_parts if gpu else found.parts)}
    host["texts"] = text_bytes(plan.examples, plan.examples * float(plan.lengths.mean()))
    # Processes that share a training are on one machine.
    host = {part: size * plan.mode.gpus for part, size in host.items()}
    # A state is written tensor by tensor. The tops of all rankings are there until all are.
    host["writing"] = max(4.0 * known.shape.largest, RANKED * KEPT * plan.tasks * kept(study, n))
    return Memory(found.parts if gpu else {}, host)
