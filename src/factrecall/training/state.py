"""The state of a training run as tensors: weights, moments, trace and history."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from factrecall.training.optimisers import eight_bit_moment, parts_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from transformers import PreTrainedModel

    from factrecall.runtime.checkpoint import Checkpoint, State
    from factrecall.training.distributed import DistributedStrategy
    from factrecall.training.trace import GradientTrace
    from factrecall.training.training_log import TrainingLog


@dataclass
class Run:
    """A model on its way through a recipe."""

    model: PreTrainedModel
    optimizer: torch.optim.Optimizer
    history: TrainingLog
    trace: GradientTrace | None = None
    update: int = 0

    def save(self, checkpoint: Checkpoint, strategy: DistributedStrategy) -> None:
        """Save all that the run depends on; every number of it is looked at first."""
        self.history.fetch()
        tensors, values = state_of(self)
        strategy.on_rank0(tensors, lambda whole: checkpoint.save(whole, values))


def state_of(run: Run) -> State:
    """Return all that a run depends on; tensors are as they lie, split among processes or not."""
    tensors = {f"weights/{name}": p.detach() for name, p in run.model.named_parameters()}
    for i, parameter in enumerate(_parameters(run.optimizer)):
        for kind, value in run.optimizer.state[parameter].items():
            if parts := parts_of(value):
                tensors |= {f"optimizer/{i}/{kind}/{part}": t for part, t in parts.items()}
            else:
                tensors[f"optimizer/{i}/{kind}"] = value
    if run.trace is not None:
        tensors |= {f"trace/{key}": value for key, value in run.trace.sums.items()}
    tensors["history"] = torch.tensor(run.history.rows, dtype=torch.float64)
    counts = run.trace.counts if run.trace is not None else {}
    return tensors, {"update": run.update, "counts": counts}


def put_state(run: Run, state: State, strategy: DistributedStrategy) -> None:
    """Put a run where it was when `state_of` was taken; the state's tensors are whole."""
    tensors, values = state
    with torch.no_grad():
        for name, weight in run.model.named_parameters():
            strategy.put(tensors[f"weights/{name}"], weight)
        for i, parameter in enumerate(_parameters(run.optimizer)):
            run.optimizer.state[parameter] = _moments(run, tensors, i, parameter, strategy)
        if run.trace is not None:
            sums = [key for key in tensors if key.startswith("trace/")]
            for key in sums:
                strategy.put(tensors[key], run.trace.sum(key.removeprefix("trace/")))
            run.trace.counts = dict(values["counts"])
    run.history.rows = tensors["history"].tolist()
    run.update = values["update"]


def _moments(
    run: Run,
    tensors: Mapping[str, torch.Tensor],
    i: int,
    parameter: torch.Tensor,
    strategy: DistributedStrategy,
) -> dict[str, torch.Tensor]:
    """Return the optimiser's state of its parameter number `i`."""
    prefix = f"optimizer/{i}/"
    keys: dict[str, dict[str, str]] = {}
    for key in tensors:
        if key.startswith(prefix):
            kind, _, part = key.removeprefix(prefix).partition("/")
            keys.setdefault(kind, {})[part] = key
    moments: dict[str, torch.Tensor] = {}
    for kind, parts in keys.items():
        if "" not in parts:
            found = {part: tensors[key].to(parameter.device) for part, key in parts.items()}
            moments[kind] = eight_bit_moment(kind, found)
        elif kind == "step":
            # Fused kernels count on the device, others in main memory.
            fused = run.optimizer.param_groups[0].get("fused", False)
            moments[kind] = tensors[parts[""]].to(parameter.device if fused else "cpu")
        else:
            moments[kind] = torch.zeros_like(parameter)
            strategy.put(tensors[parts[""]], moments[kind])
    return moments


def _parameters(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]
