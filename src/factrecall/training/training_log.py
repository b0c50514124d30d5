"""Training log: a row an update.

A GPU computes ahead of the program, unless that waits for a number. So losses and norms stay on
the device and are fetched many updates at a time. A loss that is not finite is noticed some updates
late, but before anything is saved. On a CPU they are fetched before each step is taken.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd
import torch

from factrecall.runtime.errors import FactRecallError
from factrecall.runtime.storage import write_table
from factrecall.vocabulary import FORMATS

if TYPE_CHECKING:
    import numpy as np

    from factrecall.training.batches import MicroBatch
    from factrecall.training.distributed import DistributedStrategy
    from factrecall.training.loader import Update

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

EVERY = 20
"""After how many updates numbers are fetched from a GPU."""


class _Pending(NamedTuple):
    """An update whose numbers are still on the device."""

    update: Update
    losses: list[torch.Tensor]
    norm: torch.Tensor


@dataclass
class TrainingLog:
    """Rows of updates, in the order of ``HISTORY``, and updates that are still to be fetched."""

    strategy: DistributedStrategy
    every: int
    rows: list[list[float]] = field(default_factory=list)
    _pending: list[_Pending] = field(default_factory=list)

    @property
    def loss(self) -> float:
        """The last loss that is known."""
        return self.rows[-1][2] if self.rows else math.nan

    def add(self, update: Update, losses: list[torch.Tensor], norm: torch.Tensor) -> None:
        """Take the numbers of an update; `fetch`, if it is time.

        Parameters
        ----------
        update : Update
        losses : list of tensor, shape (targets,) each
            Of this process's micro-batches.
        norm : scalar tensor
            Of the gradient, over all processes.
        """
        self._pending.append(_Pending(update, losses, norm))
        if len(self._pending) >= self.every:
            self.fetch()

    def fetch(self) -> None:
        """Make rows of all numbers.

        Raises
        ------
        FactRecallError
            When a loss or gradient is not finite; names update, learning rate and individuals.
        """
        pending, self._pending = self._pending, []
        if not pending:
            return
        found = torch.cat([part for one in pending for part in one.losses]).double().cpu()
        norms = torch.stack([one.norm for one in pending]).double().cpu().tolist()
        sizes = [len(part) for one in pending for part in one.losses]
        parts = iter(found.split(sizes))
        sums = [_sums(one.update.batches, [next(parts) for _ in one.losses]) for one in pending]
        totals = self.strategy.total(torch.tensor(sums, dtype=torch.float64)).tolist()
        for one, norm, (bio, qa) in zip(pending, norms, totals, strict=True):
            update = one.update
            loss = (bio + qa) / update.targets
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise _diverged(update, loss, norm)
            means = []
            for kind, total in zip(FORMATS, (bio, qa), strict=True):
                targets = sum(e.predicted for e in update.examples if e.kind == kind)
                means.append(total / targets if targets else math.nan)
            tokens = sum(len(e.tokens) for e in update.examples)
            self.rows.append([update.number, update.rate, loss, *means, norm, tokens])


def _sums(batches: Sequence[MicroBatch], losses: Sequence[torch.Tensor]) -> list[float]:
    """Add up the losses of each kind, example by example."""
    sums = dict.fromkeys(FORMATS, 0.0)
    for batch, found in zip(batches, losses, strict=True):
        sizes = [e.predicted for e in batch.members]
        for member, values in zip(batch.members, found.split(sizes), strict=True):
            sums[member.kind] += float(values.sum())
    return [sums[kind] for kind in FORMATS]


def _diverged(update: Update, loss: float, norm: float) -> FactRecallError:
    ids = ", ".join(f"{e.kind} of {e.individual}" for e in update.examples[:64])
    return FactRecallError(
        f"training diverged at update {update.number}",
        f"the loss is {loss}, the gradient's norm {norm}, at learning rate {update.rate:.3g}; "
        f"batch: {ids}",
        "lower the learning rate, lengthen the warm-up or set clip; if it happens at update 0, "
        "the starting weights are damaged",
    )


def write_history(path: Path, history: np.ndarray, provenance: Mapping[str, Any]) -> None:
    """Write a training history (see ``HISTORY``)."""
    frame = pd.DataFrame(history, columns=list(HISTORY))
    integers = {column: kind for column, kind in HISTORY.items() if kind.startswith("int")}
    write_table(path, frame.astype(integers), HISTORY, provenance)
