"""Claims of the small study, judged again with the labels of the two trainings exchanged."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from factrecall.config.study import Study
from factrecall.experiments.sections import SECTIONS
from factrecall.report.ledger import CLAIMS, Claim, Judged, judge, read_claims
from factrecall.report.section import Source
from factrecall.runtime.storage import read_table

EXCHANGED = {"stage": "mix", "mix": "stage"}
SAME = {"stage": "stage"}
"""From the labels that results have to those that claims see; `SAME`: one model under both."""


def labels(table: pd.DataFrame, change: Mapping[str, str]) -> pd.DataFrame:
    """Return a table in which the two trainings have other labels."""
    if "tuning" not in table:
        return table
    if change is SAME:
        stage = table[table["tuning"] == "stage"]
        others = table[table["tuning"] != "mix"]
        return pd.concat([others, stage.assign(tuning="mix")], ignore_index=True)
    return table.assign(tuning=table["tuning"].map(lambda t: change.get(t, t)))


@pytest.fixture
def judged(results: Path, study: Study, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """What judges all claims under changed labels: pairs of a claim and its verdict."""
    rows, runs = Source.rows, Source.runs

    def judge_all(change: Mapping[str, str]) -> dict[tuple[str, str], tuple[Claim, Judged]]:
        def changed_runs(self: Source, kind: str) -> dict[tuple[str, int], Path]:
            found = runs(self, kind)
            if change is SAME:
                stage = {s: path for (t, s), path in found.items() if t == "stage"}
                return {**found, **{("mix", s): path for s, path in stage.items()}}
            return {(change.get(t, t), s): path for (t, s), path in found.items()}

        with monkeypatch.context() as patch:
            patch.setattr(Source, "rows", lambda self, name: labels(rows(self, name), change))
            patch.setattr(Source, "runs", changed_runs)
            found = {}
            for model in study.models:
                for section in SECTIONS:
                    m = section.measures(section.request(study, model), results)
                    claims = section.claims(m) if callable(section.claims) else section.claims
                    for claim in claims:
                        said = judge(claim, m, model=model, section=section.name)
                        found[model, claim.id] = (claim, said)
        return found

    yield judge_all


def test_the_table_of_claims_is_what_judging_again_gives(results: Path, judged: Any) -> None:
    stored = read_claims(read_table(results / "tables" / "claims.parquet", CLAIMS))
    again = judged({})
    assert sorted((c.model, c.id) for c in stored) == sorted(again)
    for row in stored:
        new = again[row.model, row.id][1]
        assert row.verdict == new.verdict
        assert math.isclose(row.value, new.value, abs_tol=1e-12) or math.isnan(row.value)


def test_exchanging_the_trainings_turns_every_comparison(judged: Any) -> None:
    before, after = judged({}), judged(EXCHANGED)
    compared = 0
    for key, (claim, said) in before.items():
        other = after[key][1]
        if not claim.compares_tunings or math.isnan(said.value):
            continue
        assert not (said.verdict == other.verdict == "holds"), key
        if not said.part and claim.unit == "points":
            compared += 1
            assert math.isclose(said.value, -other.value, abs_tol=1e-9), key
            assert math.isclose(said.low, -other.high, abs_tol=1e-9) or math.isnan(said.low), key
    assert compared > 3


def test_no_comparison_of_a_model_with_itself_holds(judged: Any) -> None:
    for key, (claim, said) in judged(SAME).items():
        if claim.compares_tunings and not math.isnan(said.value):
            assert math.isclose(said.value, 0, abs_tol=1e-9), key
            assert said.verdict != "holds", key
