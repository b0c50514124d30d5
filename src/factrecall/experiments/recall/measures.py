"""Recall of one model: accuracies, losses, and the verdict on the paper's headline claim.

The claim: Mix-tuned models recall more of the facts whose questions were never trained on than
Stage-tuned ones (paper, section 2.2). It is judged twice over: between seeds, by the sign of
each seed's difference, and between people, by a bootstrap that draws people anew and keeps all
answers about one person together, because they share a biography and a training history.

Accuracies are shares from 0 to 1; one over several relations is right answers over all answers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from factrecall.report.claims import Verdict, decide
from factrecall.report.published import published
from factrecall.report.section import Source
from factrecall.report.style import RELATION_LABELS, SPLIT_LABELS, TUNING_LABELS
from factrecall.runtime.errors import FactRecallError
from factrecall.runtime.seeds import generator
from factrecall.runtime.storage import read_table

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

HEADLINE_RULE = (
    "The claim holds if Mix-tuned models are ahead in every seed and the whole 95 % interval of "
    "the difference lies above zero; it does not hold if Stage-tuned models are ahead in every "
    "seed and the whole interval lies below zero; anything else is inconclusive."
)

AVERAGE = "average"

LOSS_POINTS = 150
"""How many points a line of losses has at most; each is a mean over a block of updates."""

ANSWERS = {"split": "string", "individual": "int32", "relation": "string", "correct": "bool"}
"""Columns of recall per example (see `evaluation`)."""

_KNOWN = {"tuning": TUNING_LABELS, "split": SPLIT_LABELS, "relation": RELATION_LABELS}


@dataclass(frozen=True)
class Headline:
    """The paper's headline claim, held against one model.

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
    verdict : str
        By `HEADLINE_RULE`.
    """

    mix: float
    stage: float
    differences: dict[int, float]
    low: float
    high: float
    people: int
    verdict: Verdict


class Recall(Source):
    """One model's recall and its training."""

    @cached_property
    def table(self) -> pd.DataFrame:
        """The model's rows of ``tables/recall.parquet``, in the order in which they are shown.

        Raises
        ------
        FactRecallError
            When it holds nothing on the model, or a value that is unknown here.
        """
        path, rows = str(self.files["recall"]), self.rows("recall")
        remedy = "delete the file and run the workflow again; it will be made anew"
        if rows.empty:
            raise FactRecallError(path, f"it holds no row on model {self.model!r}", remedy)
        for column, known in _KNOWN.items():
            if unknown := sorted(set(rows[column]) - set(known)):
                why = f"column {column!r} holds {unknown[0]!r}, which is none of {', '.join(known)}"
                raise FactRecallError(path, why, remedy)
        return rows

    def by_seed(self) -> pd.DataFrame:
        """Return the accuracy over all relations: columns tuning, seed, split, accuracy."""
        return _pooled(self.table, ["tuning", "seed", "split"])

    def by_relation(self) -> pd.DataFrame:
        """Return accuracy on QA out by relation: columns source, tuning, relation, accuracy.

        `AVERAGE`, over all relations, is one of them and comes first; the paper's numbers follow
        those of the study, if it has any by relation.
        """
        import pandas as pd

        rows = self.table[self.table["split"] == "qa_out"]
        every = pd.concat([rows.assign(relation=AVERAGE), rows])
        seeds = _pooled(every, ["tuning", "relation", "seed"])
        means = seeds.groupby(["tuning", "relation"], sort=False)["accuracy"].mean().reset_index()
        theirs = [
            (tuning, relation, value / 100)
            for tuning in TUNING_LABELS
            if self._published(tuning, next(iter(RELATION_LABELS))) is not None
            for relation in (AVERAGE, *RELATION_LABELS)
            if (value := self._published(tuning, relation)) is not None
        ]
        paper = pd.DataFrame(theirs, columns=["tuning", "relation", "accuracy"])
        parts = [means.assign(source="here")]
        return pd.concat(parts + ([paper.assign(source="paper")] if theirs else []))

    def _published(self, tuning: str, relation: str) -> float | None:
        if self.published_model is None:
            return None
        wanted = None if relation == AVERAGE else relation
        return published(self.published_model, tuning, "qa_out", wanted)

    def mean(self, tuning: str, split: str) -> float:
        """Return the mean over seeds; NaN where there is none."""
        rows = self.by_seed()
        rows = rows[(rows["tuning"] == tuning) & (rows["split"] == split)]
        return float(rows["accuracy"].mean())

    def losses(self) -> pd.DataFrame:
        """Return losses by kind over training, at most `LOSS_POINTS` a line.

        Runs differ in length by orders of magnitude: `progress` is the share of `updates` done.

        Raises
        ------
        FactRecallError
            When a history is missing or damaged.
        """
        import pandas as pd

        order = list(TUNING_LABELS)
        runs = sorted(self.runs("history").items(), key=lambda r: (order.index(r[0][0]), r[0][1]))
        return pd.concat((_losses(*run, path) for run, path in runs), ignore_index=True)

    @cached_property
    def headline(self) -> Headline:
        """The verdict on the paper's headline claim (see `judge_headline`)."""
        rng = generator(self.settings["seed"], "report", "people", self.model)
        return judge_headline(self.runs("answers"), rng)


