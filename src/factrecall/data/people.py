"""Synthetic individuals: every attribute is uniform and independent of the others and the name.

Each column has its own generator, and individuals of pre-training have generators of their own, so
that the number of the one group does not change the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from factrecall.data.pools import Pools, make_pools
from factrecall.runtime.errors import FactRecallError
from factrecall.runtime.seeds import generator
from factrecall.vocabulary import RELATIONS

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from numpy.typing import NDArray

    from factrecall.config.facts import Facts

GENDERS = ("F", "M")
# fmt: off
MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)
# fmt: on
PEOPLE_COLUMNS = ("individual", "split", "name", "gender", *RELATIONS)


def sample_people(settings: Facts, seed: int) -> pd.DataFrame:
    """Draw the individuals of a study.

    Parameters
    ----------
    settings : factrecall.config.facts.Facts
        Their number, which fits the names, their split and the sizes of the pools.
    seed : int
        The study seed.

    Returns
    -------
    pandas.DataFrame
        One row per individual, those of pre-training last: individual (int32, from 0), split
        ("in", "out", "pretrain"), name (unique), gender ("F", "M"), and each relation as text.

    Raises
    ------
    FactRecallError
        When a pool has fewer values than asked for.
    """
    pools = make_pools(settings.pools, seed)
    names = _full_names(pools)
    order = generator(seed, "people", "name").permutation(len(names))[: settings.people]
    people = _draw_people("people", names[order], pools, settings, seed)
    people.insert(0, "split", draw_split(len(people), settings.in_distribution, seed))
    return with_pretrain_people(people, pools, settings, seed)


def draw_split(count: int, share: float, seed: int) -> NDArray[np.object_]:
    """Return "in" for a random `share` of `count` individuals, "out" for the others.

    Each side gets at least one individual, whatever the share.
    """
    inside = min(max(round(count * share), 1), count - 1)
    split = np.full(count, "out", dtype=object)
    split[generator(seed, "people", "split").permutation(count)[:inside]] = "in"
    return split


def draw_genders(count: int, seed: int, group: str = "people") -> NDArray[np.object_]:
    """Return `count` genders, each "F" or "M" with equal probability."""
    return _draw(GENDERS, count, seed, group, "gender")


def with_pretrain_people(
    people: pd.DataFrame, pools: Pools, settings: Facts, seed: int
) -> pd.DataFrame:
    """Append the individuals of pre-training, who share no full name with `people`; number all.

    Raises
    ------
    FactRecallError
        When too few names are left.
    """
    free = _full_names(pools, without=people["name"])
    if settings.pretrain_people > len(free):
        raise FactRecallError(
            "facts.pretrain_people",
            f"it asks for {settings.pretrain_people} names beside those of the study, "
            f"only {len(free)} are left",
            "ask for fewer, or raise facts.pools.first_names or facts.pools.last_names",
        )
    order = generator(seed, "pretrain", "name").permutation(len(free))[: settings.pretrain_people]
    others = _draw_people("pretrain", free[order], pools, settings, seed)
    others.insert(0, "split", np.full(len(others), "pretrain", dtype=object))
    # One dtype of text, whether or not there are others and wherever the columns come from.
    table = pd.concat([people, others], ignore_index=True).astype("str")
    table.insert(0, "individual", np.arange(len(table), dtype=np.int32))
    return table[list(PEOPLE_COLUMNS)]


def _full_names(pools: Pools, without: Collection[str] = ()) -> NDArray[np.object_]:
    taken = set(without)
    names = (f"{first} {last}" for first in pools.first_names for last in pools.last_names)
    return np.array([name for name in names if name not in taken], dtype=object)


def _draw_people(
    group: str, names: NDArray[np.object_], pools: Pools, settings: Facts, seed: int
) -> pd.DataFrame:
    def draw(values: Sequence[str], column: str) -> NDArray[np.object_]:
        return _draw(values, len(names), seed, group, column)

    columns = {
        "name": names,
        "gender": draw_genders(len(names), seed, group),
        "birth_date": _dates(len(names), settings, seed, group),
        "birth_city": draw(pools.cities, "birth_city"),
        "university": draw(pools.universities, "university"),
        "job": draw(pools.jobs, "job"),
        "employer": draw(pools.companies, "employer"),
        "blood_type": draw(pools.blood_types, "blood_type"),
    }
    return pd.DataFrame(columns)


def _draw(
    values: Sequence[str], count: int, seed: int, group: str, column: str
) -> NDArray[np.object_]:
    chosen = generator(seed, group, column).integers(len(values), size=count)
    return np.array(values, dtype=object)[chosen]


def _dates(count: int, settings: Facts, seed: int, group: str) -> NDArray[np.object_]:
    draw = generator(seed, group, "birth_date")
    years = draw.integers(settings.pools.first_year, settings.pools.last_year + 1, size=count)
    months = draw.integers(12, size=count)
    days = draw.integers(1, 29, size=count)  # every month has 28 days
    dates = [
        f"{MONTHS[month]} {day}, {year}"
        for year, month, day in zip(years, months, days, strict=True)
    ]
    return np.array(dates, dtype=object)
