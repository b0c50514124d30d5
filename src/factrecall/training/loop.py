"""The training loop: AdamW under a cosine, exact to the byte across interruptions.

One update is a sampled batch, cut into length-grouped micro-batches; its loss is the mean over
all target tokens of the batch. Nothing that an update computes depends on state outside the
weights, the optimiser's moments, the trace and the update's number, so a run that was killed
and started again ends with the bytes of one that was not.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch.nn import functional

from factrecall.errors import FactRecallError
from factrecall.models.forward import logits_at
from factrecall.seeds import derive
from factrecall.storage import write_table
from factrecall.training.batches import IGNORED, Example, batch_indices, micro_batches, pad
from factrecall.training.state import put_state, state_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from factrecall.config import Recipe
    from factrecall.resume import Checkpoint
    from factrecall.training.snapshots import Snapshots
    from factrecall.training.trace import GradientTrace

HISTORY = {
    "update": "int32",
    "learning_rate": "float64",
    "loss": "float64",
    "loss_bio": "float64",
    "loss_qa": "float64",
    "gradient_norm": "float64",
    "tokens": "int32",
}
"""Columns of a training history: one row an update; a loss of a kind not in the batch is NaN."""


@dataclass
class Run:
    """A model on its way through a recipe."""

    model: PreTrainedModel
    optimizer: torch.optim.Optimizer
    trace: GradientTrace | None = None
    update: int = 0
    history: list[list[float]] = field(default_factory=list)


def learning_rate(recipe: Recipe, update: int) -> float:
    """Return the learning rate of update number `update` (from 0): linear warm-up, then cosine."""
    if update < recipe.warmup:
        return recipe.learning_rate * (update + 1) / recipe.warmup
    progress = (update - recipe.warmup) / max(1, recipe.updates - recipe.warmup)
    return recipe.learning_rate * 0.5 * (1.0 + math.cos(math.pi * progress))


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Return the precision context: bfloat16 autocast over float32 weights, or plain float32."""
    if precision == "bfloat16" or (precision == "auto" and device.type == "cuda"):
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()


def train(
    model: PreTrainedModel,
    examples: Sequence[Example],
    recipe: Recipe,
    seed: int,
    *,
    trace: GradientTrace | None = None,
    checkpoint: Checkpoint | None = None,
    snapshots: Snapshots | None = None,
    precision: str = "auto",
    watch: Callable[[int, float], None] = lambda update, loss: None,
) -> np.ndarray:
    """Train `model` in place.

    Parameters
    ----------
    model : PreTrainedModel
        On its device, float32 (or float64, for tests).
    examples : sequence of Example
        The training set; its order does not matter beyond determinism.
    recipe : Recipe
        Updates, batch size, schedule, optimiser.
    seed : int
        Fixes the order of the examples and, if the model has any, dropout.
    trace : GradientTrace, optional
        Filled with the gradients of the examples it asks for.
    checkpoint : Checkpoint, optional
        Where the run is saved and taken up again.
    snapshots : Snapshots, optional
        Shown the weights after every update; a saved run whose snapshots are gone begins anew.
    precision : {"auto", "float32", "bfloat16"}
        See `autocast`.
    watch : callable
        Called with the number of updates done and the last loss.

    Returns
    -------
    ndarray of float64, shape (updates, len(HISTORY))
        The history.

    Raises
    ------
    FactRecallError
        When a loss or gradient is not finite; names update, learning rate and individuals.
    """
    device = next(model.parameters()).device
    model.train()
    if recipe.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    run = Run(model, _optimizer(model, recipe, device), trace)
    if checkpoint is not None and (state := checkpoint.restore()):
        if snapshots is None or snapshots.kept(state[1]["update"]):
            put_state(run, state)
        else:
            print("but a snapshot of it is gone: starting anew", file=sys.stderr)
    if snapshots is not None:
        snapshots.take(run.update)
    watch(run.update, math.nan)
    while run.update < recipe.updates:
        batch = batch_indices(len(examples), recipe.batch_size, run.update, seed)
        rate = learning_rate(recipe, run.update)
        torch.manual_seed(derive(seed, "dropout", run.update))
        with autocast(device, precision):
            row = _update(run, [examples[i] for i in batch], recipe, rate, device)
        run.history.append([run.update, rate, *row])
        run.update += 1
        if snapshots is not None:
            snapshots.take(run.update)
        watch(run.update, row[0])
        if checkpoint is not None and checkpoint.due(last=run.update == recipe.updates):
            checkpoint.save(*state_of(run))
    if recipe.gradient_checkpointing:
        model.gradient_checkpointing_disable()
    model.eval()
    return np.asarray(run.history, dtype=np.float64)


