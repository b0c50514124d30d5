"""The training loop: AdamW under a cosine, exact to the byte across interruptions.

One update is a sampled batch, cut into micro-batches; its loss is the mean over all target tokens
of the batch. Nothing that an update computes depends on state outside the weights, the optimiser's
moments, the trace and the update's number, so a run that was killed and started again ends with the
bytes of one that was not.

The loop is the same on a CPU and a GPU, for one process and for many. An `UpdateLoader` feeds it,
a `TrainingLog` takes what it computes, and neither keeps a GPU waiting. A `DistributedStrategy`
stands for the processes that share it: it splits the micro-batches, adds up what was found, clips
over all of them, and lets rank 0 write.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from factrecall.models.architectures import architecture_of
from factrecall.runtime.seeds import derive
from factrecall.training.batches import Example
from factrecall.training.distributed import DistributedStrategy
from factrecall.training.execution import Execution
from factrecall.training.loader import Collator, Update, UpdateLoader
from factrecall.training.losses import FLEX, batch_loss, example_loss
from factrecall.training.optimisers import make_optimiser, set_rate
from factrecall.training.state import Run, put_state
from factrecall.training.training_log import EVERY, TrainingLog

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from factrecall.config.training import Recipe
    from factrecall.runtime.checkpoint import Checkpoint
    from factrecall.training.snapshots import Snapshots
    from factrecall.training.trace import GradientTrace

PLAIN = Execution()
ALONE = DistributedStrategy()


def autocast(
    device: torch.device, precision: str, cache: bool = True
) -> AbstractContextManager[object]:
    """Return the precision context: bfloat16 autocast over float32 weights, or plain float32."""
    if precision == "bfloat16" or (precision == "auto" and device.type == "cuda"):
        return torch.autocast(device.type, dtype=torch.bfloat16, cache_enabled=cache)
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
    mode: Execution = PLAIN,
    strategy: DistributedStrategy = ALONE,
    device: torch.device | None = None,
    watch: Callable[[int, float], None] = lambda update, loss: None,
) -> np.ndarray:
    """Train `model` in place.

    Parameters
    ----------
    model : PreTrainedModel
        Float32 (or float64, for tests), as `strategy` spread it.
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
    mode : Execution
        How it is done on the device.
    strategy : DistributedStrategy
        The processes that share the training; all of them call this.
    device : torch.device, optional
        Where it computes; where the model lies, if it is not given.
    watch : callable
        Called with the number of updates done and the last loss that is known.

    Returns
    -------
    ndarray of float64, shape (updates, len(HISTORY))
        The history.

    Raises
    ------
    FactRecallError
        When a loss or gradient is not finite; names update, learning rate and individuals.
    """
    device = device or next(model.parameters()).device
    if mode.packing and device.type == "cuda" and not _flexible(model):
        mode = replace(mode, packing=False)
    with _ready(model, mode, device):
        history = TrainingLog(strategy, 1 if device.type == "cpu" else EVERY)
        run = Run(model, make_optimiser(model, recipe, mode), history, trace)
        if checkpoint is not None and (state := strategy.restore(checkpoint)):
            gone = snapshots is not None and not snapshots.kept(state[1]["update"])
            if strategy.any_rank(gone):
                print("but a snapshot of it is gone: starting anew", file=sys.stderr)
            else:
                put_state(run, state, strategy)
        if snapshots is not None:
            snapshots.take(run.update)
        watch(run.update, math.nan)
        feed = UpdateLoader(
            examples, recipe, seed, Collator.of(recipe, mode, device), strategy, trace
        )
        for update in feed.updates(run.update, device):
            torch.manual_seed(derive(seed, "dropout", update.number))
            with autocast(device, precision, strategy.caches):
                _step(run, update, recipe.clip or math.inf, strategy, device)
            run.update += 1
            if snapshots is not None:
                if run.update in snapshots.moments:
                    history.fetch()
                snapshots.take(run.update)
            watch(run.update, history.loss)
            if checkpoint is not None and strategy.any_rank(
                checkpoint.due(last=run.update == recipe.updates)
            ):
                run.save(checkpoint, strategy)
        history.fetch()
    return np.asarray(history.rows, dtype=np.float64)


def _step(
    run: Run, update: Update, clip: float, strategy: DistributedStrategy, device: torch.device
) -> None:
    """Take one optimiser step."""
    model = run.model
    for task, batch in update.traced:
        assert run.trace is not None
        with torch.random.fork_rng():  # dropout, if any, is not to notice
            run.trace.add(task, example_loss(model, batch.to(device)), update.rate)
    losses = []
    for batch in update.batches:
        total, found = batch_loss(model, batch.to(device))
        # What processes find is averaged, and is to be added up.
        (total / (update.targets / strategy.count)).backward()
        losses.append(found)
    norm = strategy.clip(model.parameters(), clip)
    run.history.add(update, losses, norm)
    set_rate(run.optimizer, update.rate)
    run.optimizer.step()
    run.optimizer.zero_grad(set_to_none=True)


@contextmanager
def _ready(model: PreTrainedModel, mode: Execution, device: torch.device) -> Iterator[None]:
    """Make a model ready for a mode, for a block; leave it in evaluation mode."""
    attention = model.config._attn_implementation
    compiled = architecture_of(model.config).layers_of(model) if mode.compile else []
    model.train()
    if mode.checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    if mode.packing and device.type == "cuda":
        model.set_attn_implementation(FLEX)
    for layer in compiled:
        # Rows have few lengths, padded micro-batches any.
        layer.compile(dynamic=None if mode.packing else True)
    try:
        yield
    finally:
        for layer in compiled:
            layer._compiled_call_impl = None
        model.set_attn_implementation(attention)
        if mode.checkpointing:
            model.gradient_checkpointing_disable()
        model.eval()


def _flexible(model: PreTrainedModel) -> bool:
    """Say whether a model takes flex attention, which cannot drop attention weights."""
    dropped = (getattr(model.config, key, 0.0) for key in ("attention_dropout", "attn_pdrop"))
    return bool(getattr(model, "_supports_flex_attn", False)) and not any(dropped)
