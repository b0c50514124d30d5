"""From the table of recall to what is shown: accuracy by seed, its mean and its spread.

Accuracies are shares from 0 to 1 everywhere but on the page and in the figures, which show
per cent. An accuracy over several relations is right answers over all answers.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from factrecall.evaluation.exact_match import SUMMARY
from factrecall.runtime.errors import FactRecallError
from factrecall.runtime.storage import read_table
from factrecall.vocabulary import RELATIONS, SPLITS, TUNINGS

RECALL_MODELS = ("base", *TUNINGS, "majority")
"""In the order in which they are shown."""

AVERAGE = "average"

_KNOWN = {"tuning": RECALL_MODELS, "split": SPLITS, "relation": RELATIONS}


def read_recall(path: Path, model: str) -> pd.DataFrame:
    """Read one model's rows of ``tables/recall.parquet``, in the order in which they are shown.

    Raises
    ------
    FactRecallError
        When the file is damaged, holds nothing on the model or a value unknown here.
    """
    table = read_table(path, SUMMARY)
    rows = table[table["model"] == model]
    if rows.empty:
        raise FactRecallError(
            str(path),
            f"it holds no row on model {model!r}",
            "delete the file and run the workflow again; it will be made anew",
        )
    for column, known in _KNOWN.items():
        if unknown := sorted(set(rows[column]) - set(known)):
            raise FactRecallError(
                str(path),
                f"column {column!r} holds {unknown[0]!r}, which is none of {', '.join(known)}",
                "delete the file and run the workflow again; it will be made anew",
            )
    return rows.sort_values(
        ["tuning", "seed", "split", "relation"],
        key=lambda column: (
            column.map(_KNOWN[column.name].index) if column.name in _KNOWN else column
        ),
        ignore_index=True,
    )


def by_seed(recall: pd.DataFrame) -> pd.DataFrame:
    """Return the accuracy over all relations: columns tuning, seed, split, accuracy."""
    return _pooled(recall, ["tuning", "seed", "split"])


def by_relation(recall: pd.DataFrame, split: str) -> pd.DataFrame:
    """Return the mean over seeds by relation: columns tuning, relation, accuracy, seeds.

    `AVERAGE`, over all relations, is one of them and comes first.
    """
    rows = recall[recall["split"] == split]
    every = pd.concat([rows.assign(relation=AVERAGE), rows])
    seeds = _pooled(every, ["tuning", "relation", "seed"])
    grouped = seeds.groupby(["tuning", "relation"], sort=False)["accuracy"]
    return grouped.agg(accuracy="mean", seeds="count").reset_index()


def spread(seeds: pd.DataFrame) -> pd.DataFrame:
    """Condense `by_seed`: columns tuning, split, mean, sd, low, high, seeds.

    The standard deviation is that of a sample, and missing where there is one seed only.
    """
    grouped = seeds.groupby(["tuning", "split"], sort=False)["accuracy"]
    return grouped.agg(mean="mean", sd="std", low="min", high="max", seeds="count").reset_index()


def _pooled(rows: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    sums = rows.groupby(keys, sort=False)[["correct", "n"]].sum().reset_index()
    sums["accuracy"] = sums["correct"] / sums["n"]
    return sums[[*keys, "accuracy"]]
