"""95 % intervals of a mean over people and training seeds, or over full replicates.

Both are drawn: another study would have other people and other seeds. Seeds redraw the order of
examples alone, replicates everything (`runtime.replicates`). Within a replicate, the value of
person p in seed s is taken as μ + person + seed + rest (crossed random effects). With two or three
seeds and five people no single variance estimate covers, so the interval is the widest of three t
intervals (`widths`). `tests/unit/test_intervals.py` simulates its coverage at the study's numbers.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
import pandas as pd

from factrecall.runtime.replicates import replicate_of

NO_SPREAD = 1e-12
"""A half width below this is rounding: all values were equal."""


class Effect(NamedTuple):
    """A mean with its 95 % interval."""

    value: float
    low: float
    """NaN, as `high`: the interval is not known."""
    high: float
    seeds: int
    """How many trainings were observed."""
    people: int
    """How many people; 0 if the values are not of people."""
    method: str


def estimate(observations: pd.DataFrame) -> Effect:
    """Return the mean over seeds of the mean over people, with its 95 % interval.

    Parameters
    ----------
    observations : DataFrame
        A row a seed and person, with ``value`` and ``seed`` (without the column all are of one).
        Rows without a value are dropped. Where seeds are of two replicates or more
        (`runtime.replicates`), people, texts and θpre were drawn anew in each: the interval is then
        a t interval over the replicates' means, and people are counted in each.
        ``individual``: the person, who need not be in every seed. Without the column the interval
        is over seeds.
        ``questions``: of how many yes-or-no answers a value is the mean; matters only if all
        values are equal (`mean_and_half_width`).

    Returns
    -------
    Effect
        With one seed the interval is over people alone, and says nothing of other trainings.
        NaN bounds: one seed and not two people. NaN value: no observation.
    """
    observed = observations[observations["value"].notna()]
    if observed.empty:
        return Effect(np.nan, np.nan, np.nan, 0, 0, "no observation")
    if "seed" not in observed:
        observed = observed.assign(seed=0)
    seeds = observed["seed"].nunique()
    named = "individual" in observed
    people = observed["individual"].nunique() if named else 0
    replicates = replicate_of(observed["seed"])
    if replicates.nunique() > 1:
        parts = [estimate(part) for _, part in observed.groupby(replicates)]
        people = sum(part.people for part in parts)
        values, method = np.array([[part.value for part in parts]]), "replicates (t)"
    else:
        rows = observed if named else observed.assign(individual=0)
        # A second row of the same seed and person is refused here.
        values = rows.pivot(index="individual", columns="seed", values="value").to_numpy(float)
        method = {
            (False, False): "one seed, no interval",
            (False, True): "seeds (t)",
            (True, False): "people (t), one seed",
            (True, True): "people and seeds (t)",
        }[people > 1, seeds > 1]
    answers = int(observed["questions"].min()) if "questions" in observed else 1
    mean, half = (float(number) for number in mean_and_half_width(values, answers))
    return Effect(mean, mean - half, mean + half, seeds, people, method)


def mean_and_half_width(values: np.ndarray, answers: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Return means and half widths of 95 % intervals of many samples.

    The half width is the largest of `widths`. If all values of a sample are equal, their spread
    is not zero but unknown. It is then that of Clopper and Pearson's interval for "none of n
    differs, each by 1 at most", 1 - 0.025^(1/n), where n is the number of people, or of seeds if
    there are no people, times `answers`.

    Parameters
    ----------
    values : ndarray, shape (..., people, seeds)
        NaN where a person is not in a seed; every seed has somebody.
    answers : int
        Of how many yes-or-no answers each value is the mean.

    Returns
    -------
    means, half_widths : ndarray, shape (...)
        Half widths are NaN for one person in one seed.
    """
    means, candidates = widths(values)
    half = candidates.max(0)
    people, seeds = values.shape[-2:]
    units = people if people > 1 else seeds
    unknown = 1 - 0.025 ** (1 / (units * answers)) if units > 1 else np.nan
    return means, np.where(half < NO_SPREAD, unknown, half)


