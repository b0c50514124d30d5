"""Mean cosines of gradients over facts, with intervals over people and seeds."""

from __future__ import annotations

import pandas as pd

from factrecall.experiments.gradient_similarity.tables import GRADIENT_SUMMARY
from factrecall.runtime.intervals import estimate

CELL = ["model", "tuning", "phase", "share", "split", "traced", "group", "kind"]


def mean_cosines(facts: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of ``GRADIENT_SUMMARY``, given those of ``GRADIENTS`` with model and seed."""
    rows = []
    for key, part in facts.groupby(CELL, sort=False):
        people = part.groupby(["seed", "individual"])["cosine"].mean()
        found = estimate(people.rename("value").reset_index())
        rows.append((*key, found.value, found.low, found.high, part["cosine"].count()))
    return pd.DataFrame(rows, columns=list(GRADIENT_SUMMARY))
