"""Patched weights: one live model that holds θtask on a set of parameters and θpre elsewhere.

A set ablated is θ(all but the set), a set grafted θ(the set), a circuit θ(some nodes of the set)
(docs/method.md). Weights are written in place, and only where they differ from what is there.
On leaving, whatever happened inside, the model is as it was.
"""

from __future__ import annotations

from collections.abc import Mapping
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
from factrecall.runtime.lazy_mapping import LazyMapping

if TYPE_CHECKING:
    from torch import nn


class PatchedWeights:
    """A fine-tuned model, some of whose weights are those before fine-tuning.

    Parameters
    ----------
    model : nn.Module
        The live model; it holds θtask before the `with` block and, to the bit, after it.
    pre : mapping of str to tensor
        θpre by parameter name, a tied tensor once; never written.
    task : mapping of str to tensor, optional
        θtask, if it is kept elsewhere than in the model; used with "host" only.
    place : {"device", "host"}
        Whether θpre and θtask are kept on the model's device, or left where they are given (see
        `placement`).

    Raises
    ------
    FactRecallError
        When the two are not of one parameter space.

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
        """Let the model hold θtask on a set and θpre elsewhere; what differs is written."""
        if not self._inside:
            raise RuntimeError("weights are patched inside the `with` block only")
        if task_on.space != self.space:
            raise different_spaces(
                "the set and the model", task_on.space.fingerprint, self.space.fingerprint
            )
        with torch.no_grad():
            for name, local in task_on.by_tensor():
                self._write(name, local, task_on.complement)

    def toggle(self, name: str, local: np.ndarray, task: bool) -> None:
        """Let some scalars of a tensor hold θtask or θpre; the next `set` writes it all anew.

        `local` are int64 positions, counted from the tensor's first scalar.
        """
        self._held.pop(name, None)
        with torch.no_grad():
            (self.task if task else self.pre).write_at(name, local)

    def write_tensor(self, name: str, values: torch.Tensor) -> None:
        """Let a tensor of the model hold other values, until the next `set` writes it anew."""
        self._held.pop(name, None)
        with torch.no_grad():
            self._live[name].copy_(values)

    def changes(self, without: ParameterSet | None = None) -> Mapping[str, torch.Tensor]:
        """Return θtask − θpre by tensor, zero on a set; computed when it is asked for."""
        without = without if without is not None else ParameterSet.empty(self.space)
        zeros = dict(without.by_tensor())

        def change(name: str) -> torch.Tensor:
            change = self.task[name] - self.pre[name]
            index = torch.from_numpy(zeros[name].astype(np.int64)).to(change.device)
            target = torch.zeros_like(change) if without.complement else change
            target.view(-1)[index] = change.view(-1)[index] if without.complement else 0.0
            return target

        return LazyMapping(zeros, change)

    def changed(self, without: ParameterSet) -> Mapping[str, torch.Tensor]:
        """Return `changes`; all of them are held if θpre and θtask are on the device."""
        changes = self.changes(without)
        return dict(changes) if self.place == "device" else changes

    def largest_change(self, size: int, without: ParameterSet | None = None) -> ParameterSet:
        """Return the `size` parameters of largest |θtask − θpre|, or all that moved if fewer did.

        Those of `without` are not among them.
        """
        moved = self.changes(without)
        index, _ = top_k(
            lambda: (change.abs_() for change in moved.values()),
            size,
            self.space.index_dtype,
            positive=True,
        )
        return ParameterSet(self.space, index)

    def _write(self, name: str, local: np.ndarray, complement: bool) -> None:
        chosen, rest = (self.pre, self.task) if complement else (self.task, self.pre)
        # What is held is not known while it is written: an interrupt may come in between.
        held, was_complement = self._held.pop(name, (None, complement))
        if held is None or was_complement != complement:
            rest.write(name)
            chosen.write_at(name, local)
        elif not np.array_equal(held, local):
            enters, leaves = difference(held, local, self._live[name].numel())
            chosen.write_at(name, enters)
            rest.write_at(name, leaves)
        self._held[name] = local, complement
