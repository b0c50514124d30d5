"""Full replicates of a study, told apart by their seeds.

In each replicate people, texts, θpre and the order of examples are drawn anew. Replicate r (0, 1,
...) has the study seed `seed` + 1000 r, and its fine-tunings have the seeds s + 1000 r, for every s
of `training.seeds`. The column `seed` of a table thus says which replicate a row is of, and
replicate 0 is the study that has no others: the same seeds, files and results. `runs` lists the
seeds of a study.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import pandas as pd

PER_REPLICATE = 1000
"""By how much the seeds of a replicate are above those of the one before."""

Seeds = TypeVar("Seeds", int, "pd.Series[int]")


def replicate_of(seed: Seeds) -> Seeds:
    """Return the replicate, from 0, that a seed or each of a column of seeds is of."""
    return seed // PER_REPLICATE


def seed_in(replicate: int, seed: int) -> int:
    """Return the seed of a replicate that stands for a seed of the configuration."""
    return seed + PER_REPLICATE * replicate
