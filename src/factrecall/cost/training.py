"""Cost of pre-training and fine-tuning: `training.loop`, its trace, its states and its files."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from factrecall.config.model import Scratch
from factrecall.cost.evaluation import SIX, JobContext
from factrecall.cost.execution_choice import settle
from factrecall.cost.job_cost import CHECKSUM, DISK, EFFICIENCY, SELECTED, JobCost, Kind, Passes
from factrecall.cost.memory import MOMENTS, PROCESS, SUMS, Memory, text_bytes, training_memory
from factrecall.models.passes import PASS_COST
from factrecall.runtime.storage import APART
from factrecall.vocabulary import INFLUENCES, TRACED_TASKS

if TYPE_CHECKING:
    from factrecall.config.training import Recipe
    from factrecall.training.execution import Execution

# Bytes a parameter that an update moves beside its passes: AdamW reads weight, gradient and two
# moments and writes three of them (28); the norm is taken and gradients are scaled (12).
UPDATE = 40.0
CASTS = 6.0  # bytes a parameter and update: autocast reads float32 and writes bfloat16
# Bytes a parameter that a traced gradient moves: |g| is made (8), three sums are read, added to and
# written, with what is added (32). AdamW's update of it is made in eight steps beside.
TRACED = 40.0
PRECONDITIONED = 72.0
HOST_BANDWIDTH = 1e11  # bytes a second of a server's main memory, with the threads of one job
RANKED = len(INFLUENCES)  # rankings of each task
KEPT = 8.0  # bytes of a kept parameter in a ranking: index and value of four each (below 2³²)


@dataclass(frozen=True)
class TrainingPlan:
    """A training as it is planned."""

    recipe: Recipe
    execution: Execution
    lengths: np.ndarray  # tokens of a sample of the examples
    examples: float
    traced: float  # examples of traced people among them
    tasks: int  # traced tasks
    tokens: float  # of one pass, padding included
    passes: float  # of an update
    precision: str  # of matrix products


def plan_training(context: JobContext) -> TrainingPlan:
    """Plan a training: its examples, its passes and its execution."""
    study, tuning = context.study, context.job.tuning or "base"
    model = study.models[context.model.name]
    if tuning == "base":
        assert isinstance(model, Scratch)
        recipe = model.pretrain
    else:
        recipe = getattr(model.training, tuning)
    lengths, examples = _examples(context, recipe, tuning)
    batch = recipe.batch_size * float(lengths.mean())
    execution, precision = settle(
        study.training, context.model.shape, recipe, tuning, context.device.memory
    )
    passes: float
    if execution.packing:
        passes = max(1, math.ceil(batch / recipe.micro_batch_tokens))
        tokens = batch / passes
    else:
        passes, tokens = grouped(lengths, recipe.batch_size, recipe.micro_batch_tokens)
    traced = _traced(context, recipe, tuning)
    return TrainingPlan(
        recipe,
        execution,
        lengths,
        examples,
        traced,
        len(TRACED_TASKS[tuning]),
        tokens,
        passes,
        precision,
    )


def _examples(context: JobContext, recipe: Recipe, tuning: str) -> tuple[np.ndarray, float]:
    """Return lengths of examples, in their shares, and how many there are."""
    facts, texts = context.study.facts, context.model.texts
    whole = recipe.questions_per_example == "all"
    questions, each = (texts.six, 1) if whole else (texts.question, SIX)
    if tuning == "base":
        biographies = facts.pretrain_people * facts.pretrain_biographies
        kinds = [
            (texts.bio, biographies),
            (texts.short, SIX * biographies),
            (texts.shuffled, biographies),
        ]
    else:
        kinds = [
            (texts.bio, facts.people if tuning != "stage" else 0),
            (questions, each * facts.sides[0] if tuning != "bio" else 0),
        ]
    total = float(sum(count for _, count in kinds))
    drawn = [
        np.quantile(lengths, np.linspace(0, 1, max(1, round(1000 * count / total))))
        for lengths, count in kinds
        if count
    ]
    return np.concatenate(drawn), total


def _traced(context: JobContext, recipe: Recipe, tuning: str) -> float:
    """Count the examples of traced people."""
    trace = context.study.trace
    bio = trace.in_distribution + trace.out_of_distribution
    qa = trace.in_distribution * (1 if recipe.questions_per_example == "all" else SIX)
    return {"base": 0, "bio": bio, "stage": qa, "mix": bio + qa}[tuning]


def grouped(lengths: np.ndarray, batch: int, most: int) -> tuple[float, float]:
    """Return into how many passes a batch is cut, and of how many tokens each, with padding.

    About as `models.passes.cut` does: longer examples join a pass while the padding that they
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


