"""Training sequences from the tables of facts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from factrecall.data.files import Text, joined
from factrecall.models.forward import Encoded, encode
from factrecall.runtime.seeds import generator
from factrecall.training.batches import IGNORED, Example
from factrecall.vocabulary import RELATIONS

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedTokenizerBase

    from factrecall.config.training import Recipe


def training_set(
    tuning: str,
    recipe: Recipe,
    bio: pd.DataFrame,
    qa: pd.DataFrame,
    tokenizer: PreTrainedTokenizerBase,
    seed: int = 0,
) -> list[Example]:
    """Return the examples of a tuning, biographies first.

    `bio` learns all biographies, `stage` the in-distribution questions, `mix` both. `base`
    (pre-training) learns statements about other people and not one question: their biographies,
    each sentence by itself with the full name, and all six of these in an order drawn by `seed`.
    """
    bio = bio[(bio["split"] == "pretrain") == (tuning == "base")]
    if tuning == "base":
        return [
            *bio_examples(bio, tokenizer, recipe.loss),
            *short_examples(bio, tokenizer, recipe.loss),
            *shuffled_examples(bio, tokenizer, recipe.loss, seed),
        ]
    examples: list[Example] = []
    if tuning != "stage":
        examples += bio_examples(bio, tokenizer, recipe.loss)
    if tuning != "bio":
        qa = qa[qa["split"] == "in"]
        examples += qa_examples(qa, tokenizer, recipe.loss, recipe.questions_per_example)
    return examples


def bio_examples(
    bio: pd.DataFrame, tokenizer: PreTrainedTokenizerBase, loss: Literal["all", "answer"]
) -> list[Example]:
    """Make one sequence of each biography in rows of the `bio` table, whole individuals.

    `loss` is over every token, or over the attributes and the full stops that end them.
    """
    return _examples(joined(bio), "bio", tokenizer, loss)


def qa_examples(
    qa: pd.DataFrame,
    tokenizer: PreTrainedTokenizerBase,
    loss: Literal["all", "answer"],
    questions: Literal["one", "all"],
) -> list[Example]:
    """Make one sequence of each question with its answer, or of all of an individual's.

    "all" joins an individual's six questions by spaces (docs/method.md); `loss` as in
    `bio_examples`.
    """
    texts = joined(qa) if questions == "all" else _single(qa)
    return _examples(texts, "qa", tokenizer, loss)


def short_examples(
    bio: pd.DataFrame, tokenizer: PreTrainedTokenizerBase, loss: Literal["all", "answer"]
) -> list[Example]:
    """Make one sequence of each sentence of a biography, with the full name (BIO_short)."""
    return _examples(_single(bio, "short_", "short"), "bio", tokenizer, loss)


def shuffled_examples(
    bio: pd.DataFrame, tokenizer: PreTrainedTokenizerBase, loss: Literal["all", "answer"], seed: int
) -> list[Example]:
    """Make one sequence of the sentences of each biography in another order, all with the name.

    So a model learns to bind facts to the name and not to the sentence before, as text about
    well-known people makes it do.
    """
    rng, six = generator(seed, "order of sentences"), len(RELATIONS)
    sentences = list(_single(bio, "short_", "short"))
    texts = []
    for first in range(0, len(sentences), six):
        text, spans = "", []
        for i in rng.permutation(six):
            person, sentence, [(start, end)] = sentences[first + i]
            text += " " * bool(text)
            spans.append((len(text) + start, len(text) + end))
            text += sentence
        texts.append((person, text, spans))
    return _examples(texts, "bio", tokenizer, loss)


def _single(table: pd.DataFrame, prefix: str = "", text: str = "text") -> Iterator[Text]:
    columns = ["individual", text, f"{prefix}attribute_start", f"{prefix}terminator_end"]
    for person, sentence, start, end in table[columns].itertuples(index=False):
        yield person, sentence, [(start, end)]


def _examples(
    texts: Iterable[Text], kind: str, tokenizer: PreTrainedTokenizerBase, loss: str
) -> list[Example]:
    people, sentences, spans = zip(*texts, strict=True)
    encoded = encode(tokenizer, sentences, spans)
    return [
        Example(e.tokens, _targets(e, loss), kind, int(person))
        for person, e in zip(people, encoded, strict=True)
    ]


def _targets(encoded: Encoded, loss: str) -> np.ndarray:
    targets = np.full(len(encoded.tokens), IGNORED, dtype=np.int64)
    ranges: Sequence[tuple[int, int]] = encoded.answers
    if loss == "all":
        ranges = [(1, len(encoded.tokens))]
    for start, end in ranges:
        targets[start - 1 : end - 1] = encoded.tokens[start:end]
    return targets
