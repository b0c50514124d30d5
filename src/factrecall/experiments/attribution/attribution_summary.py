"""Means of attribution and of activation patching over facts, of all models, with intervals.

All numbers of a split share the draws of people. Models are compared on the same facts: rows
"mix - stage" are means of differences within facts, and so are rows "same - other" of patching.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from factrecall.experiments.attribution.tables import (
    ATTRIBUTION_MEASURES,
    ATTRIBUTION_SUMMARY,
    PATCHING_MEASURES,
    PATCHING_SUMMARY,
    SOURCE_FACTS,
)
from factrecall.experiments.common.summaries import cell_means, with_difference
from factrecall.runtime.seeds import generator
from factrecall.runtime.statistics import TOGETHER, draw_people
from factrecall.runtime.storage import Schema
from factrecall.vocabulary import COMPARED

DRAWS = 2000
"""Samples of people; there are thousands of numbers, each of them shown as a band."""

_FACT = ("model", "tuning", "seed", "split", "individual", "relation")


def attribution_means(table: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Return the rows of ``ATTRIBUTION_SUMMARY``, given those of ``ATTRIBUTION`` of all runs."""
    fact = [*_FACT, "format"]
    whole = table["attribution"].abs().groupby([table[key] for key in fact]).transform("sum")
    replaced = table["replaced_logit"].notna()
    table = table.assign(
        share=table["attribution"] / whole.where(whole > 0),
        logit_drop=table["logit"] - table["replaced_logit"],
        still_right=table["replaced_right"].astype(float).where(replaced & table["right"]),
        source_answer=table["source_answer"].astype(float).where(replaced),
        facts=1.0,
        replaced=replaced.astype(float),
    )
    table = with_difference(table, "tuning", COMPARED[::-1], [*fact, "role"], ATTRIBUTION_MEASURES)
    table = pd.concat([table, table.assign(relation="all")])
    return _means(table, ATTRIBUTION_SUMMARY, ATTRIBUTION_MEASURES, seed)


def patching_means(table: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Return the rows of ``PATCHING_SUMMARY``, given those of ``PATCHING`` of all runs."""
    accuracy = table["right"].astype(float)
    table = table.assign(
        gain=accuracy - table["unpatched"],
        log_gain=table["log_probability"] - table["unpatched_log_probability"],
        source_answer=table["source_answer"].astype(float),
        facts=1.0,
        accuracy=accuracy,
        unpatched=table["unpatched"].astype(float),
    )
    keys = [*_FACT, "source", "target", "layer", "position", "source_fact"]
    for column, pair in (("source_fact", SOURCE_FACTS), ("tuning", COMPARED[::-1])):
        values = (*PATCHING_MEASURES, "accuracy", "unpatched")
        table = with_difference(table, column, pair, keys, values)
    return _means(table, PATCHING_SUMMARY, PATCHING_MEASURES, seed)


def _means(table: pd.DataFrame, schema: Schema, bounded: Sequence[str], seed: int) -> pd.DataFrame:
    """Return means of the schema's numbers over facts, of each seed and of all together."""
    table = pd.concat([table, table.assign(seed=TOGETHER)])
    counted = [column for column in ("facts", "replaced") if column in schema]
    keys = [name for name, kind in schema.items() if kind != "float64" and name not in counted]
    averaged = [name for name in schema if name in table and name not in (*keys, *counted)]
    averaged = [name for name in averaged if name not in bounded]
    parts = []
    for split, side in table.groupby("split"):
        rng = generator(seed, "samples of people", str(split))
        people = side["individual"].unique()
        drawn = draw_people(len(people), rng, DRAWS)
        parts.append(
            cell_means(
                side, keys, people, drawn, counted=counted, bounded=bounded, averaged=averaged
            )
        )
    return pd.concat(parts)[list(schema)]
