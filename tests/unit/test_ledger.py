"""The rule that turns observations into a verdict."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from factrecall.report.ledger import (
    CLAIMS,
    Claim,
    Judged,
    by_chance,
    decide,
    judge,
    read_claims,
    tally,
)
from factrecall.report.observations import minus, mix_minus_stage, observe, scaled


def seen(mean: float, spread: float = 0.1, people: int = 100, seeds: int = 3) -> pd.DataFrame:
    """Observations with exactly this mean."""
    rng = np.random.default_rng(0)
    values = rng.normal(0, spread, (seeds, people))
    values += mean - values.mean()
    return pd.DataFrame(
        {
            "seed": np.repeat(np.arange(seeds), people),
            "individual": np.tile(np.arange(people), seeds),
            "value": values.ravel(),
        }
    )


def claim(observed: Any, **fields: Any) -> Claim:
    return Claim(**{"id": "x.y", "text": "t", "why": "w", "observe": lambda m: observed, **fields})


@pytest.mark.parametrize(
    ("mean", "bound", "comparison", "expected"),
    [
        (0.3, 0.02, "more", "holds"),
        (0.3, 0.3, "more", "inconclusive"),
        (0.01, 0.1, "more", "does not hold"),
        (-0.3, 0.0, "more", "does not hold"),
        (0.3, 0.5, "less", "holds"),
        (0.3, 0.1, "less", "does not hold"),
        (0.3, 0.3, "less", "inconclusive"),
    ],
)
def test_the_rule(mean: float, bound: float, comparison: Any, expected: str) -> None:
    found = judge(claim(seen(mean), bound=bound, comparison=comparison), None)
    assert found.verdict == expected
    assert found.value == pytest.approx(mean)
    assert found.low < found.value < found.high


def test_an_effect_below_the_smallest_that_matters_does_not_hold_though_it_is_sure() -> None:
    assert judge(claim(seen(0.01, 0.001), bound=0.0), None).verdict == "holds"
    assert judge(claim(seen(0.01, 0.001), bound=0.02), None).verdict == "does not hold"


def test_one_training_run_is_inconclusive() -> None:
    found = judge(claim(seen(0.3, seeds=1)), None)
    assert (found.verdict, found.reason, found.seeds) == (
        "inconclusive", "one training run", 1,
    )  # fmt: skip
    assert not math.isnan(found.value)


def test_what_is_not_measured_is_said_to_be() -> None:
    found = judge(claim(seen(0.3).head(0)), None)
    assert (found.verdict, found.reason) == ("not measurable", "not measured in this study")
    assert math.isnan(found.value)
    too_small = claim(seen(0.3), unmeasurable=lambda m: "four heads are no 10 %")
    found = judge(too_small, None)
    assert (found.verdict, found.reason) == ("not measurable", "four heads are no 10 %")
    assert math.isnan(found.value)


def test_a_claim_of_parts_needs_all_and_names_the_one_that_decides() -> None:
    parts = {"a": seen(0.3), "b": seen(0.5), "c": seen(-0.3)}
    found = judge(claim(parts, bound=0.02), None)
    assert (found.verdict, found.part) == ("does not hold", "c")
    assert found.value == pytest.approx(-0.3)
    assert found.reason == ("a 30.0 (holds); b 50.0 (holds); c \N{MINUS SIGN}30.0 (does not hold)")
    assert judge(claim({"a": parts["a"], "b": parts["b"]}, bound=0.02), None).verdict == "holds"
    without = judge(claim({"a": parts["a"], "b": parts["b"].head(0)}, bound=0.02), None)
    assert without.reason == "a 30.0 (holds); b (not measurable)"
    assert decide({"a": "holds", "b": "inconclusive"}) == ("inconclusive", "b")
    assert decide({"a": "does not hold", "b": "not measurable"}) == ("does not hold", "a")
    assert decide({}) == ("not measurable", "")


def test_text_and_published_may_depend_on_the_measures() -> None:
    found = judge(
        claim(seen(0.3), text=lambda m: f"{m} heads", published=lambda m: m / 10, quote=str), 7
    )
    assert (found.text, found.published, found.quote) == ("7 heads", 0.7, "7")
    assert math.isnan(judge(claim(seen(0.3), published=lambda m: None), 7).published)


def test_tally_chance_and_the_table() -> None:
    rows = [
        judge(claim(seen(v), id=str(v), bound=0.02, source="v1"), None, model="m") for v in (0.3, 0)
    ]
    rows.append(judge(claim(seen(0).head(0)), None, model="m"))
    assert tally(rows) == {"holds": 1, "does not hold": 1, "not measurable": 1} or tally(rows) == {
        "holds": 1, "inconclusive": 1, "not measurable": 1,
    }  # fmt: skip
    assert by_chance(rows) == pytest.approx(0.05)
    assert [row.is_extension for row in rows] == [False, False, True]
    table = pd.DataFrame(rows, columns=list(CLAIMS))
    assert read_claims(table)[0][:8] == rows[0][:8]
    assert tuple(CLAIMS) == Judged._fields


def test_observations_are_means_by_seed_and_person() -> None:
    rows = pd.DataFrame(
        {
            "tuning": ["mix"] * 4 + ["stage"] * 3,
            "seed": [0, 0, 0, 1, 0, 0, 1],
            "individual": [5, 5, 6, 5, 5, 6, 6],
            "correct": [True, False, True, True, False, False, False],
        }
    )
    mix = observe(rows, "correct", tuning="mix")
    assert mix.to_dict("list") == {
        "seed": [0, 0, 1], "individual": [5, 6, 5], "value": [0.5, 1.0, 1.0],
        "questions": [2, 1, 1],
    }  # fmt: skip
    difference = mix_minus_stage(rows, "correct")
    assert difference.drop(columns="questions").to_dict("list") == {
        "seed": [0, 0], "individual": [5, 6], "value": [0.5, 1],
    }  # fmt: skip
    stage = observe(rows, "correct", tuning="stage")
    assert (minus(stage, mix)["value"] == -minus(mix, stage)["value"]).all()
    assert scaled(mix, 2)["value"].tolist() == [1.0, 2.0, 2.0]
    by_seed = observe(rows.drop(columns="individual"), "correct", tuning="mix")
    assert by_seed["value"].tolist() == [pytest.approx(2 / 3), 1.0]