def _pooled(rows: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    sums = rows.groupby(keys, sort=False)[["correct", "n"]].sum().reset_index()
    sums["accuracy"] = sums["correct"] / sums["n"]
    return sums[[*keys, "accuracy"]]


def _losses(tuning: str, seed: int, path: Path) -> pd.DataFrame:
    import pandas as pd

    history = read_table(path)
    updates = len(history)
    block = history["update"] // max(1, math.ceil(updates / LOSS_POINTS))
    means = history.groupby(block)[["update", "loss_bio", "loss_qa"]].mean()
    parts = [
        pd.DataFrame(
            {
                "tuning": tuning,
                "seed": seed,
                "kind": kind,
                "progress": (means["update"] + 0.5) / updates,
                "loss": means[f"loss_{kind}"],
                "updates": updates,
            }
        ).dropna(subset="loss")
        for kind in ("bio", "qa")
    ]
    return pd.concat(parts, ignore_index=True)


def judge_headline(answers: Mapping[tuple[str, int], Path], rng: np.random.Generator) -> Headline:
    """Compare the Mix-tuned with the Stage-tuned models of the same seeds.

    Parameters
    ----------
    answers : mapping of (tuning, seed) to Path
        Tables of recall per example.
    rng : Generator
        Of the bootstrap.

    Raises
    ------
    FactRecallError
        When a table is missing, or two of them do not ask the same questions.
    """
    import pandas as pd

    from factrecall.runtime.statistics import paired_interval

    seeds = sorted({s for t, s in answers if t == "mix" and ("stage", s) in answers})
    if not seeds:
        raise FactRecallError(
            "the report's claim",
            "there is no seed with both a Stage-tuned and a Mix-tuned model",
            "run the workflow for both tunings",
        )
    pairs = pd.concat([_paired(answers, seed) for seed in seeds], ignore_index=True)
    means = pairs.groupby("seed")[["mix", "stage"]].mean()
    differences = {int(str(seed)): float(row.mix - row.stage) for seed, row in means.iterrows()}
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
    return Headline(
        mix=float(means["mix"].mean()),
        stage=float(means["stage"].mean()),
        differences=differences,
        low=low,
        high=high,
        people=len(people),
        verdict=decide(differences.values(), low, high),
    )


def _paired(answers: Mapping[tuple[str, int], Path], seed: int) -> pd.DataFrame:
    import pandas as pd

    sides = {}
    for tuning in ("mix", "stage"):
        table = read_table(answers[tuning, seed], ANSWERS)
        rows = table[table["split"] == "qa_out"].set_index(["individual", "relation"])["correct"]
        sides[tuning] = rows.sort_index()
    if sides["mix"].empty or not sides["mix"].index.equals(sides["stage"].index):
        raise FactRecallError(
            str(answers["mix", seed]),
            f"its questions on qa_out are not those of {answers['stage', seed]}",
            "delete both files and run the workflow again; they will be made anew",
        )
    return pd.DataFrame(sides).reset_index().assign(seed=seed)
