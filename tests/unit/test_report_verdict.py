"""The verdict on the paper's claim: the rule, the interval, and what is refused."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from factrecall.evaluation.exact_match import PER_EXAMPLE
from factrecall.experiments.recall.measures import judge_headline
from factrecall.report.claims import decide
from factrecall.runtime.errors import FactRecallError
from factrecall.runtime.statistics import bootstrap_interval
from factrecall.runtime.storage import write_table

RELATIONS = ("job", "employer")


def write(path: Path, right: list[list[bool]], first: int = 0) -> Path:
    """Write a table of recall with one row of `right` for each person."""
    rows = [
        (split, first + person, relation, value and split == "qa_out")
        for split in ("qa_in", "qa_out")
        for person, values in enumerate(right)
        for relation, value in zip(RELATIONS, values, strict=True)
    ]
    frame = pd.DataFrame(rows, columns=list(PER_EXAMPLE)).astype({"individual": "int32"})
    write_table(path, frame, PER_EXAMPLE)
    return path


def files(folder: Path, mix: list[list[bool]], stage: list[list[bool]]) -> dict[str, Path]:
    """Write the tables of one seed."""
    return {t: write(folder / f"{t}.parquet", r) for t, r in (("mix", mix), ("stage", stage))}


def test_the_rule_in_all_three_cases() -> None:
    assert decide([0.2, 0.1], 0.05, 0.3) == "holds"
    assert decide([-0.2, -0.1], -0.3, -0.05) == "does not hold"
    assert decide([0.2, -0.1], 0.01, 0.3) == "inconclusive"
    assert decide([0.2, 0.1], -0.01, 0.3) == "inconclusive"
    assert decide([0.0, 0.0], 0.0, 0.0) == "inconclusive"
    assert decide([-0.2, -0.1], -0.3, 0.0) == "inconclusive"


def test_interval_by_hand() -> None:
    # Ten people, half of them with a difference of 1: means are binomial(10, 1/2) / 10, of which
    # 1.1 % are at most 0.1 and 5.5 % at most 0.2, so that the 2.5 % point is 0.2.
    sums = np.array([0, 1] * 5)
    assert bootstrap_interval(sums, 1, np.random.default_rng(0)) == (0.2, 0.8)
    # A sum over two questions counts half.
    assert bootstrap_interval(sums, 2, np.random.default_rng(0)) == (0.1, 0.4)


def test_interval_of_equal_people_has_no_width() -> None:
    assert bootstrap_interval(np.array([3, 3, 3]), 6, np.random.default_rng(0)) == (0.5, 0.5)


def test_interval_agrees_with_drawing_people_one_by_one() -> None:
    sums = np.random.default_rng(1).integers(-4, 7, size=60)
    rng = np.random.default_rng(2)
    naive = [rng.choice(sums, size=len(sums)).mean() / 6 for _ in range(10_000)]
    interval = bootstrap_interval(sums, 6, np.random.default_rng(3))
    assert interval == pytest.approx(np.quantile(naive, [0.025, 0.975]), abs=0.006)


def test_the_same_seed_gives_the_same_interval() -> None:
    sums = np.arange(20)
    one, two = (bootstrap_interval(sums, 6, np.random.default_rng(5)) for _ in range(2))
    assert one == two


def test_judge_pairs_seeds_and_people(tmp_path: Path) -> None:
    one = files(tmp_path / "0", [[True, True], [True, False]], [[True, False], [False, False]])
    two = files(tmp_path / "1", [[True, True], [True, True]], [[False, False], [True, True]])
    tables = {(t, s): f for s, fs in ((4, one), (5, two)) for t, f in fs.items()}
    tables["mix", 6] = one["mix"]
    verdict = judge_headline(tables, np.random.default_rng(0))
    assert (verdict.mix, verdict.stage) == (0.875, 0.375)
    assert verdict.differences == {4: 0.5, 5: 0.5}
    # Sums of differences: 3 of 4 answers for the first person, 1 of 4 for the second.
    assert (verdict.low, verdict.high, verdict.people) == (0.25, 0.75, 2)
    assert verdict.verdict == "holds"


def test_judge_refuses_what_cannot_be_paired(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tables = files(tmp_path, [[True, True]], [[True, True]])
    with pytest.raises(FactRecallError, match="no seed with both"):
        judge_headline({("mix", 0): tables["mix"], ("stage", 1): tables["stage"]}, rng)
    others = write(tmp_path / "others.parquet", [[True, True]], first=1)
    with pytest.raises(FactRecallError, match="its questions on qa_out are not those of"):
        judge_headline({("mix", 0): tables["mix"], ("stage", 0): others}, rng)


def test_judge_names_a_missing_column(tmp_path: Path) -> None:
    tables = files(tmp_path, [[True, True]], [[True, True]])
    rows = list(product(["qa_out"], [0], RELATIONS))
    frame = pd.DataFrame(rows, columns=["split", "individual", "relation"])
    schema = {column: kind for column, kind in PER_EXAMPLE.items() if column != "correct"}
    write_table(tables["mix"], frame, schema)
    with pytest.raises(FactRecallError, match="column 'correct' is missing"):
        judge_headline({(t, 0): path for t, path in tables.items()}, np.random.default_rng(0))
