"""Tracing a fine-tuning: whose gradients are accumulated, and the file they are kept in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from factrecall.data.traced import traced_individuals as traced_individuals
from factrecall.parameters.amounts import absolute_count
from factrecall.runtime.safetensors_writer import write_tensors
from factrecall.training.trace import GradientTrace

if TYPE_CHECKING:
    from factrecall.config.training import TraceSettings


def write_trace(
    path: Path, trace: GradientTrace, settings: TraceSettings, provenance: Mapping[str, Any]
) -> None:
    """Write the kept top of every ranking of a trace (see `GradientTrace.ranking`)."""
    n = trace.space.size
    keep = absolute_count(settings.top_fraction, n)
    ranking = trace.ranking(keep)
    if ranking is None:
        return
    metadata = {
        **trace.space.metadata(),
        "n": n,
        "keep": keep,
        "counts": trace.counts,
        "provenance": provenance,
    }
    write_tensors(path, ranking, metadata)
