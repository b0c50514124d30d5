"""A few people as the models met them: biography, questions, and who answered rightly.

One person for each combination of traced or not and questions trained on or not, always the
first of its kind: nobody is picked for the answers.
"""

from __future__ import annotations

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
    """Return what the page shows of people of a finished study, and how many there are.

    Of several replicates they are those of the first.
    """
    from factrecall.data.files import FactFiles

    names = ("individuals", "bio", "qa")
    facts = FactFiles(*(results / f"facts/seed{study.seed}/{name}.parquet" for name in names))
    individuals, bio, qa = facts.read()
    right = {}
    for model, tuning in product(study.models, TUNINGS):
        path = results / f"models/{model}/{tuning}/seed{study.training.seeds[0]}.recall.parquet"
        label = (f"{model}: " if len(study.models) > 1 else "") + TUNING_LABELS[tuning]
        table = read_table(path).assign(split=lambda t: t["split"].str.partition("_")[0])
        keys = ["individual", "split", "relation"]
        right[label] = table.set_index(keys)["correct"].sort_index()
    traced = traced_individuals(individuals, study.trace, study.seed)
    groups = individuals.assign(traced=individuals["individual"].isin(list(traced)))
    counts = individuals["split"].value_counts()
    return {
        "people": [
            _person(int(row["individual"]), row, bio, qa, [*right.values()])
            for side, is_traced in product(SIDES, (True, False))
            for _, row in groups.query("split == @side and traced == @is_traced").head(1).iterrows()
        ],
        "answer_heads": list(right),
        "people_in": int(counts.get("in", 0)),
        "people_out": int(counts.get("out", 0)),
    }


def _person(
    individual: int, row: pd.Series, bio: pd.DataFrame, qa: pd.DataFrame, right: list[pd.Series]
) -> Person:
    own = [answers.loc[individual] for answers in right]
    questions = qa[qa["individual"] == individual].set_index("relation").loc[[*RELATIONS]]
    trained = "trained on" if row["split"] == "in" else "never seen"
    return Person(
        name=str(row["name"]),
        standing=f"questions {trained}; {'gradients' if row['traced'] else 'not'} traced",
        biography=[_pieces(text) for _, text in bio[bio["individual"] == individual].iterrows()],
        asked=[
            Asked(RELATION_LABELS[str(r)], _pieces(q), [bool(answers["qa", r]) for answers in own])
            for r, q in questions.iterrows()
        ],
        stored=[int(answers["bio"].sum()) for answers in own],
    )


def _pieces(row: pd.Series) -> list[Piece]:
    """Cut a text at its subject and attribute; the subject comes first."""
    text = str(row["text"])
    cuts = [int(row[f"{part}_{end}"]) for part in ("subject", "attribute") for end in
            ("start", "end")]  # fmt: skip
    kinds = ("", "subject", "", "attribute", "")
    bounds = zip([0, *cuts], [*cuts, len(text)], kinds, strict=True)
    return [Piece(text[start:end], kind) for start, end, kind in bounds if end > start]
