"""What a model recalls: exact match of answers, per example, from one teacher-forced pass.

Greedy decoding gives the gold answer exactly when the most likely token is the gold one at each
of the answer's positions, so one forward pass over prompt and answer decides it. The full stop
that ends an answer is part of it: "engineer" is no match for "engineer, civil". All six answers
of a biography come out of one pass (paper, section 2.2 and appendix A.2; method, section 3).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from factrecall.facts import RELATIONS
from factrecall.facts.forms import BIO_COLUMNS, QA_COLUMNS, joined
from factrecall.models.forward import Encoded, encode, logits_at
from factrecall.models.load import load_model, load_tokenizer
from factrecall.progress import progress
from factrecall.storage import read_table, write_table
from factrecall.training.batches import cut, pad

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SPLITS = ("bio", "qa_in", "qa_out")

PER_EXAMPLE = {
    "split": "string",
    "individual": "int32",
    "relation": "string",
    "correct": "bool",
}
"""Columns of a per-example table: one row a split, individual and relation."""

SUMMARY = {
    "model": "string",
    "tuning": "string",
    "seed": "int32",
    "split": "string",
    "relation": "string",
    "n": "int32",
    "correct": "int32",
    "accuracy": "float64",
}
"""Columns of ``tables/recall.parquet``."""


def exact_matches(
    model: PreTrainedModel,
    texts: Sequence[Encoded],
    batch_tokens: int,
    watch: Callable[[int], None] = lambda done: None,
) -> list[np.ndarray]:
    """Decide for each answer of each text whether greedy decoding would give it.

    Parameters
    ----------
    model : PreTrainedModel
        In evaluation mode, on its device.
    texts : sequence of Encoded
        Whole texts with their answers' token ranges.
    batch_tokens : int
        Largest padded size of a batch.
    watch : callable
        Called with the number of texts done so far.

    Returns
    -------
    list of ndarray of bool, shape (answers of the text,)
        In the order of `texts`.
    """
    device = next(model.parameters()).device
    done = 0
    result: list[np.ndarray] = [np.empty(0, dtype=bool)] * len(texts)
    with torch.inference_mode():
        for group in cut([len(t.tokens) for t in texts], batch_tokens, pass_cost=batch_tokens // 8):
            members = [texts[i] for i in group]
            tokens = pad([t.tokens for t in members], 0)
            where = torch.zeros_like(tokens, dtype=torch.bool)
            for row, text in enumerate(members):
                for start, end in text.answers:
                    where[row, start - 1 : end - 1] = True
            logits = logits_at(model, tokens.to(device), where.to(device))
            gold = tokens[:, 1:][where[:, :-1]]
            hits = torch.zeros_like(where)
            hits[where] = logits.argmax(-1).cpu() == gold
            for row, text in enumerate(members):
                result[group[row]] = np.array(
                    [bool(hits[row, start - 1 : end - 1].all()) for start, end in text.answers]
                )
            done += len(group)
            watch(done)
    return result


def evaluate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    bio: pd.DataFrame,
    qa: pd.DataFrame,
    batch_tokens: int,
    watch: Callable[[int], None] = lambda done: None,
) -> pd.DataFrame:
    """Ask a model for every fact in every split.

    Parameters
    ----------
    model, tokenizer
        The model asked.
    bio, qa : DataFrame
        The tables of facts; rows of pre-training people are left out.
    batch_tokens : int
        Largest padded size of a batch.
    watch : callable
        Called with the number of texts done so far.

    Returns
    -------
    DataFrame
        One row an example, columns ``PER_EXAMPLE``: for split "bio" each attribute given all the
        gold text before it; for "qa_in" and "qa_out" each answer given its question.
    """
    bio, qa = bio[bio["split"] != "pretrain"], qa[qa["split"] != "pretrain"]
    stories = list(joined(bio))
    asked = list(zip(qa["text"], qa["attribute_start"], qa["terminator_end"], strict=True))
    texts = encode(
        tokenizer,
        [text for _, text, _ in stories] + [text for text, _, _ in asked],
        [spans for _, _, spans in stories] + [[(start, end)] for _, start, end in asked],
    )
    matches = np.concatenate(exact_matches(model, texts, batch_tokens, watch))
    rows = pd.concat([bio.assign(split="bio"), qa.assign(split="qa_" + qa["split"])])
    return rows[["split", "individual", "relation"]].assign(correct=matches).reset_index(drop=True)


def majority(qa: pd.DataFrame) -> pd.DataFrame:
    """Answer every question with the most frequent answer it was trained with.

    Returns
    -------
    DataFrame
        Like `evaluate`. Biographies of all people are trained on, questions of those of split
        "in"; of equally frequent answers the first in the alphabet is taken.
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


def recall(
    batch_tokens: int,
    *,
    model: Path,
    bio: Path,
    qa: Path,
    out: Path,
    device: torch.device,
    provenance: Mapping[str, Any],
) -> None:
    """Evaluate the model in a folder and write its per-example table (see `evaluate`)."""
    tables = read_table(bio, BIO_COLUMNS), read_table(qa, QA_COLUMNS)
    tokenizer, network = load_tokenizer(model), load_model(model, device)
    people = int((tables[0]["split"] != "pretrain").sum()) // len(RELATIONS)
    with progress(people * (1 + len(RELATIONS)), "recall", "text") as watch:
        examples = evaluate(network, tokenizer, *tables, batch_tokens, watch)
    write_table(out, examples, PER_EXAMPLE, provenance)


@dataclass(frozen=True)
class Evaluation:
    """A per-example table and what made it."""

    model: str
    tuning: str
    seed: int
    table: Path


def summarise_recall(
    evaluations: Sequence[Evaluation],
    qa: Path,
    out: Path,
    seed: int,
    provenance: Mapping[str, Any],
) -> None:
    """Write ``tables/recall.parquet``: all evaluations, and for each model the majority vote.

    `seed` is the study's, which the majority vote carries, having none of its own.
    """
    parts = [
        summarise(read_table(e.table, PER_EXAMPLE), e.model, e.tuning, e.seed) for e in evaluations
    ]
    voted = majority(read_table(qa, QA_COLUMNS))
    for model in dict.fromkeys(e.model for e in evaluations):
        parts.append(summarise(voted, model, "majority", seed))
    write_table(out, pd.concat(parts), SUMMARY, provenance)
