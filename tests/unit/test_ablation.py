"""Ablations set back what they say, are paired, and are counted right."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pandas as pd
import pytest
import torch

from factrecall.experiments.ablation.compute import (
    ABLATED,
    ABLATION,
    CONTROLS,
    INTERVALS,
    NONE,
    PER_ABLATION,
    ablated_sets,
    ablation_intervals,
)
from factrecall.experiments.ablation.stages import summarise_ablation
from factrecall.parameters.patched_weights import PatchedWeights
from factrecall.parameters.sets import ParameterSet
from factrecall.runs import Evaluation
from factrecall.runtime.job import Job
from factrecall.runtime.seeds import generator
from factrecall.runtime.statistics import paired_interval
from factrecall.runtime.storage import read_table, write_table
from factrecall.vocabulary import RELATIONS, SPLITS
from tests.conftest import Tiny

RIGHT = {NONE: 0.9, "shared": 0.2, "random": 0.9, "random_by_tensor": 0.5, "most_moved": 0.7}


def examples(seed: int, people: int = 30) -> pd.DataFrame:
    """Return answers with set shares right, as `ablate` writes them."""
    rng = generator(seed, "answers")
    keys = itertools.product(ABLATED, SPLITS, range(people), RELATIONS)
    table = pd.DataFrame(keys, columns=["ablated", "split", "individual", "relation"])
    table["correct"] = rng.random(len(table)) < table["ablated"].map(RIGHT)
    return table


def test_controls_are_as_large_as_s_and_what_they_are_called(tiny: Tiny) -> None:
    model = copy.deepcopy(tiny.model)
    pre = {n: p.detach().clone() for n, p in model.named_parameters()}
    generator_ = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=generator_))
    with PatchedWeights(model, pre) as weights:
        shared = (~ParameterSet.empty(weights.space)).sample(500, generator(1))
        sets = ablated_sets(shared, weights, generator(2))
        moved = torch.cat([(weights.task[n] - pre[n]).abs().reshape(-1) for n in pre])
    assert tuple(sets) == ABLATED and not len(sets[NONE])
    assert all(len(sets[name]) == 500 for name in ("shared", *CONTROLS))
    assert sets["random_by_tensor"].counts() == shared.counts()
    assert sets["random"].counts() != shared.counts()
    most = set(torch.argsort(moved, descending=True, stable=True)[:500].tolist())
    assert set(sets["most_moved"].index.tolist()) == most
    drawn = [sets[name] for name in ("shared", "random", "random_by_tensor")]
    assert all(a != b for a, b in itertools.combinations(drawn, 2))


@pytest.fixture
def tables(tmp_path: object) -> tuple[pd.DataFrame, pd.DataFrame]:
    from pathlib import Path

    folder = Path(str(tmp_path))
    runs = []
    for tuning, seed in itertools.product(("stage", "mix"), (0, 1)):
        path = folder / f"{tuning}{seed}.parquet"
        write_table(path, examples(seed), PER_ABLATION)
        runs.append(Evaluation("m", tuning, seed, path))
    out, intervals = folder / "a.parquet", folder / "i.parquet"
    summarise_ablation(Job(), evaluations=runs, out=out, intervals=intervals, study_seed=0)
    return read_table(out, ABLATION), read_table(intervals, INTERVALS)


def test_the_table_counts_answers(tables: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    table, _ = tables
    keys = ["model", "tuning", "seed", "ablated", "split", "relation"]
    assert len(table) == 2 * 2 * 5 * 3 * 6 and not table.duplicated(keys).any()
    for row in table.itertuples():
        same = examples(row.seed).query("split == @row.split and relation == @row.relation")
        found, whole = (same[same["ablated"] == name] for name in (row.ablated, NONE))
        assert (row.n, row.correct) == (30, found["correct"].sum())
        assert row.accuracy == row.correct / row.n
        assert row.drop == pytest.approx(whole["correct"].mean() - row.accuracy)


def test_intervals_are_of_paired_differences(tables: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    _, intervals = tables
    pairs = {(a, NONE) for a in ABLATED if a != NONE} | {("shared", c) for c in CONTROLS}
    keys = ["tuning", "split", "ablated", "against"]
    expected = {(t, s, *p) for t in ("stage", "mix") for s in SPLITS for p in pairs}
    assert set(intervals[keys].itertuples(index=False, name=None)) == expected
    for row in intervals.itertuples():
        both = pd.concat([examples(seed) for seed in (0, 1)])
        means = both[both["split"] == row.split].groupby("ablated")["correct"].mean()
        assert row.difference == pytest.approx(means[row.against] - means[row.ablated])
        assert row.low < row.difference < row.high and row.high - row.low < 0.3


def test_rows_in_another_order_are_paired_all_the_same() -> None:
    one = pd.concat([examples(s).assign(model="m", tuning="mix", seed=s) for s in (0, 1)])
    other = one.sample(frac=1, random_state=3)
    pd.testing.assert_frame_equal(ablation_intervals(one, 5), ablation_intervals(other, 5))


def test_a_paired_interval_draws_people() -> None:
    # Six answers of a person are alike: there are ten observations, not sixty.
    people = np.repeat(np.arange(10), 6)
    differences = pd.Series(np.repeat([1, 0], 30), index=pd.Index(people, name="individual"))
    mean, low, high = paired_interval(differences, generator(0))
    assert mean == 0.5
    assert low == pytest.approx(0.2, abs=0.1) and high == pytest.approx(0.8, abs=0.1)
    with pytest.raises(ValueError, match="differ in how many"):
        paired_interval(differences[1:], generator(0))
