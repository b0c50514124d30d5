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

from factrecall.parameters.placement import Place
from factrecall.parameters.sets import ParameterSet, different_spaces
from factrecall.parameters.sorted_sets import difference
from factrecall.parameters.space import ParameterSpace
from factrecall.parameters.streaming_topk import top_k
from factrecall.parameters.weights import Weights

if TYPE_CHECKING:
    from torch import nn


class PatchedWeights:
    """A fine-tuned model, some of whose weights are those before fine-tuning.

    Parameters
    ----------
    model : nn.Module
        The live model. What it holds when the `with` block begins is θtask; it holds that again
        after the block, to the bit.
    pre : mapping of str to tensor
        θpre by parameter name, a tied tensor once; never written.
    task : mapping of str to tensor, optional
        θtask, if it is to be had elsewhere than in the model; of use with "host" only.
    place : {"device", "host"}
        Whether θpre and θtask are kept on the model's device, in its dtypes, or left where they
        are given, outside of it (see `placement`).

    Raises
    ------
    FactRecallError
        When the two are not of one parameter space.

    Notes
    -----
    Memory on the device: the model, θpre and one copy of θtask; with "host" the model and, in
    passing, tensors. Then θtask is copied into main memory if it is not given.

    Examples
    --------
    >>> with PatchedWeights(model, pre) as weights:
    ...     weights.set(grafted)              # θtask on `grafted`, θpre elsewhere
    ...     weights.set(grafted - shared)     # writes the shared ones of them
    """

    def __init__(
        self,
        model: nn.Module,
        pre: Mapping[str, torch.Tensor],
        task: Mapping[str, torch.Tensor] | None = None,
        place: Place = "device",
    ) -> None:
        self.space, self.place = ParameterSpace.of(model), place
        self._live = {name: parameter.data for name, parameter in model.named_parameters()}
        self.device = next(iter(self._live.values())).device
        for weights in (pre,) if task is None else (pre, task):
            shapes = tuple(tuple(weights[n].shape) if n in weights else () for n in self._live)
            if (found := ParameterSpace(self.space.names, shapes)) != self.space:
                raise different_spaces("θpre and θtask", found.fingerprint, self.space.fingerprint)
        if place == "device":
            pre = {n: pre[n].detach().to(p.device, p.dtype) for n, p in self._live.items()}
        self.pre, self.task = Weights(pre, self._live), Weights({}, self._live)
        self._given = task if place == "host" else None
        self._held: dict[str, tuple[np.ndarray, bool]] = {}
        self._inside = False

    def __enter__(self) -> Self:
        kept = self._given
        if kept is None:
            on = self.device if self.place == "device" else torch.device("cpu")
            kept = {name: p.to(on, copy=True) for name, p in self._live.items()}
        self.task, self._inside = Weights(kept, self._live), True
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
            for name in self._live:
                self.task.write(name)
        self.task, self._held, self._inside = Weights({}, self._live), {}, False

    def set(self, task_on: ParameterSet) -> None:
        """Let the model hold θtask on a set and θpre elsewhere.

        Parameters
        ----------
        task_on : ParameterSet
            Of the model's space. Only what differs from the set held before is written.
        """
        if not self._inside:
            raise RuntimeError("weights are composed inside the `with` block only")
        if task_on.space != self.space:
            raise different_spaces(
                "the set and the model", task_on.space.fingerprint, self.space.fingerprint
            )
        with torch.no_grad():
            for name, local in task_on.by_tensor():
                self._write(name, local, task_on.complement)

    def toggle(self, name: str, local: np.ndarray, task: bool) -> None:
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
        with torch.no_grad():
            (self.task if task else self.pre).write_at(name, local)

    def write_tensor(self, name: str, values: torch.Tensor) -> None:
        """Let a tensor of the model hold other values, until the next `hold` writes it anew."""
        self._held.pop(name, None)
        with torch.no_grad():
            self._live[name].copy_(values)

    def changes(self, without: ParameterSet | None = None) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield each tensor's name and θtask − θpre, which is put to zero on a set."""
        without = without if without is not None else ParameterSet.empty(self.space)
        for name, local in without.by_tensor():
            yield name, self.change(name, local, without.complement)

    def change(self, name: str, local: np.ndarray, complement: bool = False) -> torch.Tensor:
        """Return θtask − θpre of a tensor, put to zero at some of its scalars or at all others."""
        change = self.task[name] - self.pre[name]
        index = torch.from_numpy(local.astype(np.int64)).to(change.device)
        if complement:
            kept = torch.zeros_like(change)
            kept.view(-1)[index] = change.view(-1)[index]
            return kept
        change.view(-1)[index] = 0.0
        return change

    def changed(self, without: ParameterSet) -> Mapping[str, torch.Tensor]:
        """Return θtask − θpre by tensor (see `changes`).

        All of it is held where θpre and θtask are on the device; else each tensor is computed when
        it is asked for.
        """
        if self.place == "device":
            return dict(self.changes(without))
        return _Changes(self, without)

    def largest_change(self, size: int, without: ParameterSet | None = None) -> ParameterSet:
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

        index, _ = top_k(movement, size, self.space.index_dtype, positive=True)
        return ParameterSet(self.space, index)

    def _write(self, name: str, local: np.ndarray, complement: bool) -> None:
        chosen, rest = (self.pre, self.task) if complement else (self.task, self.pre)
        # What is held is not known while it is written: an interrupt may come in between.
        held, was_inverted = self._held.pop(name, (None, complement))
        if held is None or was_inverted != complement:
            rest.write(name)
            chosen.write_at(name, local)
        elif not np.array_equal(held, local):
            enters, leaves = difference(held, local, self._live[name].numel())
            chosen.write_at(name, enters)
            rest.write_at(name, leaves)
        self._held[name] = local, complement


class _Changes(Mapping[str, torch.Tensor]):
    """θtask − θpre, computed when it is asked for."""

    def __init__(self, weights: PatchedWeights, without: ParameterSet) -> None:
        self._weights, self._inverted = weights, without.complement
        self._without = dict(without.by_tensor())

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._weights.change(name, self._without[name], self._inverted)

    def __iter__(self) -> Iterator[str]:
        return iter(self._without)

    def __len__(self) -> int:
        return len(self._without)
