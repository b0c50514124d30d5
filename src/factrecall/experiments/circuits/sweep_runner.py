"""The steps of a job's sweeps, asked and kept, so that an interrupted job ends with the same bytes.

In near ties a verdict may hang on what was asked before it: residual streams are kept, and rows
packed anew (see `models.restart`). So a sweep forgets all that before its first step, and again
whenever `AFRESH` passes have been made since, whether it is ever interrupted or not. From there on
its verdicts are a function of the steps asked from there on. The state holds what was found up to
the last of these points, and whoever takes it up asks on as a job does that never stopped.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import torch

from factrecall.experiments.circuits.sweep import Sweep
from factrecall.runtime.checkpoint import Checkpoint, State

AFRESH = 60
"""How many whole passes' worth of steps a sweep asks before it forgets what came before.

To begin afresh costs about one pass more, so less than 2 % of the time. A job that is to leave
does so after the step it is at; what was asked since the last point is asked again, these passes at
most.
"""

Found = dict[int, np.ndarray]
"""Verdicts by step, bool of shape (answers,), in the order in which steps were asked."""


class SweepRunner:
    """Asks one sweep after the other, each step once.

    Parameters
    ----------
    checkpoint : Checkpoint
        Of the job, inside its block; what it holds is not asked again.
    watch : callable
        Called before a step is asked, with the number of steps done.

    Attributes
    ----------
    found : dict of int to ndarray of bool, shape (answers,)
        What the present sweep has found, by step, in the order in which steps were asked.
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
        self.found = self._sweeps[self._present]
        self._safe = len(self.found)
        self._sweep, self._per_step, self._done = cache(sweep), per_step, done

    def __call__(self, step: int) -> float:
        """Return the share of answers that are right at a step of the present sweep.

        Raises
        ------
        Interrupted
            When the command is to leave; the state is safe then.
        """
        if step not in self.found:
            self._watch(self._done + len(self.found))
            sweep = self._sweep()
            if sweep.passes >= AFRESH:
                sweep.forget()
                self._safe = len(self.found)
            self.found[step] = sweep.at(min(step * self._per_step, sweep.nodes))
            if self._checkpoint.due():
                self._save()
        return float(self.found[step].mean())

    def end(self) -> None:
        """Save everything, after the last sweep."""
        self._safe = len(self.found)
        self._save()

    def _save(self) -> None:
        """Save the sweeps before the present one, and this one up to the last point."""
        rows = [
            (number, step, right)
            for number, found in enumerate(self._sweeps)
            for step, right in list(found.items())[: self._safe if found is self.found else None]
        ]
        sweeps, steps, verdicts = zip(*rows, strict=True) if rows else ((), (), ())
        tensors = {
            "sweep": torch.tensor(sweeps, dtype=torch.int32),
            "step": torch.tensor(steps, dtype=torch.int32),
            "right": torch.from_numpy(np.array(verdicts, dtype=bool)),
        }
        self._checkpoint.save(tensors, {})


def _sweeps(state: State) -> list[Found]:
    tensors, _ = state
    sweeps: list[Found] = []
    columns = (tensors[name].numpy() for name in ("sweep", "step", "right"))
    for sweep, step, right in zip(*columns, strict=True):
        if sweep == len(sweeps):
            sweeps.append({})
        sweeps[sweep][int(step)] = right
    return sweeps
