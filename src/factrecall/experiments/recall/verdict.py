"""The paper's claim, held against this run.

The claim: Mix-tuned models recall more of the facts whose questions were never trained on than
Stage-tuned ones (paper, section 2.2). It is judged twice over: between seeds, by the sign of
each seed's difference, and between people, by a bootstrap that draws people anew and keeps all
answers about one person together, because they share a biography and a training history.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from factrecall.evaluation.exact_match import PER_EXAMPLE
from factrecall.report.claims import Verdict as VerdictWord
from factrecall.report.claims import decide
from factrecall.runtime.errors import FactRecallError
from factrecall.runtime.statistics import paired_interval
from factrecall.runtime.storage import read_table

RULE = (
    "The claim holds if Mix-tuned models are ahead in every seed and the whole 95 % interval of "
    "the difference lies above zero; it does not hold if Stage-tuned models are ahead in every "
    "seed and the whole interval lies below zero; anything else is inconclusive."
)

SPLIT = "qa_out"


@dataclass(frozen=True)
class Verdict:
    """The paper's claim, held against one model of the study.

    Attributes
    ----------
    mix, stage : float
        Mean accuracy on QA out.
    differences : dict of int to float
        By seed, Mix-tuned minus Stage-tuned.
    low, high : float
        95 % bootstrap interval of the mean difference, people as the unit.
    people : int
        How many people were asked about.
    word : str
        The verdict, by `RULE`.
    """

    mix: float
    stage: float
    differences: dict[int, float]
    low: float
    high: float
    people: int
    word: VerdictWord


def judge(per_example: Mapping[tuple[str, int], Path], rng: np.random.Generator) -> Verdict:
    """Compare the Mix-tuned with the Stage-tuned models of the same seeds.

    Parameters
    ----------
    per_example : mapping of (tuning, seed) to Path
        Tables of recall per example.
    rng : Generator
        Of the bootstrap.

    Raises
    ------
    FactRecallError
        When a table is missing, or two of them do not ask the same questions.
    """
    seeds = sorted({s for t, s in per_example if t == "mix" and ("stage", s) in per_example})
    if not seeds:
        raise FactRecallError(
            "the report's claim",
            "there is no seed with both a Stage-tuned and a Mix-tuned model",
            "run the workflow for both tunings",
        )
    pairs = pd.concat([_paired(per_example, seed) for seed in seeds], ignore_index=True)
    means = pairs.groupby("seed")[["mix", "stage"]].mean()
    differences = {int(seed): float(row.mix - row.stage) for seed, row in means.iterrows()}
    ahead = pairs["mix"].astype(int) - pairs["stage"].astype(int)
    ahead.index = pd.Index(pairs["individual"], name="individual")
    people = ahead.groupby(level="individual").size()
    if people.nunique() != 1:
        raise FactRecallError(
            "recall per example",
            "people differ in how many of their questions were asked",
            "delete the files *.recall.parquet and run the workflow again",
        )
    _, low, high = paired_interval(ahead, rng)
    return Verdict(
        mix=float(means["mix"].mean()),
        stage=float(means["stage"].mean()),
        differences=differences,
        low=low,
        high=high,
        people=len(people),
        word=decide(list(differences.values()), low, high),
    )


def _paired(per_example: Mapping[tuple[str, int], Path], seed: int) -> pd.DataFrame:
    keys = ["individual", "relation"]
    sides = {}
    for tuning in ("mix", "stage"):
        table = read_table(per_example[tuning, seed], PER_EXAMPLE)
        rows = table[table["split"] == SPLIT].set_index(keys)["correct"]
        sides[tuning] = rows.sort_index()
    if sides["mix"].empty or not sides["mix"].index.equals(sides["stage"].index):
        raise FactRecallError(
            str(per_example["mix", seed]),
            f"its questions on {SPLIT} are not those of {per_example['stage', seed]}",
            "delete both files and run the workflow again; they will be made anew",
        )
    return pd.DataFrame(sides).reset_index().assign(seed=seed)
