"""A run that differs from the paper in more than size is told to be so."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from factrecall.experiments.recall.measures import Recall
from factrecall.experiments.recall.report import CAVEATS


def recall(**accuracies: float) -> pd.DataFrame:
    """Make one row a tuning and split, e.g. ``bio_qa_out=0.3``; what is not given is 0."""
    rows = [
        {"tuning": tuning, "seed": 0, "split": split, "relation": "job", "n": 1000}
        | {"correct": round(1000 * accuracies.get(f"{tuning}_{split}", 0.0))}
        for tuning in ("base", "bio", "stage", "mix", "majority")
        for split in ("bio", "qa_in", "qa_out")
    ]
    return pd.DataFrame(rows)


def caveats(**accuracies: float) -> list[str]:
    """Return what is said of such a run."""
    measures = Recall("m", {"recall": Path("recall.parquet")})
    measures._tables["recall"] = recall(**accuracies)
    return CAVEATS.said(measures)


def test_a_run_like_the_papers_needs_no_caution() -> None:
    like = {"bio_bio": 0.987, "stage_bio": 0.972, "bio_qa_out": 0.002}
    assert caveats(**like, majority_qa_out=0.028) == []


def test_forgetting_in_the_second_stage_is_told_with_its_numbers() -> None:
    (said,) = caveats(bio_bio=1.0, stage_bio=0.688)
    assert "forgets" in said and "68.8" in said and "100.0" in said


def test_answers_before_any_question_are_told() -> None:
    more, fewer = (
        caveats(bio_qa_out=0.303, stage_qa_out=stage, majority_qa_out=0.06)
        for stage in (0.152, 0.5)
    )
    assert len(more) == len(fewer) == 1
    assert "30.3" in more[0] and "more than" in more[0] and "fewer than" in fewer[0]
