"""The sweeps of a job, resumable: an interrupted job ends with the same bytes.

Near ties, an outcome may depend on the steps evaluated before it: residual streams are cached, and
rows are packed anew (see `incremental_forward`). So a sweep drops its cache before its first step
and again after every `AFRESH` passes, whether it is interrupted or not. From such a restart point
on, outcomes depend only on the steps evaluated from there on. The checkpoint holds the outcomes up
to the last restart point, and a resumed job continues from there.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import torch

from factrecall.experiments.circuits.sweep import Sweep
from factrecall.runtime.checkpoint import Checkpoint, State

AFRESH = 60
"""A sweep drops its cache after steps worth this many whole passes.

A restart costs about one pass, so less than 2 % of the time. A job that is interrupted stops after
its present step, and repeats at most this many passes when it is resumed.
"""

Outcomes = dict[int, np.ndarray]
"""By step, bool of shape (answers,), in the order of evaluation."""


class SweepRunner:
    """Evaluates one sweep after the other, each step once.

    Parameters
    ----------
    checkpoint : Checkpoint
        Of the job, inside its block; steps that it holds are not evaluated again.
    watch : callable
        Called before a step is evaluated, with the number of steps done.

    Attributes
    ----------
    outcomes : dict of int to ndarray of bool, shape (answers,)
        Of the present sweep, by step, in the order of evaluation.
    """

    def __init__(self, checkpoint: Checkpoint, watch: Callable[[int], None]) -> None:
        self._checkpoint, self._watch = checkpoint, watch
        state = checkpoint.restore()
        self._sweeps = _sweeps(state) if state else []
        self._present = -1

    def begin(self, sweep: Callable[[], Sweep], per_step: int, done: int) -> None:
        """Go on to the next sweep.

        Parameters
        ----------
        sweep : callable
            Begins it; called only if a step is not known.
        per_step : int
            How many nodes a step intervenes on.
        done : int
            How many steps the sweeps before it have.
        """
        self._present += 1
        if self._present == len(self._sweeps):
            self._sweeps.append({})
        self.outcomes = self._sweeps[self._present]
        self._safe = len(self.outcomes)
        self._sweep, self._per_step, self._done = cache(sweep), per_step, done

    def __call__(self, step: int) -> float:
        """Return the accuracy at a step of the present sweep.

        Raises
        ------
        Interrupted
            When a shutdown was requested; the checkpoint is saved then.
        """
        if step not in self.outcomes:
            self._watch(self._done + len(self.outcomes))
            sweep = self._sweep()
            if sweep.passes >= AFRESH:
                sweep.forget()
                self._safe = len(self.outcomes)
            self.outcomes[step] = sweep.at(min(step * self._per_step, sweep.nodes))
            if self._checkpoint.due():
                self._save()
        return float(self.outcomes[step].mean())

    def end(self) -> None:
        """Save everything, after the last sweep."""
        self._safe = len(self.outcomes)
        self._save()

    def _save(self) -> None:
        """Save the sweeps before the present one, and this one up to the last restart point."""
        rows = [
            (number, step, right)
            for number, outcomes in enumerate(self._sweeps)
            for step, right in list(outcomes.items())[
                : self._safe if outcomes is self.outcomes else None
            ]
        ]
        sweeps, steps, right = zip(*rows, strict=True) if rows else ((), (), ())
        tensors = {
            "sweep": torch.tensor(sweeps, dtype=torch.int32),
            "step": torch.tensor(steps, dtype=torch.int32),
            "right": torch.from_numpy(np.array(right, dtype=bool)),
        }
        self._checkpoint.save(tensors, {})


def _sweeps(state: State) -> list[Outcomes]:
    tensors, _ = state
    sweeps: list[Outcomes] = []
    columns = (tensors[name].numpy() for name in ("sweep", "step", "right"))
    for sweep, step, right in zip(*columns, strict=True):
        if sweep == len(sweeps):
            sweeps.append({})
        sweeps[sweep][int(step)] = right
    return sweeps
