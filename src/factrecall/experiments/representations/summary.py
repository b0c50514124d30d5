"""Summaries of probes, gradient similarity, attribution and patching over all models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from factrecall.evaluation.exact_match import Evaluation
from factrecall.experiments.attribution.attribution_summary import (
    summarise_attribution,
    summarise_patching,
)
from factrecall.experiments.gradient_similarity.summary import summarise_gradients
from factrecall.experiments.representations.probe_summary import Probed, summarise_probes


@dataclass(frozen=True)
class Represented:
    """The tables of one fine-tuned model."""

    model: str
    tuning: str
    seed: int
    probes: Path
    fits: Path
    gradients: Path
    signature: Path
    patching: Path

    def of(self, table: Path) -> Evaluation:
        """Return one of them with what made it."""
        return Evaluation(self.model, self.tuning, self.seed, table)


def summarise_representations(
    seed: int,
    *,
    runs: Sequence[Represented],
    probes: Path,
    consistency: Path,
    gradients: Path,
    signature: Path,
    patching: Path,
    provenance: Mapping[str, Any],
) -> None:
    """Write the study's tables of representations.

    Parameters
    ----------
    seed : int
        The study's; draws the samples of people behind all intervals.
    runs : sequence of Represented
        The tables of every fine-tuned model.
    probes, consistency, gradients, signature, patching : Path
        The tables to write (see the functions that are called).
    provenance : mapping
        Kept in the metadata of every table.
    """
    probed = [Probed(r.model, r.tuning, r.seed, r.probes, r.fits) for r in runs]
    summarise_probes(seed, runs=probed, out=probes, consistency=consistency, provenance=provenance)
    for summarise, tables, out in (
        (summarise_gradients, [r.of(r.gradients) for r in runs], gradients),
        (summarise_attribution, [r.of(r.signature) for r in runs], signature),
        (summarise_patching, [r.of(r.patching) for r in runs], patching),
    ):
        summarise(seed, runs=tables, out=out, provenance=provenance)
