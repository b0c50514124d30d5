"""Columns of the tables of facts, and joining of their sentences to texts.

Training and evaluation read the tables through this module alone: a change of how facts are made
reruns nothing unless the facts change.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from factrecall.runtime.errors import FactRecallError
from factrecall.runtime.storage import read_table
from factrecall.vocabulary import RELATIONS

if TYPE_CHECKING:
    import pandas as pd


def _span_columns(prefix: str = "") -> dict[str, str]:
    return {
        f"{prefix}subject_start": "int32",
        f"{prefix}subject_end": "int32",
        f"{prefix}attribute_start": "int32",
        f"{prefix}attribute_end": "int32",
        f"{prefix}terminator_end": "int32",
        f"{prefix}relation_start": "list<int32>",
        f"{prefix}relation_end": "list<int32>",
    }


# Columns of the tables with their Arrow types.
INDIVIDUAL_COLUMNS = {
    "individual": "int32",
    "split": "string",
    "name": "string",
    "gender": "string",
    **dict.fromkeys(RELATIONS, "string"),
}
BIO_COLUMNS = {
    "individual": "int32",
    "split": "string",
    "biography": "int32",
    "relation": "string",
    "template": "int32",
    "text": "string",
    "start": "int32",
    **_span_columns(),
    "short": "string",
    **_span_columns("short_"),
}
QA_COLUMNS = {
    "individual": "int32",
    "split": "string",
    "relation": "string",
    "text": "string",
    **_span_columns(),
}


@dataclass(frozen=True)
class FactFiles:
    """The three tables of facts."""

    individuals: Path
    bio: Path
    qa: Path

    @classmethod
    def of(cls, paths: Sequence[Path]) -> FactFiles:
        """Take three paths; refuse another number."""
        if len(paths) != 3:
            remedy = "name individuals, biographies and questions, in this order"
            raise FactRecallError(f"--facts with {len(paths)} files", "there are three", remedy)
        return cls(*paths)

    def read(self) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
        """Read and check all three."""
        return (
            read_table(self.individuals, INDIVIDUAL_COLUMNS),
            read_table(self.bio, BIO_COLUMNS),
            read_table(self.qa, QA_COLUMNS),
        )

    def paths(self) -> list[Path]:
        """Return the three paths."""
        return [self.individuals, self.bio, self.qa]


Text = tuple[int, str, list[tuple[int, int]]]
"""An individual, a text about it, and the spans of its attributes with their terminators."""


def joined(table: pd.DataFrame) -> Iterator[Text]:
    """Join the sentences of each biography, or the questions of each individual, by spaces.

    Parameters
    ----------
    table : DataFrame
        Rows of the `bio` or `qa` table, the six of each individual together and in order.

    Yields
    ------
    Text
        One per biography, in the order of the table; spans are offsets in the whole text.

    Raises
    ------
    ValueError
        When rows of an individual are missing or not in order.
    """
    six = len(RELATIONS)
    if len(table) % six or tuple(table["relation"]) != RELATIONS * (len(table) // six):
        raise ValueError("each individual needs its six rows together, in the order of relations")
    texts = table["text"].to_numpy(dtype=object).reshape(-1, six)
    lengths = table["text"].str.len().to_numpy().reshape(-1, six) + 1
    offsets = np.cumsum(lengths, axis=1) - lengths
    starts = table["attribute_start"].to_numpy().reshape(-1, six) + offsets
    ends = table["terminator_end"].to_numpy().reshape(-1, six) + offsets
    people = table["individual"].to_numpy()[::six]
    for person, row, first, last in zip(people, texts, starts.tolist(), ends.tolist(), strict=True):
        yield int(person), " ".join(row), list(zip(first, last, strict=True))
