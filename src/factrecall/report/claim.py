"""A claim that is judged where it is made; `claims` takes its place, section by section."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

import pandas as pd

from factrecall.report.claims import (
    NAMES,
    NOT_MEASURED,
    RULE,
    Interval,
    Verdict,
    listed,
    of_all,
    verdict,
    with_sign,
)
from factrecall.report.tables import NO_BREAK, percent, points

__all__ = [
    "NAMES", "NOT_MEASURED", "RULE", "Claim", "Interval", "Section", "compared", "listed",
    "of_all", "with_sign", "word",
]  # fmt: skip

Section = Literal[
    "Shared parameters",
    "Ablation",
    "Grafting",
    "Attention heads",
    "MLP nodes",
    "Case study",
    "Representations",
    "Gradients of both formats",
    "What facts are read from",
]


class Claim(NamedTuple):
    """A claim and what became of it.

    Attributes
    ----------
    section : str
        Under which heading it stands.
    text : str
        What is claimed.
    own : bool
        Whether it is this project's check, not the paper's claim.
    word : str
        The verdict, by `RULE`.
    evidence : str
        The numbers behind it.
    paper : str
        The paper's numbers; may be empty.
    """

    section: Section
    text: str
    own: bool
    word: Verdict
    evidence: str
    paper: str

    @property
    def is_extension(self) -> bool:
        """As of `claims.Judged`."""
        return self.own

    @property
    def verdict(self) -> Verdict:
        """As of `claims.Judged`."""
        return self.word


word = verdict


def compared(
    rows: pd.DataFrame,
    value: str,
    found: Mapping[int, float],
    *,
    before: str = "",
    unit: str = "%",
) -> str:
    """Say the means of both tunings and the difference by seed."""
    if not found:
        return NOT_MEASURED
    means = rows.groupby("tuning")[value].mean()
    written = (percent(float(means[t])).replace("-", "\N{MINUS SIGN}") for t in ("mix", "stage"))
    mix, stage = (f"{number}{NO_BREAK}{unit}" for number in written)
    return (
        f"{before}Mix-tuned {mix}, Stage-tuned {stage}; difference by seed {listed(found, points)} "
        "points."
    )