def training_cost(context: JobContext) -> JobCost:
    """Return the cost of a training on a device."""
    study, n, plan = context.study, context.n, plan_training(context)
    recipe, execution, base = plan.recipe, plan.execution, not plan.tasks
    split, mean = execution.gpus, float(plan.lengths.mean())
    targets = 1.0 if recipe.loss == "all" else context.model.texts.answer / mean
    kind: Kind = "checkpointed" if execution.checkpointing else "train"
    each = mean, kind, plan.precision
    count = recipe.updates * plan.passes
    batch = Passes(count, plan.tokens, plan.tokens * targets, *each, split=split)
    seen = recipe.updates * recipe.batch_size / plan.examples * plan.traced
    alone = Passes(seen, mean, mean * targets, *each)
    passes = count + seen
    device_bytes, link, host = seen * (TRACED + PRECONDITIONED) * n / split, 0.0, 0.0
    if execution.trace == "host":
        # A gradient and its update come over the link, and main memory does the rest.
        device_bytes, link = seen * PRECONDITIONED * n / split, seen * 8.0 * n / split
        host = seen * TRACED * n / split / HOST_BANDWIDTH
    if execution.optimiser == "cpu_offload":
        # Layers come twice a pass, forward and backward, and gradients leave after it.
        link += passes * 12.0 * n / split
        host += recipe.updates * UPDATE * n / split / HOST_BANDWIDTH
    else:
        device_bytes += recipe.updates * UPDATE * n / split
    if split > 1:
        # Layers are gathered twice a pass and gradients added up, over the links between GPUs.
        host += passes * 12.0 * n / context.device.between
    if plan.precision == "bfloat16":
        device_bytes += recipe.updates * CASTS * n
    rankings = RANKED * plan.tasks
    state = n * (4.0 + MOMENTS[execution.optimiser] + SUMS * plan.tasks)
    snapshots = 0 if base else study.trace.checkpoints
    threads = study.compute.threads
    cost = context.cost(
        _memory(context, plan),
        *((batch, alone) if seen else (batch,)),
        texts=plan.examples,
        device_bytes=device_bytes + rankings * SELECTED * n,
        link_bytes=link + 4.0 * n * (2 + snapshots),
        sorted=float(rankings * context.kept),
        read=0.0 if base else 4.0 * n,
        written=4.0 * n * (1 + snapshots) + RANKED * KEPT * plan.tasks * context.kept,
        # Snapshots are first written beside the state.
        scratch=4.0 * n * snapshots + state,
        held=state + 4.0 * n * snapshots,
        more=host,
        models=1,
        threads=(study.compute.pretrain_threads or threads) if base else threads,
    )
    took = state / DISK + state / CHECKSUM
    pause = max(study.compute.checkpoint_interval_s, APART * took if took > 1 else 0.0)
    saves = cost.seconds(context.device, EFFICIENCY) // pause
    return replace(cost, scratch=cost.scratch + state * saves)


def _memory(context: JobContext, plan: TrainingPlan) -> Memory:
    gpu, shape = context.device.is_gpu, context.model.shape
    found = training_memory(
        shape, plan.execution, round(plan.tokens), plan.tasks, plan.precision, gpu=gpu
    )
    host: dict[str, float] = {"process": PROCESS, **(found.host_parts if gpu else found.parts)}
    host["texts"] = text_bytes(plan.examples, plan.examples * float(plan.lengths.mean()))
    # Processes that share a training are on one machine.
    host = {part: size * plan.execution.gpus for part, size in host.items()}
    # A state is written tensor by tensor. The tops of all rankings are there until all are.
    host["writing"] = max(
        4.0 * context.model.shape.largest, RANKED * KEPT * plan.tasks * context.kept
    )
    return Memory(found.parts if gpu else {}, host)


COSTS = {"pretrain": training_cost, "fine-tune": training_cost}
