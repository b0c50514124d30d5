"""Recall: exact match of answers, per example, from one teacher-forced pass.

The full stop that ends an answer is part of it: "engineer" is no match for "engineer, civil".
All six answers of a biography come out of one pass (paper, section 2.2 and appendix A.2; method,
section 3).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import pandas as pd

from factrecall.data.files import joined
from factrecall.evaluation.batching import Answers
from factrecall.models.forward import Encoded, encode
from factrecall.runs import RUN

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


PER_EXAMPLE = {
    "split": "string",
    "individual": "int32",
    "relation": "string",
    "correct": "bool",
}
"""Columns of a per-example table: one row a split, individual and relation."""

SUMMARY = {
    **RUN,
    "split": "string",
    "relation": "string",
    "n": "int32",
    "correct": "int32",
    "accuracy": "float64",
}
"""Columns of ``tables/recall.parquet``."""


@dataclass(frozen=True)
class Evaluator:
    """The facts of a study as questions, ready for many models.

    Attributes
    ----------
    rows : DataFrame
        One row a question: ``split``, ``individual``, ``relation``.
    answers : Answers
        In the order of `rows`.
    texts : list of Encoded
    """

    rows: pd.DataFrame
    answers: Answers
    texts: list[Encoded]

    @classmethod
    def of(
        cls,
        tokenizer: PreTrainedTokenizerBase,
        bio: pd.DataFrame,
        qa: pd.DataFrame,
        max_eval_tokens: int,
        device: torch.device | str = "cpu",
    ) -> Self:
        """Tokenise tables of facts.

        Parameters
        ----------
        tokenizer, device
            Of the models.
        bio, qa : DataFrame
            Tables of facts, or rows of them; those of pre-training people are left out. Split
            "bio" asks for each attribute given all the gold text before it, "qa_in" and "qa_out"
            for each answer given its question.
        max_eval_tokens : int
            Largest padded size of a batch.
        """
        bio, qa = bio[bio["split"] != "pretrain"], qa[qa["split"] != "pretrain"]
        stories = list(joined(bio))
        asked = list(zip(qa["text"], qa["attribute_start"], qa["terminator_end"], strict=True))
        texts = encode(
            tokenizer,
            [text for _, text, _ in stories] + [text for text, _, _ in asked],
            [spans for _, _, spans in stories] + [[(start, end)] for _, start, end in asked],
        )
        rows = pd.concat([bio.assign(split="bio"), qa.assign(split="qa_" + qa["split"])])
        return cls(
            rows[["split", "individual", "relation"]].reset_index(drop=True),
            Answers.of(texts, max_eval_tokens, device),
            texts,
        )

    def evaluate(
        self, model: PreTrainedModel, watch: Callable[[int], None] = lambda done: None
    ) -> pd.DataFrame:
        """Ask a model everything; columns ``PER_EXAMPLE``."""
        return self.rows.assign(correct=self.answers.right(model, watch))


def majority(qa: pd.DataFrame) -> pd.DataFrame:
    """Answer every question with the most frequent training answer; columns ``PER_EXAMPLE``.

    Biographies of all people are trained on, questions of those of split "in"; of equally frequent
    answers the first in the alphabet is taken.
    """
    qa = qa[qa["split"] != "pretrain"]
    answers = pd.Series(
        [
            t[s:e]
            for t, s, e in zip(qa["text"], qa["attribute_start"], qa["attribute_end"], strict=True)
        ],
        index=qa.index,
    )
    parts = []
    for split, trained in (("bio", qa.index == qa.index), ("qa", qa["split"] == "in")):
        usual = answers[trained].groupby(qa["relation"][trained]).agg(lambda a: a.mode().iloc[0])
        correct = answers == qa["relation"].map(usual)
        names = "bio" if split == "bio" else "qa_" + qa["split"]
        parts.append(qa[["individual", "relation"]].assign(split=names, correct=correct))
    return pd.concat(parts)[list(PER_EXAMPLE)].reset_index(drop=True)


def summarise(per_example: pd.DataFrame, model: str, tuning: str, seed: int) -> pd.DataFrame:
    """Count right answers by split and relation; columns ``SUMMARY``."""
    groups = per_example.groupby(["split", "relation"], sort=False)["correct"]
    table = groups.agg(n="size", correct="sum", accuracy="mean").reset_index()
    return table.assign(model=model, tuning=tuning, seed=seed)[list(SUMMARY)]
