"""Recall in the report: what it claims of made-up answers, says of them, and draws."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from factrecall.config.reading import read_study
from factrecall.config.study import Study
from factrecall.data.files import BIO_COLUMNS, INDIVIDUAL_COLUMNS, QA_COLUMNS
from factrecall.data.tables import FactTables
from factrecall.data.traced import traced_individuals
from factrecall.evaluation.exact_match import PER_EXAMPLE, SUMMARY
from factrecall.experiments.recall.examples import examples
from factrecall.experiments.recall.report import AVERAGE, LOSS_POINTS, POINTS, SECTION, Recall
from factrecall.report.ledger import Judged
from factrecall.report.published import LLAMA, PYTHIA
from factrecall.report.style import RELATION_LABELS
from factrecall.runtime.errors import FactRecallError
from factrecall.runtime.storage import write_table
from factrecall.training.training_log import HISTORY
from factrecall.vocabulary import RELATIONS, SIDES, SPLITS, TUNINGS

PRESET = Path(__file__).parents[2] / "workflow/presets/ci.yaml"
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
    assert "Mix-tuned models get 75.0 %" in said and "Stage-tuned ones 35.0 %" in said
    assert said.endswith("2.5 %.")  # ten right answers of 400 a relation


def study_of(models: tuple[str, ...]) -> Study:
    """Return a study of these models that traces three people of each side."""
    study = read_study(PRESET)
    trace = study.trace.model_copy(update={"in_distribution": 3, "out_of_distribution": 3})
    training = study.training.model_copy(update={"seeds": [4, 0]})
    changed = {"models": dict.fromkeys(models, next(iter(study.models.values()))), "trace": trace}
    return study.model_copy(update={**changed, "training": training})


def write_results(study: Study, facts: FactTables, results: Path) -> None:
    """Write facts and answers: the first models know fewer statements and more questions."""
    folder = results / f"facts/seed{study.seed}"
    write_table(folder / "individuals.parquet", facts.individuals, INDIVIDUAL_COLUMNS)
    write_table(folder / "bio.parquet", facts.bio, BIO_COLUMNS)
    write_table(folder / "qa.parquet", facts.qa, QA_COLUMNS)
    asked = facts.qa[facts.qa["split"] != "pretrain"]
    number = asked["relation"].map(RELATIONS.index)
    for known, (model, tuning) in enumerate(product(study.models, TUNINGS)):
        bio = asked.assign(split="bio", correct=number < known)
        qa = asked.assign(split="qa_" + asked["split"], correct=number >= known)
        path = results / f"models/{model}/{tuning}/seed4.recall.parquet"
        write_table(path, pd.concat([bio, qa])[list(PER_EXAMPLE)], PER_EXAMPLE)


def test_examples_are_the_first_of_their_kind_with_everybodys_answers(
    facts: FactTables, tmp_path: Path
) -> None:
    study = study_of(("one", "two"))
    write_results(study, facts, tmp_path)
    shown = examples(study, tmp_path)
    assert shown["answer_heads"] == [
        f"{model}: {tuning}" for model in ("one", "two")
        for tuning in ("BIO-tuned", "Stage-tuned", "Mix-tuned")
    ]  # fmt: skip
    assert (shown["people_in"], shown["people_out"]) == (8, 8)
    traced = traced_individuals(facts.individuals, study.trace, study.seed)
    every = facts.individuals.set_index("individual")
    first = [
        next(i for i in every.index[every["split"] == side] if (i in traced) == is_traced)
        for side in SIDES for is_traced in (True, False)
    ]  # fmt: skip
    assert [person.name for person in shown["people"]] == every.loc[first, "name"].tolist()
    assert [person.standing for person in shown["people"]] == [
        "questions trained on; gradients traced",
        "questions trained on; not traced",
        "questions never seen; gradients traced",
        "questions never seen; not traced",
    ]
    for person in shown["people"]:
        assert person.stored == [0, 1, 2, 3, 4, 5]
        assert [asked.relation for asked in person.asked] == list(RELATION_LABELS.values())
        job = person.asked[RELATIONS.index("job")]
        assert job.right == [True, True, True, True, False, False]


def test_examples_mark_name_and_attribute(facts: FactTables, tmp_path: Path) -> None:
    study = study_of(("one",))
    write_results(study, facts, tmp_path)
    shown = examples(study, tmp_path)
    assert shown["answer_heads"] == ["BIO-tuned", "Stage-tuned", "Mix-tuned"]
    every = facts.individuals.set_index("name")
    for person in shown["people"]:
        own = every.loc[person.name]
        stated = facts.bio[facts.bio["individual"] == own["individual"]]
        for pieces, text in zip(person.biography, stated["text"], strict=True):
            assert "".join(piece.text for piece in pieces) == text
        for texts in (person.biography, [asked.pieces for asked in person.asked]):
            marked = [{p.kind: p.text for p in pieces if p.kind} for pieces in texts]
            assert [one["attribute"] for one in marked] == own[[*RELATIONS]].tolist()
            assert marked[0]["subject"] == person.name
        assert {one["subject"] for one in marked} == {person.name}  # in every question


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
