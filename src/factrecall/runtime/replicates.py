"""Full replicates of a study, told apart by their seeds.

In each replicate people, texts, θpre and the order of examples are drawn anew. Replicate r (0, 1,
...) has the study seed `seed` + 1000 r, and its fine-tunings have the seeds s + 1000 r, for every s
of `training.seeds`. The column `seed` of a table thus says which replicate a row is of, and
replicate 0 is the study that has no others: the same seeds, files and results.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import pandas as pd

    from factrecall.config.study import Study

PER_REPLICATE = 1000
"""By how much the seeds of a replicate are above those of the one before."""

Seeds = TypeVar("Seeds", int, "pd.Series[int]")


def replicate_of(seed: Seeds) -> Seeds:
    """Return the replicate, from 0, that a seed or each of a column of seeds is of."""
    return seed // PER_REPLICATE


def study_seeds(study: Study) -> list[int]:
    """Return the study seed of each replicate."""
    return [study.seed + PER_REPLICATE * number for number in range(study.replicates)]


def run_seeds(study: Study) -> list[int]:
    """Return the seeds of all fine-tunings, replicate by replicate."""
    return [
        seed + PER_REPLICATE * number
        for number in range(study.replicates)
        for seed in study.training.seeds
    ]


def study_seed_of(study: Study, seed: int) -> int:
    """Return the study seed of the replicate that a fine-tuning, or θpre, with a seed is of."""
    # Seeds of a study without replicates may be of any size.
    number = replicate_of(seed) if study.replicates > 1 else 0
    return study.seed + PER_REPLICATE * number
