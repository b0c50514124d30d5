"""How many tokens a study's texts have: a sample of them is written and split into words."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from factrecall.data.files import joined
from factrecall.evaluation.prefix_sharing import ROW_TOKENS
from factrecall.models.tokenizers import word_splitter
from factrecall.vocabulary import RELATIONS

if TYPE_CHECKING:
    from factrecall.config.facts import Facts

SAMPLE = 300  # people whose texts are written

# Tokens for each word or punctuation mark in a byte-pair encoding. English prose has about 1.1 in
# the large models' vocabularies; invented names and years, which are half of these texts, two or
# three. An estimate: no tokenizer of theirs is at hand while planning.
PIECES = 1.3


@dataclass(frozen=True)
class TextLengths:
    """Lengths in tokens, a start token included; arrays are of the texts of a sample of people."""

    bio: np.ndarray
    short: np.ndarray  # of a biography's single sentences
    shuffled: np.ndarray  # of these in one text
    question: np.ndarray  # with its answer
    six: np.ndarray  # of all questions of a person in one text
    answer: float  # with its full stop
    # Of a question that passes through a model among others: their common prefix is shared, and an
    # answer's last token does not pass.
    per_question: float
    words: int  # different words and punctuation marks in all texts, and three special tokens

    def scaled(self, factor: float) -> TextLengths:
        """Return the same texts in a tokenizer with so many tokens for each word."""

        def grown(lengths: np.ndarray) -> np.ndarray:
            return 1 + (lengths - 1) * factor

        arrays: dict[str, Any] = {
            name: grown(getattr(self, name))
            for name in ("bio", "short", "shuffled", "question", "six")
        }
        return replace(
            self, **arrays, answer=self.answer * factor, per_question=self.per_question * factor
        )


def texts_of(facts: Facts, seed: int) -> TextLengths:
    """Return the lengths of a study's texts in words; those of the same settings are cached.

    Raises
    ------
    FactRecallError
        When the user's own people or sentences cannot be read.
    """
    key = facts.model_dump_json(), seed
    if key not in _CACHE:
        _CACHE[key] = _texts(facts, seed)
    return _CACHE[key]


_CACHE: dict[tuple[str, int], TextLengths] = {}


def _texts(facts: Facts, seed: int) -> TextLengths:
    from factrecall.data.own_data import read_people
    from factrecall.data.people import sample_people
    from factrecall.data.tables import make_bio, make_qa
    from factrecall.data.templates import load_templates

    templates = load_templates(facts.templates)
    if facts.individuals is None:
        people = sample_people(facts, seed)
    else:
        people = read_people(facts.individuals, facts, seed)
    spread = np.linspace(0, len(people) - 1, min(SAMPLE, len(people))).astype(int)
    few = people.iloc[spread].reset_index(drop=True)
    bio, qa = make_bio(few, templates, seed), make_qa(few, templates)
    question = _count(qa["text"])
    answers = _count(
        text[start:end]
        for text, start, end in zip(
            qa["text"], qa["attribute_start"], qa["terminator_end"], strict=True
        )
    )
    shared = _count(
        text[:start] for text, start in zip(qa["text"], qa["subject_start"], strict=True)
    )
    # What is each question's own: from the name on, but not the answer's last token.
    own = np.maximum(question - 1 - shared, 1)
    together = np.maximum((ROW_TOKENS - shared) // own, 1)
    # Names and attributes stand behind a space; of sentences the sample holds nearly all words.
    values = (people[column].unique() for column in ("name", *RELATIONS))
    return TextLengths(
        bio=_count(text for _, text, _ in joined(bio)),
        short=(short := _count(bio["short"])),
        shuffled=1 + (short - 1).reshape(-1, len(RELATIONS)).sum(1),
        question=question,
        six=_count(text for _, text, _ in joined(qa)),
        answer=float(answers.mean()) - 1,
        per_question=float((own + shared / together).mean()),
        words=_different([*bio["text"], *qa["text"]], chain.from_iterable(values)),
    )


def _count(texts: Iterable[str]) -> np.ndarray:
    """Count the tokens of texts as the tokenizer `words` does, a start token before each."""
    split = word_splitter().pre_tokenize_str
    return np.array([1.0 + len(split(text)) for text in texts])


def _different(texts: Iterable[str], values: Iterable[str]) -> int:
    split = word_splitter().pre_tokenize_str
    return 3 + len({piece for text in chain(texts, values) for piece, _ in split(text)})
