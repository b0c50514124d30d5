"""Whose gradients are recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from factrecall.runtime.errors import FactRecallError
from factrecall.runtime.seeds import generator

if TYPE_CHECKING:
    import pandas as pd

    from factrecall.config.training import TraceSettings


def traced_individuals(
    individuals: pd.DataFrame, settings: TraceSettings, seed: int
) -> dict[int, str]:
    """Draw the traced individuals of both sides; the same for every model, tuning and seed."""
    import numpy as np

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
