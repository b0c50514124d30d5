"""What the paper says of one head and one fact, judged over all facts."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from factrecall.experiments.case_study.data import Case
from factrecall.report.claim import NAMES, NOT_MEASURED, Claim, with_sign, word
from factrecall.report.tables import points
from factrecall.runtime.statistics import paired_interval
from factrecall.vocabulary import COMPARED


def case_claims(
    case: Case, seed: int, rng: np.random.Generator, *, chosen: bool
) -> Iterator[Claim]:
    """Yield what the paper says of one head's attention, judged over all facts.

    Parameters
    ----------
    case : Case
        Of one model.
    seed : int
        The training seed whose models were looked at.
    rng : Generator
        Of the bootstrap over people.
    chosen : bool
        Whether the head was chosen by its shared parameters, not named by the configuration.
    """
    facts = case.alike().dropna()
    found, interval, said = {}, None, NOT_MEASURED
    if len(facts):
        differences = (facts["mix"] - facts["stage"]).set_axis(
            pd.Index(facts["individual"], name="individual")
        )
        mean, low, high = paired_interval(differences, rng)
        found, interval = {seed: mean}, (low, high)
        sides = ", ".join(f"{NAMES[t]} {with_sign(float(facts[t].mean()))}" for t in COMPARED[::-1])
        said = (
            "Of the last token's attention, but for that to the token that begins every text, what "
            f"goes to the same roles in both: {sides}; "
            f"difference {points(mean)} points, 95 % interval {points(low)} to {points(high)} over "
            f"{facts['individual'].nunique():,} people, one seed."
        )
    head = "with most shared parameters" if chosen else "that the configuration names"
    yield Claim(
        "Case study",
        f"The head {head} looks more alike at a fact told and at the same fact asked in the "
        "Mix-tuned model than in the Stage-tuned one.",
        not chosen,
        word(found, interval),
        said,
        "so said of one head and one fact (figures 5, 18 and 19); no number",
    )
