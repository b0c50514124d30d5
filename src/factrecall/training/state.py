"""The state of a training run as tensors: weights, moments, trace and history."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from factrecall.resume import State
    from factrecall.training.loop import Run


def state_of(run: Run) -> State:
    """Return all that a run depends on."""
    tensors = {f"weights/{name}": p.detach() for name, p in run.model.named_parameters()}
    for i, parameter in enumerate(_parameters(run.optimizer)):
        for kind, value in run.optimizer.state[parameter].items():
            tensors[f"optimizer/{i}/{kind}"] = value
    if run.trace is not None:
        tensors |= {f"trace/{key}": value for key, value in run.trace.sums.items()}
    tensors["history"] = torch.tensor(run.history, dtype=torch.float64)
    counts = run.trace.counts if run.trace is not None else {}
    return tensors, {"update": run.update, "counts": counts}


def put_state(run: Run, state: State) -> None:
    """Put a run where it was when `state_of` was taken."""
    tensors, values = state
    with torch.no_grad():
        for name, weight in run.model.named_parameters():
            weight.copy_(tensors[f"weights/{name}"])
    for i, parameter in enumerate(_parameters(run.optimizer)):
        prefix = f"optimizer/{i}/"
        run.optimizer.state[parameter] = {
            key.removeprefix(prefix): value.to(parameter.device)
            for key, value in tensors.items()
            if key.startswith(prefix)
        }
    if run.trace is not None:
        sums = {
            key.removeprefix("trace/"): value
            for key, value in tensors.items()
            if key.startswith("trace/")
        }
        run.trace.restore(sums, values["counts"])
    run.history = tensors["history"].tolist()
    run.update = values["update"]


def _parameters(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]
