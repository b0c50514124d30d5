"""Seeds say which replicate a job and its rows are of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from factrecall.config.reading import read_study
from factrecall.config.study import Study
from factrecall.cost.jobs import jobs_of
from factrecall.runs import (
    base_seed,
    evaluations,
    replicates,
    run_seeds,
    study_seed_of,
    study_seeds,
    trainings,
)
from factrecall.runtime.replicates import PER_REPLICATE, replicate_of
from factrecall.workflow.stages import STAGES, parameters

PRESET = Path(__file__).parents[2] / "workflow/presets/ci.yaml"
SMALL = st.integers(0, PER_REPLICATE - 1)


@pytest.fixture(scope="module")
def study() -> Study:
    return read_study(PRESET)


def changed(study: Study, **keys: Any) -> Study:
    """Return a study with other values of some keys, checked as one that is read."""
    seeds = keys.pop("seeds", study.training.seeds)
    raw = study.model_dump()
    return Study.model_validate({**raw, "training": {**raw["training"], "seeds": seeds}, **keys})


@given(SMALL, st.lists(SMALL, min_size=1, max_size=4, unique=True), st.integers(1, 5))
def test_a_seed_tells_its_replicate(seed: int, seeds: list[int], count: int) -> None:
    study = changed(read_study(PRESET), seed=seed, seeds=seeds, replicates=count)
    found = run_seeds(study)
    assert len(set(found)) == count * len(seeds) and found[: len(seeds)] == seeds
    assert study_seeds(study)[0] == seed and len(set(study_seeds(study))) == count
    for number in range(count):
        own = found[number * len(seeds) : (number + 1) * len(seeds)]
        assert {replicate_of(s) for s in own} == {number}
        assert [s % PER_REPLICATE for s in own] == seeds
        assert {study_seed_of(study, s) for s in own} == {study_seeds(study)[number]}
        # θpre carries the study seed, which is of the same replicate.
        assert study_seed_of(study, study_seeds(study)[number]) == study_seeds(study)[number]
    assert replicate_of(pd.Series(found)).tolist() == [replicate_of(s) for s in found]


@pytest.mark.parametrize(("seed", "seeds"), [(123_456, [5, 6]), (7, [2024, 2025])])
def test_without_replicates_seeds_are_of_any_size(
    study: Study, seed: int, seeds: list[int]
) -> None:
    alone = changed(study, seed=seed, seeds=seeds)
    assert run_seeds(alone) == seeds
    assert {study_seed_of(alone, s) for s in (seed, *seeds)} == {seed}


def test_further_replicates_add_jobs_and_change_none(study: Study) -> None:
    twice = changed(study, replicates=2)
    before, after = set(jobs_of(study)), set(jobs_of(twice))
    assert before <= after
    counts = {name: [0, 0] for name in STAGES}
    for place, jobs in enumerate((before, after)):
        for job in jobs:
            counts[job.stage][place] += 1
    for name, (one, two) in counts.items():
        once = name.startswith(("summarise-", "draw-", "judge-", "write-", "attention-"))
        assert two == (one if once else 2 * one), name
    assert replicates(twice) == [{"seed": 0}, {"seed": PER_REPLICATE}]
    assert {run["seed"] for run in trainings(twice)} == {0, 1, 1000, 1001}
    assert {run["seed"] for run in evaluations(twice) if run["tuning"] == "base"} == {0, 1000}


def test_a_stage_gets_the_study_seed_of_its_replicate(study: Study) -> None:
    twice = changed(study, seed=3, replicates=2)
    for name, stage in STAGES.items():
        if "study_seed" not in {argument.name for argument in stage.of("setting")}:
            continue
        known = {"model": "llama-tiny", "tuning": "mix", "kind": "unit", "ranking": "shared"}
        found = [
            parameters(twice, name, **known, seed=seed)["settings"]["study_seed"]
            for seed in (0, 1, 1000, 1001)
        ]
        assert found == [3, 3, 1003, 1003], name
        first = {**known, "seed": 1}
        assert parameters(twice, name, **first) == parameters(changed(study, seed=3), name, **first)


def test_a_fetched_model_is_one_for_all_replicates(study: Study) -> None:
    raw = study.model_dump(mode="json")
    fetched = {"source": "hub", "repository": "EleutherAI/pythia-70m", "training": {}}
    both = Study.model_validate(
        {**study.model_dump(), "replicates": 2, "models": {**raw["models"], "hub": fetched}}
    )
    assert base_seed(both, "hub", 1001) == 0 and base_seed(both, "llama-tiny", 1001) == 1000
    assert sum(job.stage == "fetch-model" for job in jobs_of(both)) == 1
    recalled = [
        r["seed"] for r in evaluations(both) if (r["model"], r["tuning"]) == ("hub", "base")
    ]
    assert recalled == [0, 1000]  # of the people of each
