"""Snapshots: the weights of a model at evenly spaced moments of its fine-tuning.

Start and end are model folders anyway. A snapshot is first written beside the run's checkpoint,
since the workflow deletes the outputs of an interrupted run before it restarts; when all else is
written it is copied into place.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from factrecall.models.loading import load_model
from factrecall.parameters.sets import different_spaces
from factrecall.parameters.space import ParameterSpace
from factrecall.runtime.safetensors_writer import read_tensors, write_tensors
from factrecall.runtime.storage import atomic, remove_leftovers
from factrecall.training.distributed import DistributedStrategy

if TYPE_CHECKING:
    from torch import nn

    from factrecall.runtime.checkpoint import Checkpoint


class Snapshots:
    """The snapshots of one training run.

    Parameters
    ----------
    model : nn.Module
        The model in training.
    updates : int
        Of the whole run; snapshot i of m is taken after update ``round(updates * i / (m + 1))``.
    targets : sequence of Path
        The files to write, first moment first.
    checkpoint : Checkpoint
        Of the run. Each snapshot is a part of it until `publish`.
    provenance : mapping
        Kept in the metadata of every file.
    strategy : DistributedStrategy, optional
    """

    def __init__(
        self,
        model: nn.Module,
        updates: int,
        targets: Sequence[Path],
        checkpoint: Checkpoint,
        provenance: Mapping[str, Any],
        strategy: DistributedStrategy | None = None,
    ) -> None:
        self._model, self._strategy = model, strategy or DistributedStrategy()
        self._targets, self._provenance = list(targets), provenance
        numbers, parts = range(1, len(targets) + 1), len(targets) + 1
        self._shares = [i / parts for i in numbers]
        self.moments = [round(updates * i / parts) for i in numbers]
        self._parts = [checkpoint.part(f"snapshot{i}").path for i in numbers]
        for path in (*self._targets, *self._parts):
            remove_leftovers(path)

    def take(self, update: int) -> None:
        """Write the weights, if this many updates are one of the moments (two may be equal)."""
        for moment, share, part in zip(self.moments, self._shares, self._parts, strict=True):
            if moment == update:
                weights = {name: p.detach() for name, p in self._model.named_parameters()}
                said = {"share": share, "update": update, "provenance": dict(self._provenance)}
                metadata = ParameterSpace.of(self._model).metadata() | said
                self._strategy.on_rank0(weights, partial(write_tensors, part, metadata=metadata))

    def kept(self, update: int) -> bool:
        """Say whether all snapshots up to a number of updates are there; else a run starts over."""
        moments = zip(self.moments, self._parts, strict=True)
        return all(part.exists() for moment, part in moments if moment <= update)

    def publish(self) -> None:
        """Put all snapshots in place.

        They are copied: a run that is killed in between resumes from its state and their parts,
        which are removed with the state (`Checkpoint.remove`).
        """
        for part, target in zip(self._parts, self._targets, strict=True):
            with atomic(target) as temporary:
                shutil.copyfile(part, temporary)


def load_weights(model: nn.Module, path: Path) -> None:
    """Write the weights of a snapshot or, for start and end, a model folder into a model.

    Raises
    ------
    FactRecallError
        When the file or folder is missing, damaged, no such thing or of another parameter space.
    """
    weights: Mapping[str, torch.Tensor]
    if path.is_dir():
        opened = load_model(path)
        weights, found = dict(opened.named_parameters()), ParameterSpace.of(opened)
    else:
        weights, metadata = read_tensors(path, ("names", "shapes", "share"))
        found = ParameterSpace.from_metadata(metadata)
    if found != (space := ParameterSpace.of(model)):
        raise different_spaces(str(path), found.fingerprint, space.fingerprint)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(weights[name])
