"""Prompts of a fact, told and asked, and which part each of their tokens plays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FORMATS = ("bio", "qa")
"""A fact told after all the biography before it, and asked for."""

ROLES = ("subject", "relation", "attribute", "start", "other")
"""The name or pronoun; the rest of the sentence that the wanted attribute belongs to; attributes
told before it; the token that begins every text, if there is one; all else."""


@dataclass(frozen=True)
class Prompt:
    """A text up to the attribute that is wanted.

    Attributes
    ----------
    text : str
        It ends before the space that precedes the attribute.
    spans : sequence of (role, start, end)
        Characters of its parts.
    whole : (str, (int, int))
        The text with the attribute, and the attribute's characters.
    """

    text: str
    spans: Sequence[tuple[str, int, int]]
    whole: tuple[str, tuple[int, int]]

    def tokens(self, tokenizer: PreTrainedTokenizerBase) -> pd.DataFrame:
        """Return the prompt's tokens: columns id, text and role."""
        encoded = tokenizer(self.text, return_offsets_mapping=True)
        rows = []
        for i, (token, (start, end)) in enumerate(
            zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
        ):
            inside = [role for role, first, last in self.spans if start < last and end > first]
            role = "start" if i == 0 and start == end else (*inside, "other")[0]
            rows.append({"id": token, "text": self.text[start:end].strip(), "role": role})
        return pd.DataFrame(rows)


def prompts(bio: pd.DataFrame, question: Mapping[str, Any]) -> dict[str, Prompt]:
    """Return the prompts of a fact by format.

    Parameters
    ----------
    bio : DataFrame
        The sentences of the person's biography, in order.
    question : mapping
        The fact's row of the table of questions.
    """
    text, spans = "", []
    for sentence in bio.to_dict("records"):
        wanted = sentence["relation"] == question["relation"]
        spans += _spans(sentence, len(text), wanted=wanted)
        if wanted:
            break
        text += sentence["text"] + " "
    return {
        "bio": _prompt(text, sentence, spans),
        "qa": _prompt("", question, _spans(question, 0, wanted=True)),
    }


def _prompt(before: str, row: Mapping[str, Any], spans: list[tuple[str, int, int]]) -> Prompt:
    start, end = (len(before) + row[f"attribute_{at}"] for at in ("start", "end"))
    whole = before + row["text"]
    return Prompt(whole[:start].rstrip(), spans, (whole, (start, end)))


def _spans(row: Mapping[str, Any], offset: int, *, wanted: bool) -> list[tuple[str, int, int]]:
    found = [("subject", row["subject_start"], row["subject_end"])]
    if wanted:
        pairs = zip(row["relation_start"], row["relation_end"], strict=True)
        found += [("relation", start, end) for start, end in pairs]
    else:
        found.append(("attribute", row["attribute_start"], row["attribute_end"]))
    return [(role, int(start) + offset, int(end) + offset) for role, start, end in found]


def by_role(weights: np.ndarray, tokens: pd.DataFrame) -> dict[str, float]:
    """Add up the weights of tokens by their role."""
    roles = tokens["role"].to_numpy()
    return {role: float(weights[roles == role].sum()) for role in ROLES}
