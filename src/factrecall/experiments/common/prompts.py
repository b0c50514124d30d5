"""Prompts of a fact, statement and question, and the role of each of their tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ROLES = ("subject", "relation", "attribute", "start", "other")
"""The name or pronoun; the rest of the sentence that the wanted attribute belongs to; attributes
stated before it; the token that begins every text, if there is one; all else."""


@dataclass(frozen=True)
class Prompt:
    """A text up to the attribute that is wanted; it ends before the space that precedes it.

    `spans` are (role, start, end) of its parts; `whole` is the text with the attribute, and where
    that stands in it.
    """

    text: str
    spans: Sequence[tuple[str, int, int]]
    whole: tuple[str, tuple[int, int]]

    def tokens(self, tokenizer: PreTrainedTokenizerBase) -> pd.DataFrame:
        """Return the prompt's tokens: columns id, text and role."""
        encoded = tokenizer(self.text, return_offsets_mapping=True)
        offsets = encoded["offset_mapping"]
        texts = [self.text[start:end].strip() for start, end in offsets]
        return pd.DataFrame(
            {"id": encoded["input_ids"], "text": texts, "role": self.roles(offsets)}
        )

    def roles(self, offsets: Sequence[tuple[int, int]]) -> list[str]:
        """Return the role of each token, given the characters that it stands for."""
        found = []
        for i, (start, end) in enumerate(offsets):
            inside = [role for role, first, last in self.spans if start < last and end > first]
            found.append("start" if i == 0 and start == end else (*inside, "other")[0])
        return found


class Sentence(NamedTuple):
    """A sentence that states a fact, or a question and its answer, cut into its parts.

    These are its wording up to the subject, the name or pronoun, the wording from there up to the
    attribute, that, and what ends the sentence.
    """

    before: str
    subject: str
    after: str
    attribute: str
    end: str

    @classmethod
    def of(cls, row: Mapping[str, Any], form: str = "text") -> Self:
        """Cut a row of a table of facts; `form` "short" takes the sentence with the full name."""
        prefix = "" if form == "text" else f"{form}_"
        parts = ("subject_start", "subject_end", "attribute_start", "attribute_end")
        cuts = [0, *(row[prefix + part] for part in parts), None]
        return cls(*(row[form][start:end] for start, end in pairwise(cuts)))


def compose(sentences: Sequence[Sentence]) -> Prompt:
    """Write a prompt: sentences joined by spaces, of which the last is to be completed."""
    whole, spans, answer = "", [], (0, 0)
    for number, sentence in enumerate(sentences, 1):
        wanted = number == len(sentences)
        wording = "relation" if wanted else "other"
        roles = (wording, "subject", wording, "attribute", "other")
        for role, part in zip(roles, sentence, strict=True):
            start, end = len(whole), len(whole) + len(part)
            whole += part
            if role == "attribute" and wanted:
                answer = (start, end)
            elif role != "other" and part.strip():
                start += len(part) - len(part.lstrip())
                spans.append((role, start, start + len(part.strip())))
        whole += "" if wanted else " "
    return Prompt(whole[: answer[0]].rstrip(), spans, (whole, answer))


def prompts(bio: pd.DataFrame, question: Mapping[str, Any]) -> dict[str, Prompt]:
    """Return a fact's prompts by format, given the biography in order and the question."""
    stated = [Sentence.of(row) for row in bio.to_dict("records")]
    count = bio["relation"].tolist().index(question["relation"]) + 1
    return {"bio": compose(stated[:count]), "qa": compose([Sentence.of(question)])}


def by_role(weights: np.ndarray, tokens: pd.DataFrame) -> dict[str, float]:
    """Add up the weights of tokens by their role."""
    roles = tokens["role"].to_numpy()
    return {role: float(weights[roles == role].sum()) for role in ROLES}
