"""Compose: one live model that holds θtask on a set of parameters and θpre elsewhere.

Everything after training is asked of such models: a set ablated is θ(all but the set), a set
grafted θ(the set), a circuit θ(some nodes of the set) (method, section 5). The weights are
written into the model in place and only where they differ from what is there, so that a step of
a sweep costs what it changes; on leaving, whatever happened inside, the model is as it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np
import torch

from factrecall.parameters.rising import exchanged
from factrecall.parameters.sets import ParameterSet, different_spaces
from factrecall.parameters.space import ParameterSpace
from factrecall.parameters.top import top

if TYPE_CHECKING:
    from torch import nn


class Composition:
    """A fine-tuned model, some of whose weights are those before fine-tuning.

    Parameters
    ----------
    model : nn.Module
        The live model. What it holds when the `with` block begins is θtask; it holds that again
        after the block, to the bit.
    pre : mapping of str to tensor
        θpre by parameter name, a tied tensor once; never written. Taken to the model's device
        and dtype, without a copy where it is there already.

    Raises
    ------
    FactRecallError
        When the two are not of one parameter space.

    Notes
    -----
    Memory: the model, θpre and one copy of θtask.

    Examples
    --------
    >>> with Composition(model, pre) as weights:
    ...     weights.hold(grafted)              # θtask on `grafted`, θpre elsewhere
    ...     weights.hold(grafted - shared)     # writes the shared ones of them
    """

    def __init__(self, model: nn.Module, pre: Mapping[str, torch.Tensor]) -> None:
        self.space = ParameterSpace.of(model)
        self._live = {name: parameter.data for name, parameter in model.named_parameters()}
        shapes = tuple(tuple(pre[n].shape) if n in pre else () for n in self.space.names)
        if (found := ParameterSpace(self.space.names, shapes)) != self.space:
            raise different_spaces("θpre and θtask", found.fingerprint, self.space.fingerprint)
        self.pre = {n: pre[n].detach().to(p.device, p.dtype) for n, p in self._live.items()}
        self.task: dict[str, torch.Tensor] = {}
        self._held: dict[str, tuple[np.ndarray, bool]] = {}

    def __enter__(self) -> Self:
        self.task = {name: parameter.clone() for name, parameter in self._live.items()}
        everything = np.empty(0, dtype=self.space.index_dtype), True
        self._held = dict.fromkeys(self.space.names, everything)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with torch.no_grad():
            for name, parameter in self._live.items():
                parameter.copy_(self.task[name])
        self.task, self._held = {}, {}

    def hold(self, task_on: ParameterSet) -> None:
        """Let the model hold θtask on a set and θpre elsewhere.

        Parameters
        ----------
        task_on : ParameterSet
            Of the model's space. Only what differs from the set held before is written.
        """
        if not self.task:
            raise RuntimeError("weights are composed inside the `with` block only")
        if task_on.space != self.space:
            raise different_spaces(
                "the set and the model", task_on.space.fingerprint, self.space.fingerprint
            )
        with torch.no_grad():
            for name, local in task_on.by_tensor():
                self._write(name, local, task_on.inverted)

    def flip(self, name: str, local: np.ndarray, task: bool) -> None:
        """Let some scalars of a tensor hold θtask or θpre; the next `hold` writes it all anew.

        Parameters
        ----------
        name : str
            The tensor.
        local : ndarray of int64
            Which of its scalars, counted from its first.
        task : bool
            Whether they are to hold θtask.
        """
        self._held.pop(name, None)
        source = (self.task if task else self.pre)[name]
        with torch.no_grad():
            _copy(self._live[name].view(-1), source.view(-1), local)

    def put(self, name: str, values: torch.Tensor) -> None:
        """Let a tensor of the model hold other values, until the next `hold` writes it anew."""
        self._held.pop(name, None)
        with torch.no_grad():
            self._live[name].copy_(values)

    def changes(self, without: ParameterSet | None = None) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield each tensor's name and θtask − θpre, which is put to zero on a set."""
        without = without if without is not None else ParameterSet.nothing(self.space)
        for name, local in without.by_tensor():
            change = self.task[name] - self.pre[name]
            index = _index(local, change)
            if without.inverted:
                kept = torch.zeros_like(change)
                kept.view(-1)[index] = change.view(-1)[index]
                change = kept
            else:
                change.view(-1)[index] = 0.0
            yield name, change

    def most_moved(self, size: int, without: ParameterSet | None = None) -> ParameterSet:
        """Return the `size` parameters of largest |θtask − θpre|, or all that moved if fewer did.

        Parameters
        ----------
        size : int
            How many are wanted.
        without : ParameterSet, optional
            Parameters that are not to be among them.
        """

        def movement() -> Iterator[torch.Tensor]:
            for _, change in self.changes(without):
                yield change.abs_()

        index, _ = top(movement, size, self.space.index_dtype, positive=True)
        return ParameterSet(self.space, index)

    def _write(self, name: str, local: np.ndarray, inverted: bool) -> None:
        live, chosen, rest = (
            weights[name].view(-1) for weights in (self._live, self.task, self.pre)
        )
        if inverted:
            chosen, rest = rest, chosen
        # What is held is not known while it is written: an interrupt may come in between.
        held, was_inverted = self._held.pop(name, (None, inverted))
        if held is None or was_inverted != inverted:
            live.copy_(rest)
            _copy(live, chosen, local)
        elif not np.array_equal(held, local):
            enters, leaves = exchanged(held, local, live.numel())
            _copy(live, chosen, enters)
            _copy(live, rest, leaves)
        self._held[name] = local, inverted


def _copy(to: torch.Tensor, source: torch.Tensor, where: np.ndarray) -> None:
    index = _index(where, to)
    to[index] = source[index]


def _index(where: np.ndarray, of: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(where.astype(np.int64)).to(of.device)
