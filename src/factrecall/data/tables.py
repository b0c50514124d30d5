"""The tables of a study: who the people are, their biographies, their questions.

Rows are facts in the order of individuals and, within one, of relations. Text columns come
with the character spans of their parts, so that no later stage searches in text.
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
    """The people of a study (`INDIVIDUAL_COLUMNS`) and their facts in both formats.

    `bio` has the columns `BIO_COLUMNS`, `qa` those of `QA_COLUMNS`.
    """

    individuals: pd.DataFrame
    bio: pd.DataFrame
    qa: pd.DataFrame


def make_facts(settings: Facts, seed: int) -> FactTables:
    """Make the facts of a study.

    Parameters
    ----------
    settings : factrecall.config.facts.Facts
        Who is invented, or where the user's own people and templates are.
    seed : int
        The study seed.

    Raises
    ------
    FactRecallError
        When the settings ask for more than exists, or the user's own files have mistakes.
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
    """Write the biographies: one row a sentence, its template drawn uniformly.

    `text` is the sentence as it stands in the biography (sentences joined by one space), which
    it enters at `start`; `short` is the same sentence with the full name (BIO_short). A person of
    the study has one biography, a person of pre-training `pretrain_biographies`, which tell the
    same facts in other words and are numbered by the column `biography`.
    """
    told = np.where(people["split"] == "pretrain", pretrain_biographies, 1)
    people = people.loc[people.index.repeat(told)].reset_index(drop=True)
    chosen = _draw_templates(people, templates, seed)
    long, short = [], []
    for row, person in enumerate(people.itertuples(index=False)):
        for column, relation in enumerate(RELATIONS):
            template = templates.sentences[relation][chosen[row, column]]
            values = (template, person.name, person.gender, getattr(person, relation))
            named = render_sentence(*values, named=True)
            short.append(named)
            # Only the first sentence of a biography says the name.
            long.append(named if column == 0 else render_sentence(*values, named=False))
    lengths = np.array([len(sentence.text) for sentence in long], dtype=np.int32)
    ends = np.cumsum(lengths.reshape(len(people), len(RELATIONS)) + 1, axis=1).ravel()
    table = _keys(people)
    table["biography"] = np.repeat(_numbers(told), len(RELATIONS))
    table["template"] = chosen.ravel()
    table["text"] = [sentence.text for sentence in long]
    table["start"] = (ends - lengths - 1).astype(np.int32)
    _add_spans(table, long)
    table["short"] = [sentence.text for sentence in short]
    _add_spans(table, short, "short_")
    return table[list(BIO_COLUMNS)]


def make_qa(people: pd.DataFrame, templates: Templates) -> pd.DataFrame:
    """Write the questions and answers: one row a fact."""
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
    """Return one template index a person and relation.

    The people of pre-training draw for themselves, so that their number moves no one else.
    """
    pretrain = (people["split"] == "pretrain").to_numpy()
    chosen = np.empty((len(people), len(RELATIONS)), dtype=np.int32)
    for column, relation in enumerate(RELATIONS):
        count = len(templates.sentences[relation])
        for group, rows in (("people", ~pretrain), ("pretrain", pretrain)):
            draw = generator(seed, group, "template", relation)
            chosen[rows, column] = draw.integers(count, size=int(rows.sum()))
    return chosen


def _numbers(told: np.ndarray) -> np.ndarray:
    """Count from 0 within each person, given how many biographies each has."""
    return np.concatenate([np.arange(count, dtype=np.int32) for count in told])


def _keys(people: pd.DataFrame) -> pd.DataFrame:
    keys = people[["individual", "split"]].loc[people.index.repeat(len(RELATIONS))]
    keys = keys.reset_index(drop=True)
    keys["relation"] = np.tile(np.array(RELATIONS, dtype=object), len(people))
    return keys


def _add_spans(table: pd.DataFrame, rendered: Sequence[Rendered], prefix: str = "") -> None:
    ends = {
        "subject_start": [r.subject.start for r in rendered],
        "subject_end": [r.subject.end for r in rendered],
        "attribute_start": [r.attribute.start for r in rendered],
        "attribute_end": [r.attribute.end for r in rendered],
        "terminator_end": [r.terminator.end for r in rendered],
    }
    for column, values in ends.items():
        table[prefix + column] = np.array(values, dtype=np.int32)
    table[f"{prefix}relation_start"] = [[span.start for span in r.relation] for r in rendered]
    table[f"{prefix}relation_end"] = [[span.end for span in r.relation] for r in rendered]
