"""A few people as the models met them: biography, questions, and who answered rightly.

One person for each combination of traced or not and questions trained on or not, always the
first of its kind: nobody is picked for the answers.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import product
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


class Asked(NamedTuple):
    """A question about a person, and whether each model answered it rightly."""

    relation: str
    pieces: list[Piece]
    right: list[bool]


class Person(NamedTuple):
    """An example person: what models were trained on, the biography's sentences, the questions.

    `stored` is how many of the biography's attributes each model completes rightly.
    """

    name: str
    standing: str
    biography: list[list[Piece]]
    asked: list[Asked]
    stored: list[int]


def examples(study: Study, results: Path) -> dict[str, Any]:
    """Return what the page shows of people of a finished study, and how many there are."""
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

    `answers` has tables of recall per example, by the label under which they are shown.
    """
    right = []
    for path in answers.values():
        table = read_table(path)
        formats = table["split"].str.partition("_")[0]
        right.append(table.set_index(["individual", formats, "relation"])["correct"].sort_index())
    people = individuals.assign(traced=individuals["individual"].isin(list(traced)))
    found = []
    for side, is_traced in product(SIDES, (True, False)):
        rows = people[(people["split"] == side) & (people["traced"] == is_traced)]
        for individual, name in rows[["individual", "name"]].head(1).itertuples(index=False):
            questions = qa[qa["individual"] == individual].set_index("relation").loc[[*RELATIONS]]
            own = [answers.loc[individual] for answers in right]
            asked = [
                Asked(RELATION_LABELS[str(r)], _pieces(q), [bool(a["qa", r]) for a in own])
                for r, q in questions.iterrows()
            ]
            biography = [_pieces(row) for _, row in bio[bio["individual"] == individual].iterrows()]
            trained = "trained on" if side == "in" else "never seen"
            standing = f"questions {trained}; {'gradients' if is_traced else 'not'} traced"
            stored = [int(answers["bio"].sum()) for answers in own]
            found.append(Person(str(name), standing, biography, asked, stored))
    return found


def _pieces(row: pd.Series) -> list[Piece]:
    """Cut a text at its subject and attribute; the subject comes first."""
    text = str(row["text"])
    cuts = [int(row[f"{part}_{end}"]) for part in ("subject", "attribute") for end in
            ("start", "end")]  # fmt: skip
    kinds = ("", "subject", "", "attribute", "")
    bounds = zip([0, *cuts], [*cuts, len(text)], kinds, strict=True)
    return [Piece(text[start:end], kind) for start, end, kind in bounds if end > start]
