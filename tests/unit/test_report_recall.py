"""Recall in the report: what it claims of made-up answers, says of them, and draws."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from factrecall.evaluation.exact_match import SUMMARY
from factrecall.experiments.recall.report import AVERAGE, LOSS_POINTS, POINTS, SECTION, Recall
from factrecall.report.ledger import Judged
from factrecall.report.published import LLAMA, PYTHIA
from factrecall.runtime.errors import FactRecallError
from factrecall.training.training_log import HISTORY
from factrecall.vocabulary import RELATIONS, SPLITS, TUNINGS

SEEDS, PEOPLE = (0, 1, 2), 400

FIRST, LAST = RELATIONS[:3], RELATIONS[3:]
LIKE_THE_PAPER: dict[tuple[str, str], Any] = {
    **{(tuning, "bio"): 0.97 for tuning in TUNINGS},
    **{(tuning, "qa_in"): 1.0 for tuning in ("stage", "mix")},
    ("bio", "qa_in"): 0.0,
    ("bio", "qa_out"): 0.0,
    ("stage", "qa_out"): (0.5, 0.2),
    ("mix", "qa_out"): (0.75, 0.75),
}
"""Accuracies by tuning and split, those of QA out on both halves of the biography."""

HOLD = {
    "recall.mix-recalls-more",
    "recall.biographies-stored",
    "recall.questions-learnt",
    "recall.nothing-forgotten",
    "recall.no-answers-without-questions",
    "recall.stage-falls",
    "recall.mix-does-not-fall",
    "recall.stage-falls-more",
}


def answers(levels: Mapping[tuple[str, str], Any], tuning: str, seed: int) -> pd.DataFrame:
    """Make answers as often right as `levels` say: who is right of all relations alike."""
    parts = []
    for split in SPLITS:
        level = levels[tuning, split]
        for number, relation in enumerate(RELATIONS):
            share = level[number // 3] if isinstance(level, tuple) else level
            right = np.arange(PEOPLE) < round(PEOPLE * share)
            right = np.random.default_rng(seed).permutation(right)
            columns = {"split": split, "individual": np.arange(PEOPLE), "relation": relation}
            parts.append(pd.DataFrame({**columns, "correct": right}))
    return pd.concat(parts).assign(tuning=tuning, seed=seed)


def recall(
    changes: Mapping[tuple[str, str], Any] | None = None,
    seeds: tuple[int, ...] = SEEDS,
    paper: str | None = LLAMA,
) -> Recall:
    """Return measures of a study that is like the paper's, but for some changes."""
    levels = {**LIKE_THE_PAPER, **(changes or {})}
    every = pd.concat(answers(levels, t, s) for t in TUNINGS for s in seeds)
    keys = ["tuning", "seed", "split", "relation"]
    table = every.groupby(keys, sort=False)["correct"].agg(n="size", correct="sum").reset_index()
    voted = table[(table["tuning"] == "bio") & (table["seed"] == seeds[0])]
    voted = voted.assign(tuning="majority", correct=10)
    measures = Recall("m", {}, published_model=paper)
    measures._tables["answers/"] = every.reset_index(drop=True)
    measures._tables["recall"] = pd.concat([table, voted], ignore_index=True)
    return measures


def exchanged(measures: Recall, **change: str) -> Recall:
    """Give the models other labels; those that nothing is said of are left out."""
    made = Recall("m", {}, published_model=LLAMA)
    for name, table in measures._tables.items():
        parts = [table[table["tuning"] == old].assign(tuning=new) for new, old in change.items()]
        made._tables[name] = pd.concat(parts, ignore_index=True)
    return made


def judged(measures: Recall) -> dict[str, Judged]:
    return {claim.id: claim for claim in SECTION.judged(measures)}


def test_all_claims_hold_of_a_study_like_the_papers() -> None:
    found = judged(recall())
    assert {i for i, claim in found.items() if claim.verdict == "holds"} == HOLD == set(found)
    more = found["recall.mix-recalls-more"]
    assert more.value == pytest.approx(0.4, abs=0.01) and more.low < more.value < more.high
    assert (more.seeds, more.people) == (len(SEEDS), PEOPLE)
    assert not any(claim.is_extension for claim in found.values())


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("mix-recalls-more", {("mix", "qa_out"): 0.1}),
        ("biographies-stored", {("stage", "bio"): 0.6}),
        ("questions-learnt", {("mix", "qa_in"): 0.9}),
        ("nothing-forgotten", {("stage", "bio"): 0.7}),
        ("no-answers-without-questions", {("bio", "qa_out"): 0.3}),
        ("stage-falls", {("stage", "qa_out"): (0.2, 0.3)}),
        ("mix-does-not-fall", {("mix", "qa_out"): (0.8, 0.5)}),
        ("stage-falls-more", {("mix", "qa_out"): (0.9, 0.5)}),
    ],
)
def test_each_claim_fails_of_a_study_that_shows_the_opposite(name: str, changes: Any) -> None:
    found = judged(recall(changes))[f"recall.{name}"]
    assert found.verdict == "does not hold"


def test_one_training_run_decides_nothing() -> None:
    assert {claim.verdict for claim in judged(recall(seeds=(0,))).values()} == {"inconclusive"}


def test_exchanging_labels_turns_comparisons_and_one_model_beats_itself_in_none() -> None:
    measures = recall()
    before = judged(measures)
    after = judged(exchanged(measures, bio="bio", stage="mix", mix="stage"))
    same = judged(exchanged(measures, bio="bio", stage="mix", mix="mix"))
    compare = {claim.id for claim in SECTION.claims if claim.compares_tunings}  # type: ignore[union-attr]
    assert compare == {"recall.mix-recalls-more", "recall.stage-falls-more"}
    for name in compare:
        assert after[name].value == pytest.approx(-before[name].value)
        assert (before[name].verdict, after[name].verdict) == ("holds", "does not hold")
        assert same[name].value == 0 and same[name].verdict != "holds"


