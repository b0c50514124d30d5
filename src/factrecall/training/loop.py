"""Training loop: AdamW under a cosine schedule, exact to the byte across interruptions.

One update is a sampled batch, cut into micro-batches; its loss is the mean over all target tokens
of the batch. Nothing that an update computes depends on state outside the weights, the optimiser's
moments, the trace and the update's number, so a run that was killed and started again ends with the
bytes of one that was not.

The loop is the same on a CPU and a GPU, for one process and for many: a `DistributedStrategy`
splits the micro-batches, adds up losses, clips over all processes, and lets rank 0 write. Neither
the `UpdateLoader` nor the `TrainingLog` keeps a GPU waiting.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from factrecall.models.architectures import architecture_of
from factrecall.runtime.seeds import derive
from factrecall.training.batches import FLEX, Example, batch_loss, example_loss
from factrecall.training.distributed import DistributedStrategy
from factrecall.training.execution import Execution
from factrecall.training.loader import Update, UpdateLoader
from factrecall.training.optimisers import (
    AdamStep,
    eight_bit_moment,
    make_optimiser,
    parts_of,
    set_rate,
)
from factrecall.training.training_log import EVERY, TrainingLog

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from factrecall.config.training import Recipe
    from factrecall.runtime.checkpoint import Checkpoint, State
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
        Float32 (or float64, for tests), as `strategy` sharded it.
    examples : sequence of Example
        The training set; its order does not matter beyond determinism.
    recipe : Recipe
    seed : int
        Fixes the order of the examples and, if the model has any, dropout.
    trace : GradientTrace, optional
        Filled with the gradients of the examples that it traces.
    checkpoint : Checkpoint, optional
        Where the run is saved and resumed from.
    snapshots : Snapshots, optional
        A saved run whose snapshots are gone starts over.
    precision : {"auto", "float32", "bfloat16"}
        See `autocast`.
    mode : Execution
    strategy : DistributedStrategy
        The processes that share the training; all of them call this.
    device : torch.device, optional
        Where it computes; the model's, if it is not given.
    watch : callable
        Called with the number of updates done and the last loss that is known.

    Returns
    -------
    ndarray of float64, shape (updates, len(HISTORY))

    Raises
    ------
    FactRecallError
        When a loss or gradient is not finite; names update, learning rate and individuals.
    """
    device = device or next(model.parameters()).device
    if mode.packing and device.type == "cuda" and not _flexible(model):
        mode = replace(mode, packing=False)
    with _ready(model, mode, device):
        log = TrainingLog(strategy, 1 if device.type == "cpu" else EVERY)
        run = _Run(model, make_optimiser(model, recipe, mode), log, strategy, trace)
        if checkpoint is not None and (state := strategy.restore(checkpoint)):
            gone = snapshots is not None and not snapshots.kept(state[1]["update"])
            if strategy.any_rank(gone):
                print("but a snapshot of it is gone: starting over", file=sys.stderr)
            else:
                run.restore(state)
        if snapshots is not None:
            snapshots.take(run.update)
        watch(run.update, math.nan)
        loader = UpdateLoader(examples, recipe, seed, mode.packing, device, strategy, trace)
        for update in loader.updates(run.update):
            torch.manual_seed(derive(seed, "dropout", update.number))
            with autocast(device, precision, strategy.caches):
                _step(run, update, recipe.clip or math.inf, device)
            run.update += 1
            if snapshots is not None:
                if run.update in snapshots.moments:
                    log.fetch()
                snapshots.take(run.update)
            watch(run.update, log.loss)
            last = run.update == recipe.updates
            if checkpoint is not None and strategy.any_rank(checkpoint.due(last=last)):
                run.save(checkpoint)
        log.fetch()
    return np.asarray(log.rows, dtype=np.float64)


