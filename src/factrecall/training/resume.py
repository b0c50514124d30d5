"""Interrupted training goes on where it was.

The state of a run lies outside the outputs of its workflow rule (the workflow deletes those
before each start) in one file, named by a hash of everything that determines the run: another
recipe, seed, starting model or code is another file, and stale state is never taken up.
"""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from factrecall.errors import FactRecallError
from factrecall.storage import read_tensors, remove_leftovers, to_json, write_tensors

if TYPE_CHECKING:
    from factrecall.training.loop import Run


def run_key(identity: Mapping[str, Any], files: list[Path]) -> str:
    """Hash what determines a run: settings and versions, and the bytes of its input files."""
    digest = hashlib.sha256(to_json(dict(identity)).encode())
    for path in files:
        with path.open("rb") as handle:
            digest.update(hashlib.file_digest(handle, "sha256").digest())
    return digest.hexdigest()[:32]


class Checkpoint:
    """The state file of one run.

    Parameters
    ----------
    path : Path
        The file; its name holds the run's key.
    seconds : float
        How often it is written.
    """

    def __init__(self, path: Path, seconds: float) -> None:
        self.path = path
        self._seconds = seconds
        self._last = time.monotonic()

    def due(self, *, last: bool = False) -> bool:
        """Say whether the state should be written now."""
        return last or time.monotonic() - self._last >= self._seconds

    def save(self, run: Run) -> None:
        """Write weights, moments, trace and history in one atomic step."""
        tensors = {f"weights/{name}": p.detach() for name, p in run.model.named_parameters()}
        for i, parameter in enumerate(_parameters(run.optimizer)):
            for kind, value in run.optimizer.state[parameter].items():
                tensors[f"optimizer/{i}/{kind}"] = value
        if run.trace is not None:
            tensors |= {f"trace/{key}": value for key, value in run.trace.sums.items()}
        tensors["history"] = torch.tensor(run.history, dtype=torch.float64)
        counts = run.trace.counts if run.trace is not None else {}
        write_tensors(self.path, tensors, {"update": run.update, "counts": counts})
        self._last = time.monotonic()

    def restore(self, run: Run) -> None:
        """Take up the state if there is one; otherwise leave `run` as it is."""
        remove_leftovers(self.path)
        if not self.path.exists():
            return
        try:
            tensors, metadata = read_tensors(self.path)
        except FactRecallError as error:
            # Only time is lost; the state is a convenience and never the truth.
            print(f"saved state not usable, starting anew: {error.why}", file=sys.stderr)
            self.path.unlink()
            return
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
            run.trace.restore(sums, metadata["counts"])
        run.history = tensors["history"].tolist()
        run.update = metadata["update"]

    def remove(self) -> None:
        """Delete the state, once the run's outputs are in place."""
        self.path.unlink(missing_ok=True)


def _parameters(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]
