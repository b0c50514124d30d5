"""The job that runs a stage: its device, its provenance, and where its state is kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from factrecall.runtime.storage import Schema, read_table, remove_leftovers, write_table

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from factrecall.runtime.checkpoint import Checkpoint


@dataclass(frozen=True)
class Job:
    """What a stage's function gets beside its files and settings.

    Attributes
    ----------
    device : torch.device
        Where to run; None for stages without a model.
    provenance : mapping
        Kept in the metadata of every file; part of the key of saved states.
    state : Path
        Folder for the states of interrupted jobs, outside the workflow's outputs.
    checkpoint_interval_s : float
        How often the state is saved.
    cache_gb : float
        Memory for hidden states that later passes start from.
    inputs, outputs, values
        The stage's files and all its other arguments, filled in by `runtime.stage`.
    """

    device: torch.device = None  # type: ignore[assignment]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    state: Path = Path("state")
    checkpoint_interval_s: float = 60.0
    cache_gb: float = 1.0
    inputs: tuple[Path, ...] = ()
    outputs: tuple[Path, ...] = ()
    values: Mapping[str, str] = field(default_factory=dict)

    def read(self, path: Path, schema: Schema) -> pd.DataFrame:
        """Read a table and check it."""
        return read_table(path, schema)

    def write(self, path: Path, frame: pd.DataFrame, schema: Schema) -> None:
        """Write a table with the job's provenance."""
        write_table(path, frame, schema, self.provenance)

    def checkpoint(self, *, saves: bool = True, **more: Any) -> Checkpoint:
        """Return where the job keeps its state; what a killed one left of its outputs is removed.

        Parameters
        ----------
        saves : bool
            False for all but the first of several processes: its clock alone counts.
        **more
            What else determines the work, beside arguments, input files, device and threads.
        """
        import torch

        from factrecall.runtime.checkpoint import Checkpoint, files_of

        identity = {
            **self.provenance,
            **self.values,
            **more,
            "device": self.device.type,
            "threads": torch.get_num_threads(),
            # Equal jobs of two models may run at the same time.
            "outputs": [str(path) for path in self.outputs],
        }
        for path in self.outputs:
            remove_leftovers(path)
        every = self.checkpoint_interval_s if saves else float("inf")
        return Checkpoint.of(self.state, identity, files_of(self.inputs), every)
