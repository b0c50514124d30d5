"""The cross-task gradient trace (paper, section 3.1; method, section 4).

While a model is fine-tuned, the gradients of a few traced examples are recorded: each time such
an example is in the batch, its own gradient of its own mean loss, at the weights before the
step, is added up with the step's learning rate. The trace only watches: weights are the same to
the bit with and without it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING

import torch

from factrecall.parameters.space import ParameterSpace
from factrecall.parameters.top import falling, top

if TYPE_CHECKING:
    from torch import nn

INFLUENCES = ("absolute", "magnitude", "signed")
TASKS = ("BIO_in", "BIO_out", "QA_in")


class GradientTrace:
    """Accumulated influence of each task on each parameter.

    Parameters
    ----------
    model : nn.Module
        The model in training; accumulators share its dtypes and device.
    individuals : mapping of int to str
        Traced individuals and their side, "in" or "out".

    Attributes
    ----------
    sums : dict of str to tensor
        ``"<task>/signed/<parameter>"`` holds the sum of lr·g, ``"<task>/absolute/<parameter>"``
        that of |lr·g|, in the parameter's shape. Tasks appear when first recorded.
    counts : dict of str to int
        How many gradients each task has added up.
    """

    def __init__(self, model: nn.Module, individuals: Mapping[int, str]) -> None:
        self.space = ParameterSpace.of(model)
        self._parameters = dict(model.named_parameters())
        self._individuals = dict(individuals)
        first = next(iter(self._parameters.values()))
        self._scratch = torch.empty(max(self.space.sizes), dtype=first.dtype, device=first.device)
        self.sums: dict[str, torch.Tensor] = {}
        self.counts: dict[str, int] = {}

    def task(self, kind: str, individual: int) -> str | None:
        """Return the task an example belongs to, or None if it is not traced."""
        side = self._individuals.get(individual)
        if side is None or (kind == "qa" and side == "out"):
            return None
        return f"{kind.upper()}_{side}"

    def add(self, task: str, loss: torch.Tensor, learning_rate: float) -> None:
        """Add one example's gradient to its task.

        Parameters
        ----------
        task : str
            One of ``TASKS``.
        loss : scalar tensor
            The example's own mean loss, with its graph.
        learning_rate : float
            Of the step the example takes part in.
        """
        gradients = torch.autograd.grad(loss, list(self._parameters.values()))
        self.counts[task] = self.counts.get(task, 0) + 1
        with torch.no_grad():
            for name, gradient in zip(self._parameters, gradients, strict=True):
                # Gradients may share memory with each other, and fresh memory costs more than sums.
                magnitude = self._scratch[: gradient.numel()].view(gradient.shape)
                torch.abs(gradient, out=magnitude)
                self._sum(task, "signed", name).add_(gradient, alpha=learning_rate)
                self._sum(task, "absolute", name).add_(magnitude, alpha=learning_rate)

    def _sum(self, task: str, influence: str, name: str) -> torch.Tensor:
        key = f"{task}/{influence}/{name}"
        if key not in self.sums:
            self.sums[key] = torch.zeros_like(self._parameters[name])
        return self.sums[key]

    def restore(self, sums: Mapping[str, torch.Tensor], counts: Mapping[str, int]) -> None:
        """Take up the sums of an interrupted run."""
        device = next(iter(self._parameters.values())).device
        self.sums = {key: tensor.to(device) for key, tensor in sums.items()}
        self.counts = dict(counts)

    def influence(self, task: str, influence: str) -> Iterator[torch.Tensor]:
        """Yield a task's influence on each tensor, in the order of the parameter space."""
        kind = "absolute" if influence == "absolute" else "signed"
        for name in self.space.names:
            tensor = self.sums[f"{task}/{kind}/{name}"]
            yield tensor.abs() if influence == "magnitude" else tensor

    def ranking(self, keep: int) -> dict[str, torch.Tensor]:
        """Return the most influenced parameters of every task and reading.

        Parameters
        ----------
        keep : int
            How many at most. Parameters without influence (0) are left out of `absolute` and
            `magnitude`: nothing can be said of their rank.

        Returns
        -------
        dict of str to tensor
            ``"<task>/<influence>/index"``: flat indices, most influenced first, ties by index;
            ``"<task>/<influence>/value"``: their influence.
        """
        result = {}
        for task in self.counts:
            for influence in INFLUENCES:
                index, value = top(
                    partial(self.influence, task, influence),
                    keep,
                    self.space.index_dtype,
                    positive=influence != "signed",
                )
                order = falling(value)
                result[f"{task}/{influence}/index"] = torch.from_numpy(index[order])
                result[f"{task}/{influence}/value"] = torch.from_numpy(value[order])
        return result
