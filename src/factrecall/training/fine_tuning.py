"""Tracing a fine-tuning: whose gradients are accumulated, and the file they are kept in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from factrecall.parameters.amounts import absolute_count
from factrecall.runtime.errors import FactRecallError
from factrecall.runtime.safetensors_writer import write_tensors
from factrecall.runtime.seeds import generator
from factrecall.training.trace import GradientTrace

if TYPE_CHECKING:
    import pandas as pd

    from factrecall.config.training import TraceSettings


def traced_individuals(
    individuals: pd.DataFrame, settings: TraceSettings, seed: int
) -> dict[int, str]:
    """Draw the traced individuals of both sides; the same for every model, tuning and seed."""
    traced: dict[int, str] = {}
    for side, key in (("in", "in_distribution"), ("out", "out_of_distribution")):
        count = getattr(settings, key)
        ids = individuals.loc[individuals["split"] == side, "individual"].to_numpy()
        if len(ids) < count:
            raise FactRecallError(
                f"trace.{key} = {count}",
                f"only {len(ids)} individuals are of split {side!r}",
                "lower it, or change the split column of your own people",
            )
        chosen = generator(seed, "traced", side).choice(ids, size=count, replace=False)
        traced |= {int(i): side for i in np.sort(chosen)}
    return traced


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
