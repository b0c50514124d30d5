"""Cross-task gradient trace (paper, section 3.1; docs/method.md, gradient trace).

Each time a traced example is in the batch, the gradient of its own mean loss, at the weights
before the step, is summed with the step's learning rate. The trace only watches: weights are the
same to the bit with and without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import EllipsisType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch

from factrecall.models.backward import gradients
from factrecall.parameters.amounts import absolute_count
from factrecall.parameters.space import ParameterSpace
from factrecall.parameters.streaming_topk import argsort_descending, top_k
from factrecall.runtime.safetensors_writer import write_tensors
from factrecall.training.distributed import DistributedStrategy

if TYPE_CHECKING:
    from torch import nn

    from factrecall.config.training import TraceSettings
    from factrecall.training.optimisers import AdamStep

Use = Callable[[torch.Tensor], object]
Piece = slice | EllipsisType

BLOCK = 1 << 16
"""Numbers of a large gradient that are added up at a time: they stay in the cache."""

LARGE = 1 << 20
"""Numbers from which a gradient is large."""


class Reading(NamedTuple):
    """How a task's sums are ranked: which sum, what of it, and whether zeros have no rank."""

    sum: Literal["absolute", "signed", "adam"]
    of: Callable[[torch.Tensor], torch.Tensor] | None
    positive: bool


READINGS: dict[str, Reading] = {
    "absolute": Reading("absolute", None, positive=True),
    "magnitude": Reading("signed", torch.abs, positive=True),
    "signed": Reading("signed", None, positive=False),
    "adam": Reading("adam", torch.abs, positive=True),
}
"""The influences of `vocabulary.Influence`."""