def _optimizer(model: PreTrainedModel, recipe: Recipe, device: torch.device) -> torch.optim.AdamW:
    # Norms and biases are not decayed, as is usual for transformers.
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=recipe.betas, fused=True)


def _update(
    run: Run, batch: list[Example], recipe: Recipe, rate: float, device: torch.device
) -> tuple[float, float, float, float, int]:
    """Take one optimiser step; return loss, loss of BIO, of QA, gradient norm and tokens."""
    model, trace = run.model, run.trace
    if trace is not None:
        for example in batch:
            if task := trace.task(example.kind, example.individual):
                with torch.random.fork_rng():  # dropout, if any, is not to notice
                    trace.add(task, example_loss(model, example, device), rate)
    targets_in_batch = sum(int((e.targets != IGNORED).sum()) for e in batch)
    sums = {"bio": [0.0, 0], "qa": [0.0, 0]}
    for tokens, targets, members in micro_batches(batch, recipe.micro_batch_tokens):
        where = targets != IGNORED
        losses = token_losses(model, tokens.to(device), targets.to(device))
        (losses.sum() / targets_in_batch).backward()
        per_row = losses.detach().double().cpu().split(where.sum(1).tolist())
        for member, values in zip(members, per_row, strict=True):
            sums[member.kind][0] += float(values.sum())
            sums[member.kind][1] += len(values)
    loss = sum(total for total, _ in sums.values()) / targets_in_batch
    norm = float(torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip or math.inf))
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise _diverged(run.update, rate, loss, norm, batch)
    for group in run.optimizer.param_groups:
        group["lr"] = rate
    run.optimizer.step()
    run.optimizer.zero_grad(set_to_none=True)
    bio, qa = (total / count if count else math.nan for total, count in sums.values())
    return loss, bio, qa, norm, sum(len(e.tokens) for e in batch)


def token_losses(
    model: PreTrainedModel, tokens: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    """Return the cross-entropy at every target position, row-major, shape (targets,)."""
    where = targets != IGNORED
    logits = logits_at(model, tokens, where)
    # A half-precision soft-max loses small differences; float64 models keep theirs.
    logits = logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits
    return functional.cross_entropy(logits, targets[where], reduction="none")


def example_loss(model: PreTrainedModel, example: Example, device: torch.device) -> torch.Tensor:
    """Return the mean cross-entropy of one example's targets, with its graph."""
    tokens, targets = pad([example.tokens], 0), pad([example.targets], IGNORED)
    return token_losses(model, tokens.to(device), targets.to(device)).mean()


def _diverged(
    update: int, rate: float, loss: float, norm: float, batch: list[Example]
) -> FactRecallError:
    ids = ", ".join(f"{e.kind} of {e.individual}" for e in batch[:64])
    return FactRecallError(
        f"training diverged at update {update}",
        f"the loss is {loss}, the gradient's norm {norm}, at learning rate {rate:.3g}; "
        f"batch: {ids}",
        "lower the learning rate, lengthen the warm-up or set clip; if it happens at update 0, "
        "the starting weights are damaged",
    )


def write_history(path: Path, history: np.ndarray, provenance: Mapping[str, Any]) -> None:
    """Write a training history (see ``HISTORY``)."""
    frame = pd.DataFrame(history, columns=list(HISTORY))
    integers = {column: kind for column, kind in HISTORY.items() if kind.startswith("int")}
    write_table(path, frame.astype(integers), HISTORY, provenance)