def widths(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return means and the half widths of three t intervals, shape (3, ...).

    1. Over people's means: right if seeds do not differ.
    2. Over seeds' means: right if people do not differ, and where each seed has its own people.
    3. Of both variances added, less that of the rest, which is in both; degrees of freedom by
       Satterthwaite. Right with many of each; with two seeds it covers 88 % alone, since its
       variance is too small just when chance brought the seeds together. Where the rest is larger
       than one of the two, that component would be negative: its estimate is 0, the other's
       interval stands, and this width is 0.

    Variances are method-of-moments estimates. They need no complete table: that of the seeds'
    means, seeds taken as fixed, is made of the covariances between seeds over the people in both.
    """
    seeds = values.shape[-1]
    seen = ~np.isnan(values)
    counts = seen.sum(-2)
    of_seeds = np.nansum(values, -2) / counts
    apart = np.where(seen, values - of_seeds[..., None, :], 0.0)
    once = seen.astype(float)
    both = once.swapaxes(-1, -2) @ once
    sums = apart.swapaxes(-1, -2) @ once
    products = apart.swapaxes(-1, -2) @ apart - sums * sums.swapaxes(-1, -2) / np.maximum(both, 1)
    shared = both / (counts[..., :, None] * counts[..., None, :])
    covariance = products / np.maximum(both - 1, 1) * shared  # of the seeds' means

    same = np.trace(covariance, axis1=-2, axis2=-1) / seeds
    people_variance = np.maximum(covariance.mean((-1, -2)), 0.0)
    # The mean covariance of different seeds is what persons add; the rest is what they do not.
    rest = np.maximum(same - people_variance, 0.0) / max(seeds - 1, 1)
    seed_variance = ((of_seeds - of_seeds.mean(-1, keepdims=True)) ** 2).sum(-1)
    seed_variance = seed_variance / (seeds * max(seeds - 1, 1))
    smaller = np.minimum(people_variance, seed_variance)
    # With other people in each seed, people and rest are equal but for rounding.
    excess = np.where(smaller > rest * (1 + 1e-9), smaller - rest, 0.0)
    added = np.where(excess > 0, excess + np.maximum(people_variance, seed_variance), 0.0)

    weights = (once / counts[..., None, :]).sum(-1) / seeds
    people_df = np.maximum(1 / (weights**2).sum(-1) - 1, 1.0)  # people - 1 if all are in all seeds
    seeds_df = np.full(people_df.shape, max(seeds - 1, 1.0))
    spread = (
        people_variance**2 / people_df
        + seed_variance**2 / seeds_df
        + rest**2 / (people_df * seeds_df)
    )
    added_df = added**2 / np.where(spread > 0, spread, 1.0)
    variances = np.stack([people_variance, seed_variance, added])
    freedom = np.stack([people_df, seeds_df, added_df])
    return of_seeds.mean(-1), t_quantile(freedom) * np.sqrt(variances)


def t_quantile(freedom: np.ndarray) -> np.ndarray:
    """Return the 97.5 % quantile of Student's t to four decimals; below one degree that of one."""
    inverse, quantiles = _t_table()
    found: np.ndarray = np.interp(1 / np.maximum(freedom, 1.0), inverse, quantiles)
    return found


@cache
def _t_table() -> tuple[np.ndarray, np.ndarray]:
    # With t = √df · tan φ the density of φ is proportional to cos(φ)^(df - 1): no tails to cut.
    inverse = np.linspace(0, 1, 1001)
    angle = np.linspace(0, np.pi / 2, 4001)
    quantiles = [1.959964]
    for df in 1 / inverse[1:]:
        density = np.cos(angle) ** (df - 1)
        below = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
        quantiles.append(np.sqrt(df) * np.tan(np.interp(0.95, below / below[-1], angle)))
    return inverse, np.array(quantiles)


def ratio_observations(numerator: pd.DataFrame, denominator: pd.DataFrame) -> pd.DataFrame:
    """Return observations whose `estimate` is that of a ratio of two means.

    In each seed the ratio R is that of the means over the people who are in both. A person's value
    is R and the person's pull on it: (people - 1) times how much R falls without the person
    (jackknife), less the mean of this. The ratio linearised in each person's deviation is nearly
    the same, but covers up to two points less where few people's denominators differ widely.

    Parameters
    ----------
    numerator, denominator : DataFrame
        As for `estimate`.

    Returns
    -------
    DataFrame
        Without the seeds whose mean denominator is 0, where the ratio is not defined.
    """
    cells = [name for name in ("seed", "individual") if name in numerator]
    pairs = numerator.merge(denominator, on=cells, suffixes=("", "_below"), validate="1:1")
    pairs = pairs.dropna(subset=["value", "value_below"])
    seeds = pairs.groupby([name for name in cells if name != "individual"])
    above, below = (seeds[name].transform("sum") for name in ("value", "value_below"))
    people = seeds["value"].transform("size")
    ratio = above / below.where(below.abs() > NO_SPREAD)
    others = below - pairs["value_below"]
    pull = (people - 1) * (pairs["value"] - ratio * pairs["value_below"])
    # Whoever alone has a denominator is the ratio: nothing is known of its spread.
    pull = pull / others.where(others.abs() > NO_SPREAD, 1.0)
    pull -= pull.groupby([pairs[name] for name in cells if name != "individual"]).transform("mean")
    return pairs[cells].assign(value=ratio + pull).dropna(ignore_index=True)