def test_seeds_and_people_are_paired() -> None:
    measures = recall()
    table = measures._tables["answers/"]
    lost = (table["tuning"] == "stage") & (table["seed"] == 2)
    measures._tables["answers/"] = table[~lost]
    found = judged(measures)["recall.mix-recalls-more"]
    assert found.seeds == 2 and found.value == pytest.approx(0.4, abs=0.01)


def test_published_numbers_are_those_of_the_papers_model() -> None:
    llama, pythia, none = (judged(recall(paper=p)) for p in (LLAMA, PYTHIA, None))
    assert llama["recall.mix-recalls-more"].published == pytest.approx(0.388)
    assert pythia["recall.mix-recalls-more"].published == pytest.approx(0.384)
    assert llama["recall.nothing-forgotten"].published == pytest.approx(0.015)
    # By hand: (78.9 + 47.8 + 21.7 - 19.1 - 16.4 - 31.3) / 3, and the same of Mix-tuned.
    assert llama["recall.stage-falls"].published == pytest.approx(0.272)
    assert llama["recall.mix-does-not-fall"].published == pytest.approx(0.224)
    for name in ("stage-falls", "nothing-forgotten"):
        assert np.isnan(pythia[f"recall.{name}"].published)
    # A model of another architecture is held against Llama, as in all sections.
    assert none["recall.stage-falls"].published == pytest.approx(0.272)


def test_a_study_like_the_papers_needs_no_caution() -> None:
    assert SECTION.cautions(recall()) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({("stage", "bio"): 0.7}, ("from 97.0 % to 70.0 %",)),
        ({("bio", "qa_out"): 0.3}, ("answers 30.0 %", "Stage-tuned model 35.0 %")),
        (
            {("mix", "qa_out"): (0.8, 0.5), ("stage", "qa_out"): (0.2, 0.1)},
            ("+30.0 points in Mix-tuned", "+10.0 in Stage-tuned", "reverse", "recall 15.0 %"),
        ),
    ],
)
def test_cautions_bear_their_numbers(changes: Any, words: tuple[str, ...]) -> None:
    (said,) = SECTION.cautions(recall(changes))
    assert all(word in said for word in words)


def test_the_headline_has_both_accuracies() -> None:
    assert SECTION.headline is not None
    said = SECTION.headline(recall())
    assert "Mix-tuned models answer 75.0 %" in said and "Stage-tuned ones 35.0 %" in said
    assert said.endswith("2.5 %.")  # ten right answers of 400 a relation


def test_accuracy_is_right_answers_over_all_answers() -> None:
    measures = Recall("m", {})
    rows = [("mix", 0, "bio", "job", 10, 1), ("mix", 0, "bio", "employer", 30, 30)]
    columns = ["tuning", "seed", "split", "relation", "n", "correct"]
    measures._tables["recall"] = pd.DataFrame(rows, columns=columns)
    assert measures.by_seed()["accuracy"].tolist() == [31 / 40]
    assert set(SUMMARY) >= set(columns)


def test_by_relation_puts_the_average_first_and_the_papers_behind() -> None:
    means = recall().by_relation()
    here = means[(means["source"] == "here") & (means["tuning"] == "stage")]
    assert here["relation"].tolist() == [AVERAGE, *RELATIONS]
    assert here["accuracy"].tolist() == pytest.approx([0.35, 0.5, 0.5, 0.5, 0.2, 0.2, 0.2])
    theirs = means[means["source"] == "paper"]
    assert theirs["tuning"].tolist() == ["stage"] * 7 + ["mix"] * 7
    assert theirs["accuracy"].iloc[0] == 0.359
    # Pythia's numbers are printed of the average alone.
    for paper in (PYTHIA, None):
        assert set(recall(paper=paper).by_relation()["source"]) == {"here"}


@pytest.mark.parametrize("updates", [3, LOSS_POINTS, 700])
def test_losses_are_means_of_blocks(updates: int) -> None:
    measures = Recall("m", {})
    loss = np.arange(updates, dtype=float)
    history = pd.DataFrame(dict.fromkeys(HISTORY, 1.0), index=range(updates))
    history = history.assign(update=np.arange(updates), loss_bio=loss, loss_qa=np.nan)
    measures._tables["history/"] = history.assign(tuning="bio", seed=0)
    found = measures.losses()
    assert set(found["kind"]) == {"bio"} and set(found["updates"]) == {updates}
    assert len(found) <= LOSS_POINTS and found["loss"].iloc[0] == pytest.approx(
        loss[: -(-updates // LOSS_POINTS)].mean()
    )
    assert found["progress"].between(0, 1).all()
    assert found["progress"].tolist() == pytest.approx((found["loss"] + 0.5) / updates)


def test_what_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(FactRecallError, match="no such file"):
        Recall("m", {"recall": tmp_path / "recall.parquet"}).by_seed()
    measures = recall()
    measures._tables["recall"] = measures._tables["recall"].drop(columns="split")
    with (
        pytest.raises(FactRecallError, match=r"section 'Recall' of the report(?s:.*)'split'"),
        SECTION.explained(),
    ):
        SECTION.figures[0].save(measures, tmp_path / "recall")


def test_bounds_are_the_papers_or_two_points() -> None:
    claims = {c.id: c for c in SECTION.claims}  # type: ignore[union-attr]
    assert {c.bound for c in claims.values()} == {POINTS, 0.887, 0.981, 0.028}
