"""Means of attribution and of activation patching over facts, of all models, with intervals.

Each interval is a percentile bootstrap interval over people (see `statistics`); all numbers of a
split share the draws of people. Models are compared on the same facts: rows "mix - stage" are means
of differences within facts, and so are rows "same - other" of patching.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from factrecall.experiments.attribution.attribution import ATTRIBUTION
from factrecall.experiments.attribution.patching import PATCHING, SOURCE_FACTS
from factrecall.experiments.common.runs import read_runs
from factrecall.runs import Evaluation
from factrecall.runtime.seeds import generator
from factrecall.runtime.statistics import TOGETHER, draw_people, mean_bounds, ratio
from factrecall.runtime.storage import Schema, write_table
from factrecall.vocabulary import COMPARED

DRAWS = 2000
"""Samples of people; there are thousands of numbers, each of them shown as a band."""


_RUN = {"model": "string", "tuning": "string", "seed": "int32", "split": "string"}


def _with_intervals(measures: Sequence[str]) -> dict[str, str]:
    return {f"{name}{end}": "float64" for name in measures for end in ("", "_low", "_high")}


ATTRIBUTION_MEASURES = ("share", "logit_drop", "still_right", "source_answer")
"""Measures of attribution that have intervals."""

ATTRIBUTION_SUMMARY = {
    **_RUN,
    "relation": "string",
    "format": "string",
    "role": "string",
    "facts": "int32",
    "replaced": "int32",
    "tokens": "float64",
    **_with_intervals(ATTRIBUTION_MEASURES),
}
"""Columns of ``tables/attribution.parquet``; `relation` is "all" or one of them.

- `facts`: the number of facts; `replaced`: of those where the role could be replaced; `tokens`: of
  the role, the mean
- `share`: a role's attribution, as a share of the absolute attributions of all roles, fact by
  fact. It is negative where the role speaks against the answer; a share of the total would be
  without bound where roles cancel.
- `logit_drop`: how much lower the logit of the answer's first token is with the role replaced
- `still_right`: the share of facts whose first token stays the likeliest, of those where it was
- `source_answer`: the share of facts whose likeliest first token is then that of the replaced
  prompt's answer

Each is a mean over the facts where it is defined (of "mix - stage": for both models), and missing
where there are none.
"""

PATCHING_MEASURES = ("gain", "log_gain", "source_answer")
"""Measures of patching that have intervals."""

PATCHING_SUMMARY = {
    **_RUN,
    "source": "string",
    "target": "string",
    "layer": "int32",
    "position": "string",
    "source_fact": "string",
    "facts": "int32",
    "accuracy": "float64",
    "unpatched": "float64",
    **_with_intervals(PATCHING_MEASURES),
}
"""Columns of ``tables/patching.parquet``.

