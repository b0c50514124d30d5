"""The rule that turns a quantity into a verdict."""

from __future__ import annotations

from typing import Any

import pytest

from factrecall.report.claims import NOT_MEASURED, Claim, Quantity, judge, verdict


@pytest.mark.parametrize(
    ("differences", "interval", "expected"),
    [
        ({0: 0.1, 1: 0.2, 2: 0.1}, None, "holds"),
        ({0: 0.1, 1: 0.2}, None, "inconclusive"),
        ({0: 0.1, 1: 0.2, 2: float("nan")}, None, "inconclusive"),
        ({0: 0.1}, None, "inconclusive"),
        ({0: 0.1}, (0.01, 0.3), "holds"),
        ({0: 0.1, 1: 0.2}, (0.01, 0.3), "holds"),
        ({0: 0.1, 1: 0.2}, (-0.01, 0.3), "inconclusive"),
        ({0: 0.1}, (float("nan"), float("nan")), "inconclusive"),
        ({0: -0.1, 1: -0.2, 2: -0.1}, None, "does not hold"),
        ({0: -0.1, 1: -0.2}, None, "inconclusive"),
        ({0: -0.1, 1: -0.2}, (-0.3, -0.01), "does not hold"),
        ({0: -0.1, 1: 0.2}, None, "inconclusive"),
        ({0: 0.1, 1: 0.2, 2: 0.0}, None, "inconclusive"),
        ({}, None, "inconclusive"),
    ],
)
def test_the_rule(differences: dict[int, float], interval: Any, expected: str) -> None:
    assert verdict(differences, interval) == expected


def test_what_is_not_measured_is_said_to_be() -> None:
    claim = Claim("x", lambda m: Quantity({}, "By seed."), lambda m: f"paper {m}")
    assert judge(claim, "Section", 7)[3:] == ("inconclusive", NOT_MEASURED, "paper 7")
