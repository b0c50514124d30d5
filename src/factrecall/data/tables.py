"""Tables of facts: individuals, biographies and questions.

Rows are facts, ordered by individual and then by relation. Texts come with the character spans of
their parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from factrecall.data.files import BIO_COLUMNS, QA_COLUMNS
from factrecall.data.own_data import read_people
from factrecall.data.people import sample_people
from factrecall.data.rendering import Rendered, render_question, render_sentence
from factrecall.data.templates import Templates, load_templates
from factrecall.runtime.seeds import generator
from factrecall.vocabulary import RELATIONS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from factrecall.config.facts import Facts


@dataclass(frozen=True)
class FactTables:
    """The individuals of a study, their biographies and questions; columns are those of `files`."""

    individuals: pd.DataFrame
    bio: pd.DataFrame
    qa: pd.DataFrame


def make_facts(settings: Facts, seed: int) -> FactTables:
    """Make the facts of a study.

    Parameters
    ----------
    settings : factrecall.config.facts.Facts
        Numbers and pools of synthetic individuals, or files of own ones and of own templates.
    seed : int
        The study seed.

    Raises
    ------
    FactRecallError
        When a pool is too small or an own file has a mistake.
    """
    templates = load_templates(settings.templates)
    if settings.individuals is None:
        people = sample_people(settings, seed)
    else:
        people = read_people(settings.individuals, settings, seed)
    bio = make_bio(people, templates, seed, settings.pretrain_biographies)
    return FactTables(people, bio, make_qa(people, templates))


def make_bio(
    people: pd.DataFrame, templates: Templates, seed: int, pretrain_biographies: int = 1
) -> pd.DataFrame:
    """Write the biographies: one row per sentence, its template drawn uniformly.

    `text` is the sentence in the biography, whose sentences are joined by one space, and `start`
    its offset there; `short` is the sentence with the full name (BIO_short). An individual has one
    biography, one of pre-training `pretrain_biographies`, numbered by the column `biography`.
    """
    counts = np.where(people["split"] == "pretrain", pretrain_biographies, 1)
    people = people.loc[people.index.repeat(counts)].reset_index(drop=True)
    chosen = _draw_templates(people, templates, seed)
    long, short = [], []
    for row, person in enumerate(people.itertuples(index=False)):
        for column, relation in enumerate(RELATIONS):
            template = templates.sentences[relation][chosen[row, column]]
            values = (template, person.name, person.gender, getattr(person, relation))
            named = render_sentence(*values, named=True)
            short.append(named)
            # Only the first sentence of a biography has the name.
            long.append(named if column == 0 else render_sentence(*values, named=False))
    lengths = np.array([len(sentence.text) for sentence in long], dtype=np.int32)
    ends = np.cumsum(lengths.reshape(len(people), len(RELATIONS)) + 1, axis=1).ravel()
    table = _keys(people)
    table["biography"] = np.repeat(_numbers(counts), len(RELATIONS))
    table["template"] = chosen.ravel()
    table["text"] = [sentence.text for sentence in long]
    table["start"] = (ends - lengths - 1).astype(np.int32)
    _add_spans(table, long)
    table["short"] = [sentence.text for sentence in short]
    _add_spans(table, short, "short_")
    return table[list(BIO_COLUMNS)]


def make_qa(people: pd.DataFrame, templates: Templates) -> pd.DataFrame:
    """Write the questions with their answers: one row per fact."""
    pairs = [
        render_question(templates.questions[relation], person.name, getattr(person, relation))
        for person in people.itertuples(index=False)
        for relation in RELATIONS
    ]
    table = _keys(people)
    table["text"] = [pair.text for pair in pairs]
    _add_spans(table, pairs)
    return table[list(QA_COLUMNS)]


def _draw_templates(people: pd.DataFrame, templates: Templates, seed: int) -> NDArray[np.int32]:
    """Return a template index per individual and relation.

    Individuals of pre-training have generators of their own: their number changes no one else.
    """
    pretrain = (people["split"] == "pretrain").to_numpy()
    chosen = np.empty((len(people), len(RELATIONS)), dtype=np.int32)
    for column, relation in enumerate(RELATIONS):
        count = len(templates.sentences[relation])
        for group, rows in (("people", ~pretrain), ("pretrain", pretrain)):
            draw = generator(seed, group, "template", relation)
            chosen[rows, column] = draw.integers(count, size=int(rows.sum()))
    return chosen


def _numbers(counts: np.ndarray) -> np.ndarray:
    """Count the biographies of each individual from 0."""
    return np.concatenate([np.arange(count, dtype=np.int32) for count in counts])


def _keys(people: pd.DataFrame) -> pd.DataFrame:
    keys = people[["individual", "split"]].loc[people.index.repeat(len(RELATIONS))]
    keys = keys.reset_index(drop=True)
    keys["relation"] = np.tile(np.array(RELATIONS, dtype=object), len(people))
    return keys


def _add_spans(table: pd.DataFrame, rendered: Sequence[Rendered], prefix: str = "") -> None:
    for column in (
        "subject_start",
        "subject_end",
        "attribute_start",
        "attribute_end",
        "terminator_end",
    ):
        part, end = column.split("_")
        values = [getattr(getattr(r, part), end) for r in rendered]
        table[prefix + column] = np.array(values, dtype=np.int32)
    for end in ("start", "end"):
        table[f"{prefix}relation_{end}"] = [[getattr(s, end) for s in r.relation] for r in rendered]