class GradientTrace:
    """Accumulated influence of each task on each parameter.

    Parameters
    ----------
    model : nn.Module
        The model in training; sums share its dtypes.
    individuals : mapping of int to str
        Traced individuals and their side, "in" or "out".
    where : {"device", "host"}
        Whether sums are kept with the model's parameters or in main memory.
    strategy : DistributedStrategy, optional
        Each of its processes keeps sums of its part of the parameters.

    Attributes
    ----------
    sums : dict of str to tensor
        ``"<task>/signed/<parameter>"`` holds the sum of lr·g, ``"<task>/absolute/<parameter>"``
        that of |lr·g|, ``"<task>/adam/<parameter>"`` that of the examples' parts of AdamW's
        updates, in the parameter's shape. Tasks appear when first recorded.
    counts : dict of str to int
        How many gradients each task has added up.
    """

    def __init__(
        self,
        model: nn.Module,
        individuals: Mapping[int, str],
        where: Literal["device", "host"] = "device",
        strategy: DistributedStrategy | None = None,
    ) -> None:
        self.space = ParameterSpace.of(model)
        self._parameters = dict(model.named_parameters())
        self._individuals = dict(individuals)
        self._host = where == "host"
        self._strategy = strategy or DistributedStrategy()
        parts = [self._strategy.local(p) for p in self._parameters.values()]
        device = parts[0].device
        self._sum_device = torch.device("cpu") if self._host else device
        longest = max(part.numel() for part in parts)
        self._scratch = torch.empty(longest, dtype=parts[0].dtype, device=self._sum_device)
        travels = self._host and device.type == "cuda"
        self._transfer = PinnedTransfer(longest, parts[0].dtype) if travels else None
        self.sums: dict[str, torch.Tensor] = {}
        self.counts: dict[str, int] = {}

    def task(self, kind: str, individual: int) -> str | None:
        """Return the task an example belongs to, or None if it is not traced."""
        side = self._individuals.get(individual)
        if side is None or (kind == "qa" and side == "out"):
            return None
        return f"{kind.upper()}_{side}"

    def add(
        self, task: str, loss: torch.Tensor, learning_rate: float, adam: AdamStep | None = None
    ) -> None:
        """Add one example's gradient to its task.

        Parameters
        ----------
        task : str
            One of ``TASKS``.
        loss : scalar tensor
            The example's own mean loss, with its graph.
        learning_rate : float
            Of the step.
        adam : AdamStep, optional
            The step; without it there is no sum of updates, and no ranking by it.
        """
        self.counts[task] = self.counts.get(task, 0) + 1

        def add(name: str, piece: Piece, gradient: torch.Tensor) -> None:
            # Fresh memory would cost more than the sums.
            magnitude = self._scratch[: gradient.numel()].view(gradient.shape)
            torch.abs(gradient, out=magnitude)
            plus("signed", name, piece, gradient)
            plus("absolute", name, piece, magnitude)

        def plus(kind: str, name: str, piece: Piece, value: torch.Tensor) -> None:
            part = self._strategy.local(self.sum(f"{task}/{kind}/{name}"))
            part[piece].add_(value, alpha=learning_rate)

        def send(value: torch.Tensor, use: Use) -> None:
            use(value) if self._transfer is None else self._transfer.take(value, use)

        def take(name: str, gradient: torch.Tensor) -> None:
            part = self._strategy.local(gradient)
            if part.device.type == "cpu" and torch.cuda.is_initialized():
                # An offloaded gradient may still be on its way (before PyTorch 2.13 it is).
                torch.cuda.current_stream().synchronize()
            whole = adam is not None and not adam.plain  # moments in 8 bits
            for piece in (...,) if whole else pieces(part):
                send(part[piece], partial(add, name, piece))
                if adam is not None:
                    update = adam.update(self._parameters[name], part, piece)
                    send(update, partial(plus, "adam", name, piece))

        with gradients(self._parameters, take):
            loss.backward()
        if self._transfer is not None:
            self._transfer.finish()

    def sum(self, key: str) -> torch.Tensor:
        """Return a sum (see `sums`), which is 0 to begin with."""
        if key not in self.sums:
            parameter = self._parameters[key.split("/", 2)[2]]
            self.sums[key] = torch.zeros_like(parameter, device=self._sum_device)
        return self.sums[key]

    def influence(self, task: str, influence: str) -> Iterator[torch.Tensor]:
        """Yield a task's influence on each tensor, in the order of the parameter space."""
        return self._influence(self.sums, task, influence)

    def _influence(
        self, sums: Mapping[str, torch.Tensor], task: str, influence: str
    ) -> Iterator[torch.Tensor]:
        reading = READINGS[influence]
        for name in self.space.names:
            tensor = sums[f"{task}/{reading.sum}/{name}"]
            yield tensor if reading.of is None else reading.of(tensor)

    def ranking(self, keep: int) -> dict[str, torch.Tensor] | None:
        """Return the `keep` most influenced parameters of every task and reading.

        `absolute` and `magnitude` leave out parameters without influence (0): they have no rank.

        Returns
        -------
        dict of str to tensor
            ``"<task>/<influence>/index"``: flat indices, most influenced first, ties by index;
            ``"<task>/<influence>/value"``: their influence. None but in the first process.
        """
        return self._strategy.on_rank0(self.sums, partial(self._rank, keep))

    def _rank(self, keep: int, sums: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        result = {}
        for task in self.counts:
            for influence, reading in READINGS.items():
                if f"{task}/{reading.sum}/{self.space.names[0]}" not in sums:
                    continue
                index, value = top_k(
                    partial(self._influence, sums, task, influence),
                    keep,
                    self.space.index_dtype,
                    positive=reading.positive,
                )
                order = argsort_descending(value)
                result[f"{task}/{influence}/index"] = torch.from_numpy(index[order])
                result[f"{task}/{influence}/value"] = torch.from_numpy(value[order])
        return result


def pieces(part: torch.Tensor) -> Sequence[Piece]:
    """Return the parts of a gradient, rows of it, that are added up one after the other.

    A dozen operations on each number follow one another: on one thread of a CPU they are twice as
    fast while what they read and write is in the cache. Several threads would wait for each other
    after each. Results are the same to the bit.
    """
    if part.device.type != "cpu" or part.numel() < LARGE or torch.get_num_threads() > 1:
        return (...,)
    rows = max(1, BLOCK * len(part) // part.numel())
    return [slice(start, start + rows) for start in range(0, len(part), rows)]


class PinnedTransfer:
    """Transfer of gradients from a GPU to main memory: one is copied while the last is used.

    `longest` is the number of elements of the largest gradient.
    """

    def __init__(self, longest: int, dtype: torch.dtype) -> None:
        self._free = [torch.empty(longest, dtype=dtype, pin_memory=True) for _ in range(2)]
        self._waiting: tuple[torch.Tensor, torch.Tensor, torch.cuda.Event, Use] | None = None

    def take(self, gradient: torch.Tensor, use: Use) -> None:
        """Send a gradient on its way; use the one that was sent before."""
        buffer = self._free.pop()
        landed = buffer[: gradient.numel()].view(gradient.shape)
        landed.copy_(gradient, non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record()
        self.finish()
        self._waiting = buffer, landed, arrived, use

    def finish(self) -> None:
        """Use the gradient that was sent last."""
        if self._waiting is not None:
            (buffer, landed, arrived, use), self._waiting = self._waiting, None
            arrived.synchronize()
            use(landed)
            self._free.append(buffer)


def write_trace(
    path: Path, trace: GradientTrace, settings: TraceSettings, provenance: Mapping[str, Any]
) -> None:
    """Write the kept top of every ranking of a trace (see `GradientTrace.ranking`)."""
    n = trace.space.size
    keep = absolute_count(settings.top_fraction, n)
    if (ranking := trace.ranking(keep)) is not None:
        said = {"n": n, "keep": keep, "counts": trace.counts, "provenance": provenance}
        write_tensors(path, ranking, trace.space.metadata() | said)
