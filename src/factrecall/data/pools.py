"""Pools: the values from which attributes are drawn.

A pool is a random permutation of a fixed list, cut to its size: with the same seed a smaller pool
is the start of a larger one. Names, jobs, cities and companies are those of Faker (en_US); the
institutions are real and listed in `institutions.txt`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING

from factrecall.runtime.errors import FactRecallError
from factrecall.runtime.seeds import derive, generator

if TYPE_CHECKING:
    from factrecall.config.facts import PoolSizes

BLOOD_TYPES = ("A+", "A-", "B+", "B-", "AB+", "AB-", "O+", "O-")
# fmt: off
STATES = (
    "AL", "AK", "AZ", "AR", "CA", "CO", "CT", "DE", "FL", "GA", "HI", "ID", "IL", "IN",
    "IA", "KS", "KY", "LA", "ME", "MD", "MA", "MI", "MN", "MS", "MO", "MT", "NE", "NV",
    "NH", "NJ", "NM", "NY", "NC", "ND", "OH", "OK", "OR", "PA", "RI", "SC", "SD", "TN",
    "TX", "UT", "VT", "VA", "WA", "WV", "WI", "WY", "DC", "AS", "GU", "MP", "PR", "VI",
)
# fmt: on
# Faker's jobs are cut at hyphens, as "Copy" of a copy-editor; a crew is no single person.
# fmt: off
_NO_JOBS = frozenset({
    "air cabin crew", "cabin crew", "copy", "land", "make", "publishing copy", "sub", "press sub",
    "teacher, early years/pre",
})
# fmt: on


@dataclass(frozen=True)
class Pools:
    """The values of one study, each pool without repetition."""

    first_names: tuple[str, ...]
    last_names: tuple[str, ...]
    cities: tuple[str, ...]
    universities: tuple[str, ...]
    jobs: tuple[str, ...]
    companies: tuple[str, ...]
    blood_types: tuple[str, ...] = BLOOD_TYPES


def make_pools(sizes: PoolSizes, seed: int) -> Pools:
    """Draw the pools of a study.

    Parameters
    ----------
    sizes : factrecall.config.facts.PoolSizes
        Number of values of each kind.
    seed : int
        The study seed.

    Raises
    ------
    FactRecallError
        When the source has fewer different values than a pool.
    """
    from faker.providers.address.en_US import Provider as Address
    from faker.providers.job.en_US import Provider as Job
    from faker.providers.person.en_US import Provider as Person

    first, last = set(Person.first_names), set(Person.last_names)
    cities = {name + end for name in first | last for end in Address.city_suffixes}
    jobs = {job.lower() for job in Job.jobs} - _NO_JOBS

    def draw(key: str, values: Iterable[str]) -> tuple[str, ...]:
        # Sorted, because the order of a set differs between processes.
        ordered = sorted(values)
        size = int(getattr(sizes, key))
        _check_size(key, size, len(ordered))
        order = generator(seed, "pool", key).permutation(len(ordered))
        return tuple(ordered[i] for i in order[:size])

    return Pools(
        first_names=draw("first_names", first),
        last_names=draw("last_names", last),
        cities=_with_states(draw("cities", cities), seed),
        universities=draw("universities", institutions()),
        jobs=draw("jobs", jobs),
        companies=_companies(sizes.companies, seed),
    )


def institutions() -> tuple[str, ...]:
    """Return the real US institutions of higher education that the project lists."""
    listed = resources.files("factrecall.data") / "institutions.txt"
    return tuple(listed.read_text(encoding="utf-8").split("\n")[:-1])


def _with_states(cities: tuple[str, ...], seed: int) -> tuple[str, ...]:
    states = generator(seed, "pool", "states").integers(len(STATES), size=len(cities))
    return tuple(f"{city}, {STATES[state]}" for city, state in zip(cities, states, strict=True))


def _companies(size: int, seed: int) -> tuple[str, ...]:
    from faker import Faker

    faker = Faker("en_US")
    faker.seed_instance(derive(seed, "pool", "companies"))
    return unique(faker.company, "companies", size)


def unique(draw: Callable[[], str], key: str, size: int) -> tuple[str, ...]:
    """Return the first `size` different results of `draw`; raise after 1,000 without a new one."""
    found: dict[str, None] = {}
    misses = 0
    while len(found) < size:
        before = len(found)
        found[draw()] = None
        misses = misses + 1 if len(found) == before else 0
        if misses == 1000:
            _check_size(key, size, len(found))
    return tuple(found)


def _check_size(key: str, size: int, available: int) -> None:
    if size > available:
        raise FactRecallError(
            f"facts.pools.{key}",
            f"it asks for {size} different values, only {available} exist",
            f"set it to {available} or less",
        )
