"""Cluster bootstrap over people: percentile intervals of means and differences.

People are drawn, not answers: all answers about one person share a biography and a training
history, and are not independent.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

DRAWS = 10_000

TOGETHER = -1
"""In a table's column of seeds or layers: the mean over all of them."""


def paired_interval(
    differences: pd.Series, rng: np.random.Generator, level: float = 0.95
) -> tuple[float, float, float]:
    """Return mean, low and high: the percentile bootstrap interval over people.

    Parameters
    ----------
    differences : Series
        One difference a question, indexed with a level ``individual``; every individual has
        equally many.
    rng : Generator
        Draws `DRAWS` samples of people.
    level : float
        Share of the samples inside the interval.
    """
    people = differences.groupby(level="individual").agg(["sum", "size"])
    if people["size"].nunique() != 1:
        raise ValueError("people differ in how many of their questions were asked")
    low, high = bootstrap_interval(
        people["sum"].to_numpy(), int(people["size"].iloc[0]), rng, level
    )
    return float(differences.mean()), low, high


def bootstrap_interval(
    sums: np.ndarray, questions: int, rng: np.random.Generator, level: float = 0.95
) -> tuple[float, float]:
    """Return the percentile interval of a mean over people (see `paired_interval`).

    Parameters
    ----------
    sums : ndarray of int, shape (people,)
        Each person's sum of differences.
    questions : int
        How many differences each sum is of.
    """
    # People with equal sums are interchangeable: a sample is a multinomial draw over the few sums
    # there are, the same distribution at a fraction of the memory.
    values, counts = np.unique(sums, return_counts=True)
    drawn = rng.multinomial(len(sums), counts / len(sums), size=DRAWS)
    means = drawn @ values / (len(sums) * questions)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def ratio(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Divide; NaN where the count is zero."""
    result = np.full(sums.shape, np.nan)
    np.divide(sums, counts, out=result, where=counts > 0)
    return result