`gain` is `accuracy` minus `unpatched`; `log_gain` the rise of the log-probability of the answer's
first token; `source_answer` as in ``PATCHING``. The rows "same - other" of `source_fact` hold
differences; their gain is what the fact's own state restores beyond that of another fact.
"""


def summarise_attribution(
    seed: int, *, runs: Sequence[Evaluation], out: Path, provenance: Mapping[str, Any]
) -> None:
    """Write ``tables/attribution.parquet``, columns ``ATTRIBUTION_SUMMARY``.

    Parameters
    ----------
    seed : int
        The study's; draws the samples of people.
    runs : sequence of Evaluation
        The tables of `attribute`.
    out : Path
        The table to write.
    provenance : mapping
        Kept in the table's metadata.
    """
    table = read_runs(runs, ATTRIBUTION)
    fact = ["model", "tuning", "seed", "split", "individual", "relation", "format"]
    whole = table["attribution"].abs().groupby([table[key] for key in fact]).transform("sum")
    replaced = table["replaced_logit"].notna()
    table = table.assign(
        share=table["attribution"] / whole.where(whole > 0),
        logit_drop=table["logit"] - table["replaced_logit"],
        still_right=table["replaced_right"].astype(float).where(replaced & table["right"]),
        source_answer=table["source_answer"].astype(float).where(replaced),
        facts=1.0,
        replaced=replaced.astype(float),
        tokens=table["tokens"].astype(float),
    )
    table = _with_difference(table, "tuning", COMPARED[::-1], [*fact, "role"], ATTRIBUTION_MEASURES)
    table = pd.concat([table, table.assign(relation="all")])
    means = _means(table, ATTRIBUTION_SUMMARY, ATTRIBUTION_MEASURES, seed)
    write_table(out, means, ATTRIBUTION_SUMMARY, provenance)


def summarise_patching(
    seed: int, *, runs: Sequence[Evaluation], out: Path, provenance: Mapping[str, Any]
) -> None:
    """Write ``tables/patching.parquet``, columns ``PATCHING_SUMMARY``.

    The parameters are those of `summarise_attribution`, with the tables of `patch`.
    """
    table = read_runs(runs, PATCHING)
    table = table.assign(
        gain=table["right"].astype(float) - table["unpatched"],
        log_gain=table["log_probability"] - table["unpatched_log_probability"],
        source_answer=table["source_answer"].astype(float),
        facts=1.0,
        accuracy=table["right"].astype(float),
        unpatched=table["unpatched"].astype(float),
    )
    keys = ["model", "tuning", "seed", "split", "individual", "relation"]
    keys += ["source", "target", "layer", "position", "source_fact"]
    values = (*PATCHING_MEASURES, "accuracy", "unpatched")
    table = _with_difference(table, "source_fact", SOURCE_FACTS, keys, values)
    table = _with_difference(table, "tuning", COMPARED[::-1], keys, values)
    means = _means(table, PATCHING_SUMMARY, PATCHING_MEASURES, seed)
    write_table(out, means, PATCHING_SUMMARY, provenance)


def _with_difference(
    table: pd.DataFrame,
    column: str,
    pair: tuple[str, str],
    keys: Sequence[str],
    values: Sequence[str],
) -> pd.DataFrame:
    """Add the rows of one kind minus those of another that agree in all other keys."""
    shared = [key for key in keys if key != column]
    one, other = (table[table[column] == name].set_index(shared) for name in pair)
    one = one.loc[one.index.isin(other.index)]
    less = other.loc[:, list(values)].reindex(one.index)
    found = one.assign(**{value: one[value] - less[value] for value in values})
    found[column] = " - ".join(pair)
    return pd.concat([table, found.reset_index()], ignore_index=True)


def _means(table: pd.DataFrame, schema: Schema, bounded: Sequence[str], seed: int) -> pd.DataFrame:
    """Return means of the schema's numbers over facts, of each seed and of all together.

    Columns of `table` that are no floating-point numbers tell cells apart; `facts` and `replaced`
    are counted; numbers in `bounded` have intervals.
    """
    table = pd.concat([table, table.assign(seed=TOGETHER)])
    counted = [column for column in ("facts", "replaced") if column in schema]
    keys = [
        column for column, kind in schema.items() if kind != "float64" and column not in counted
    ]
    parts = []
    for split, side in table.groupby("split"):
        cells = side.groupby(keys, sort=False)
        cell, person = cells.ngroup().to_numpy(), pd.factorize(side["individual"])[0]
        shape = (int(cell.max()) + 1, int(person.max()) + 1)
        place = cell * shape[1] + person
        drawn = draw_people(shape[1], generator(seed, "samples of people", str(split)), DRAWS)
        found = side[keys].iloc[np.unique(cell, return_index=True)[1]].reset_index(drop=True)
        for column in [c for c in schema if c in side and c not in keys]:
            value = side[column].to_numpy(dtype=float)
            known = ~np.isnan(value)
            sums, counts = (
                np.bincount(place[known], weights, minlength=shape[0] * shape[1]).reshape(shape)
                for weights in (value[known], None)
            )
            if column in counted:
                found[column] = sums.sum(1).astype(int)
                continue
            found[column] = ratio(sums.sum(1), counts.sum(1))
            if column in bounded:
                found[f"{column}_low"], found[f"{column}_high"] = mean_bounds(sums, counts, drawn)
        parts.append(found)
    return pd.concat(parts)[list(schema)]