@dataclass
class _Run:
    """The state of a training run: all that its next update depends on."""

    model: PreTrainedModel
    optimiser: torch.optim.Optimizer
    log: TrainingLog
    strategy: DistributedStrategy
    trace: GradientTrace | None = None
    update: int = 0

    def save(self, checkpoint: Checkpoint) -> None:
        """Save the state, whose numbers are all checked before."""
        self.log.fetch()
        tensors = {f"weights/{name}": p.detach() for name, p in self.model.named_parameters()}
        for i, parameter in enumerate(self._parameters()):
            for kind, value in self.optimiser.state[parameter].items():
                key = f"optimizer/{i}/{kind}"
                parts = {f"{key}/{part}": tensor for part, tensor in parts_of(value).items()}
                tensors |= parts or {key: value}
        if self.trace is not None:
            tensors |= {f"trace/{key}": value for key, value in self.trace.sums.items()}
        tensors["history"] = torch.tensor(self.log.rows, dtype=torch.float64)
        counts = self.trace.counts if self.trace is not None else {}
        values = {"update": self.update, "counts": counts}
        self.strategy.on_rank0(tensors, lambda whole: checkpoint.save(whole, values))

    def restore(self, state: State) -> None:
        """Return to a saved state, whose tensors are whole."""
        tensors, values = state
        with torch.no_grad():
            for name, weight in self.model.named_parameters():
                self.strategy.put(tensors[f"weights/{name}"], weight)
            for i, parameter in enumerate(self._parameters()):
                self.optimiser.state[parameter] = self._moments(tensors, i, parameter)
            if self.trace is not None:
                for key in (key for key in tensors if key.startswith("trace/")):
                    self.strategy.put(tensors[key], self.trace.sum(key.removeprefix("trace/")))
                self.trace.counts = dict(values["counts"])
        self.log.rows = tensors["history"].tolist()
        self.update = values["update"]

    def _moments(
        self, tensors: Mapping[str, torch.Tensor], i: int, parameter: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Return the optimiser's state of its parameter number `i`."""
        prefix = f"optimizer/{i}/"
        kinds: dict[str, dict[str, torch.Tensor]] = {}
        for key in (key for key in tensors if key.startswith(prefix)):
            kind, _, part = key.removeprefix(prefix).partition("/")
            kinds.setdefault(kind, {})[part] = tensors[key]
        moments: dict[str, torch.Tensor] = {}
        for kind, parts in kinds.items():
            if "" not in parts:
                found = {part: tensor.to(parameter.device) for part, tensor in parts.items()}
                moments[kind] = eight_bit_moment(kind, found)
            elif kind == "step":
                # Fused kernels count on the device, others in main memory.
                fused = self.optimiser.param_groups[0].get("fused", False)
                moments[kind] = parts[""].to(parameter.device if fused else "cpu")
            else:
                moments[kind] = torch.zeros_like(parameter)
                self.strategy.put(parts[""], moments[kind])
        return moments

    def _parameters(self) -> list[torch.Tensor]:
        return [p for group in self.optimiser.param_groups for p in group["params"]]


def _step(run: _Run, update: Update, clip: float, device: torch.device) -> None:
    """Take one optimiser step."""
    model = run.model
    for task, batch in update.traced:
        assert run.trace is not None
        share = len(batch.targets) / update.targets
        adam = AdamStep(run.optimiser, run.strategy, update.number, share)
        with torch.random.fork_rng():  # dropout, if any, is not to notice
            run.trace.add(task, example_loss(model, batch.to(device)), update.rate, adam)
    losses = []
    for batch in update.batches:
        total, found = batch_loss(model, batch.to(device))
        # Gradients are averaged over processes, and are to be added up.
        (total / (update.targets / run.strategy.count)).backward()
        losses.append(found)
    norm = run.strategy.clip(model.parameters(), clip)
    run.log.add(update, losses, norm)
    set_rate(run.optimiser, update.rate)
    run.optimiser.step()
    run.optimiser.zero_grad(set_to_none=True)


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
