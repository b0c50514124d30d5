"""Pools and invented people: unique, uniform, independent, reproducible."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from factrecall.config.facts import Facts, PoolSizes
from factrecall.data.people import PEOPLE_COLUMNS, sample_people
from factrecall.data.pools import STATES, institutions, make_pools, unique
from factrecall.runtime.errors import FactRecallError
from factrecall.vocabulary import RELATIONS

POOLS = ("first_names", "last_names", "cities", "universities", "jobs", "companies")


@pytest.fixture(scope="module")
def people() -> pd.DataFrame:
    return sample_people(Facts(people=10_000, pretrain_people=500), seed=0)


@pytest.mark.parametrize("key", POOLS)
def test_pools_hold_as_many_different_values_as_asked(key: str) -> None:
    values = getattr(make_pools(PoolSizes(), 0), key)
    assert len(values) == len(set(values)) == getattr(PoolSizes(), key)
    assert all(value == value.strip() and value for value in values)


@pytest.mark.parametrize("key", POOLS)
def test_smaller_pool_is_the_beginning_of_a_larger(key: str) -> None:
    whole = getattr(make_pools(PoolSizes(), 3), key)
    small = getattr(make_pools(PoolSizes(**{key: 20}), 3), key)
    assert small == whole[:20]


@pytest.mark.parametrize("key", POOLS)
def test_pools_depend_on_the_seed_alone(key: str) -> None:
    assert getattr(make_pools(PoolSizes(), 0), key) == getattr(make_pools(PoolSizes(), 0), key)
    assert getattr(make_pools(PoolSizes(), 0), key) != getattr(make_pools(PoolSizes(), 1), key)


def test_largest_pools_of_the_settings_exist() -> None:
    bounds = {
        key: next(m.le for m in PoolSizes.model_fields[key].metadata if hasattr(m, "le"))
        for key in POOLS
    }
    pools = make_pools(PoolSizes(**bounds), 0)
    assert {key: len(set(getattr(pools, key))) for key in POOLS} == bounds


def test_cities_are_single_invented_words_each_tied_to_one_state() -> None:
    cities = [city.split(", ") for city in make_pools(PoolSizes(cities=2000), 0).cities]
    names = [name for name, _ in cities]
    assert len(set(names)) == 2000
    assert all(name.isalpha() and name.istitle() for name in names)
    assert {state for _, state in cities} == set(STATES)
    assert len(set(STATES)) == 56


def test_jobs_are_lower_case_and_no_cut_off_words() -> None:
    jobs = make_pools(PoolSizes(jobs=600), 0).jobs
    assert all(job == job.lower() for job in jobs)
    assert not {"copy", "land", "make", "sub"} & set(jobs)


def test_institutions_are_three_hundred_plain_names() -> None:
    names = institutions()
    assert len(names) == len(set(names)) == 300
    assert not [name for name in names if "," in name or "." in name or name != name.strip()]
    # Grammatical after a preposition without an article.
    assert not [name for name in names if name.startswith(("University of", "The "))]


def test_pool_beyond_its_source_names_key_value_and_remedy() -> None:
    sizes = PoolSizes.model_construct(**{**PoolSizes().model_dump(), "jobs": 5000})
    with pytest.raises(FactRecallError) as error:
        make_pools(sizes, 0)
    assert error.value.where == "facts.pools.jobs"
    assert "5000" in error.value.why
    available = error.value.remedy.split()[3]
    assert len(make_pools(sizes.model_copy(update={"jobs": int(available)}), 0).jobs) > 600


def test_a_source_that_repeats_itself_is_given_up() -> None:
    values = iter(["a", "b"] * 2000)
    with pytest.raises(FactRecallError, match="only 2 exist"):
        unique(lambda: next(values), "companies", 3)


def test_form_of_the_table(people: pd.DataFrame) -> None:
    assert tuple(people.columns) == PEOPLE_COLUMNS
    assert people["individual"].dtype == np.int32
    assert people["individual"].tolist() == list(range(10_500))
    assert set(people["gender"]) == {"F", "M"}
    assert people["split"].value_counts().to_dict() == {"in": 5000, "out": 5000, "pretrain": 500}
    assert set(people["split"].iloc[10_000:]) == {"pretrain"}
    assert not people.isna().any().any()


def test_full_names_are_unique_over_study_and_pretraining(people: pd.DataFrame) -> None:
    assert people["name"].is_unique


def test_dates_are_written_out_and_within_bounds(people: pd.DataFrame) -> None:
    parts = people["birth_date"].str.extract(r"^([A-Z][a-z]+) (\d{1,2}), (\d{4})$")
    assert not parts.isna().any().any()
    assert set(parts[1].astype(int)) == set(range(1, 29))
    assert set(parts[2].astype(int)) == set(range(1900, 2100))
    assert parts[0].nunique() == 12


def chi_square(counts: pd.Series, kinds: int) -> float:
    """Return the statistic of uniformity in standard deviations from its mean."""
    expected = counts.sum() / kinds
    absent = kinds - len(counts)
    statistic = ((counts - expected) ** 2 / expected).sum() + absent * expected
    degrees = kinds - 1
    return float((statistic - degrees) / np.sqrt(2 * degrees))


def columns_to_test(people: pd.DataFrame) -> dict[str, tuple[pd.Series, int]]:
    study = people[people["split"] != "pretrain"]
    month = study["birth_date"].str.split(" ").str[0]
    return {
        "first": (study["name"].str.split(" ").str[0], 400),
        "last": (study["name"].str.split(" ").str[1], 1000),
        "gender": (study["gender"], 2),
        "month": (month, 12),
        "day": (study["birth_date"].str.extract(r" (\d+),")[0], 28),
        "year": (study["birth_date"].str[-4:], 200),
        "birth_city": (study["birth_city"], 200),
        "university": (study["university"], 300),
        "job": (study["job"], 100),
        "employer": (study["employer"], 263),
        "blood_type": (study["blood_type"], 8),
        # Independence: pairs are uniform too.
        "gender x blood": (study["gender"] + study["blood_type"], 16),
        "month x blood": (month + study["blood_type"], 96),
        "split x gender": (study["split"] + study["gender"], 4),
        "job x gender": (study["job"] + study["gender"], 200),
    }


def test_every_attribute_is_uniform_and_pairs_are_independent(people: pd.DataFrame) -> None:
    # At a fixed seed; 4.5 standard deviations would be met by chance in well under 1 of 1,000.
    far = {
        name: deviation
        for name, (values, kinds) in columns_to_test(people).items()
        if abs(deviation := chi_square(values.value_counts(), kinds)) > 4.5
    }
    assert not far


def test_the_uniformity_test_can_fail() -> None:
    values = np.random.default_rng(0).choice(8, size=10_000, p=[0.15] + [0.85 / 7] * 7)
    assert chi_square(pd.Series(values).value_counts(), 8) > 4.5


def test_gender_is_independent_of_the_name(people: pd.DataFrame) -> None:
    first = people["name"].str.split(" ").str[0]
    genders = people.groupby(first)["gender"].nunique()
    assert (genders == 2).mean() > 0.99


def test_same_seed_same_people_other_seed_others() -> None:
    settings = Facts(people=50, pretrain_people=10)
    pd.testing.assert_frame_equal(sample_people(settings, 1), sample_people(settings, 1))
    others = sample_people(settings, 2)
    for column in ("name", "gender", *RELATIONS):
        assert not sample_people(settings, 1)[column].equals(others[column])


def test_pretrain_people_leave_study_people_unchanged() -> None:
    few = sample_people(Facts(people=60, pretrain_people=0), 5)
    many = sample_people(Facts(people=60, pretrain_people=40), 5)
    pd.testing.assert_frame_equal(few, many.iloc[:60])


@pytest.mark.parametrize(("people", "share", "inside"), [(2, 0.01, 1), (2, 0.99, 1), (10, 0.3, 3)])
def test_both_splits_have_people_whatever_the_share(people: int, share: float, inside: int) -> None:
    table = sample_people(Facts(people=people, in_distribution=share), 0)
    assert (table["split"] == "in").sum() == inside


def test_every_full_name_can_be_used_and_not_one_more() -> None:
    pools = PoolSizes(first_names=4, last_names=5)
    full = sample_people(Facts(people=12, pretrain_people=8, pools=pools), 0)
    assert full["name"].nunique() == 20
    with pytest.raises(FactRecallError) as error:
        # The configuration refuses this, too, if it is checked.
        settings = Facts(people=12, pretrain_people=8, pools=pools)
        sample_people(settings.model_copy(update={"people": 13}), 0)
    assert error.value.where == "facts.pretrain_people"
    assert "8" in error.value.why and "7" in error.value.why
    assert "facts.pools.first_names" in error.value.remedy


def test_people_of_pretraining_do_not_repeat_the_draws_of_the_study() -> None:
    table = sample_people(Facts(people=200, pretrain_people=200), 0)
    study, others = table.iloc[:200].reset_index(), table.iloc[200:].reset_index()
    for column in ("gender", *RELATIONS):
        assert (study[column] == others[column]).mean() < 0.7, column


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_pools_are_the_same_in_every_process(hash_seed: str) -> None:
    code = (
        "from factrecall.config.facts import PoolSizes;"
        "from factrecall.data.pools import make_pools;"
        "print(repr(make_pools(PoolSizes(), 0)))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    shown = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert shown.strip() == repr(make_pools(PoolSizes(), 0))
