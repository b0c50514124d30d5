"""A few people as the models met them: biography, questions, and who answered rightly.

One person for each combination of traced or not and questions trained on or not, always the
first of its kind: nobody is picked for the answers.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from factrecall.data.traced import traced_individuals
from factrecall.report.style import RELATION_LABELS, TUNING_LABELS
from factrecall.runtime.storage import read_table
from factrecall.vocabulary import RELATIONS, SIDES, TUNINGS

if TYPE_CHECKING:
    import pandas as pd

    from factrecall.config.study import Study


class Piece(NamedTuple):
    """A run of text; `kind` is "subject", "attribute" or "" for what lies between."""

    text: str
    kind: str


@dataclass(frozen=True)
class Asked:
    """A question about a person, and whether each model answered it rightly."""

    relation: str
    pieces: list[Piece]
    right: list[bool]


@dataclass(frozen=True)
class Person:
    """One example person.

    Attributes
    ----------
    name, standing : str
        Who it is, and what the models were trained on.
    biography : list of list of Piece
        Its sentences.
    asked : list of Asked
        Its questions, in the order of relations.
    stored : list of int
        By model, how many of the biography's attributes are completed rightly.
    """

    name: str
    standing: str
    biography: list[list[Piece]]
    asked: list[Asked]
    stored: list[int]


def examples(study: Study, results: Path) -> dict[str, Any]:
    """Return what the page shows of people, and how many there are.

    Parameters
    ----------
    study : Study
        The configuration.
    results : Path
        Its results folder, finished.
    """
    from factrecall.data.files import FactFiles

    names = ("individuals", "bio", "qa")
    facts = FactFiles(*(results / "facts" / f"{name}.parquet" for name in names))
    individuals, bio, qa = facts.read()
    seed = study.training.seeds[0]
    answers = {
        (f"{model}: " if len(study.models) > 1 else "") + TUNING_LABELS[tuning]: results
        / f"models/{model}/{tuning}/seed{seed}.recall.parquet"
        for model in study.models
        for tuning in TUNINGS
    }
    counts = individuals["split"].value_counts()
    traced = traced_individuals(individuals, study.trace, study.seed)
    return {
        "people": choose_people(individuals, bio, qa, traced, answers),
        "answer_heads": list(answers),
        "people_in": int(counts.get("in", 0)),
        "people_out": int(counts.get("out", 0)),
    }


def choose_people(
    individuals: pd.DataFrame,
    bio: pd.DataFrame,
    qa: pd.DataFrame,
    traced: Collection[int],
    answers: Mapping[str, Path],
) -> list[Person]:
    """Choose and describe the example people.

    Parameters
    ----------
    individuals, bio, qa : DataFrame
        The facts.
    traced : collection of int
        The individuals whose gradients were recorded.
    answers : mapping of str to Path
        Tables of recall per example, by the label under which they are shown.

    Raises
    ------
    FactRecallError
        When a table of recall is missing or damaged.
    """
    keys = ["individual", "split", "relation"]
    right = [read_table(path).set_index(keys)["correct"] for path in answers.values()]
    people = individuals.assign(traced=individuals["individual"].isin(list(traced)))
    chosen = [
        (rows.iloc[0], side, is_traced)
        for side in SIDES
        for is_traced in (True, False)
        if not (rows := people[(people["split"] == side) & (people["traced"] == is_traced)]).empty
    ]
    return [
        _describe(
            str(row["name"]),
            _standing(side, is_traced),
            bio[bio["individual"] == row["individual"]],
            qa[qa["individual"] == row["individual"]],
            [_of(correct, int(row["individual"])) for correct in right],
        )
        for row, side, is_traced in chosen
    ]


def _standing(side: str, traced: bool) -> str:
    questions = "questions trained on" if side == "in" else "questions never seen"
    return f"{questions}; {'gradients traced' if traced else 'not traced'}"


def _of(correct: pd.Series, individual: int) -> dict[tuple[str, str], bool]:
    """Return one individual's answers: by format ("bio" or "qa") and relation."""
    rows = correct[correct.index.get_level_values("individual") == individual]
    return {
        (split.partition("_")[0], relation): bool(value)
        for (_, split, relation), value in rows.items()
    }


def _describe(
    name: str,
    standing: str,
    bio: pd.DataFrame,
    qa: pd.DataFrame,
    right: list[dict[tuple[str, str], bool]],
) -> Person:
    questions = qa.set_index("relation")
    return Person(
        name=name,
        standing=standing,
        biography=[_pieces(row) for _, row in bio.iterrows()],
        asked=[
            Asked(
                RELATION_LABELS[relation],
                _pieces(questions.loc[relation]),
                [answers.get(("qa", relation), False) for answers in right],
            )
            for relation in RELATIONS
        ],
        stored=[sum(a.get(("bio", relation), False) for relation in RELATIONS) for a in right],
    )


def _pieces(row: pd.Series) -> list[Piece]:
    """Cut a text at its subject and attribute; the subject comes first."""
    text = str(row["text"])
    cuts = [int(row[f"{part}_{end}"]) for part in ("subject", "attribute") for end in
            ("start", "end")]  # fmt: skip
    kinds = ("", "subject", "", "attribute", "")
    bounds = zip([0, *cuts], [*cuts, len(text)], kinds, strict=True)
    return [Piece(text[start:end], kind) for start, end, kind in bounds if end > start]
