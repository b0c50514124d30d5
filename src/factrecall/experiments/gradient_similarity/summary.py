"""Mean cosines of gradients over facts, with bootstrap intervals over people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from factrecall.experiments.common.runs import read_runs
from factrecall.experiments.gradient_similarity.compute import GRADIENTS
from factrecall.experiments.gradient_similarity.cosines import KINDS
from factrecall.runs import Evaluation
from factrecall.runtime.seeds import generator
from factrecall.runtime.statistics import TOGETHER, draw_people, mean_bounds, ratio
from factrecall.runtime.storage import write_table

MATCHED, *CONTROLS = KINDS

SHARED, *COMPARED = ("S", "random", "rest")
"""S, and the groups that it is compared with."""

GRADIENT_SUMMARY = {
    "model": "string",
    "tuning": "string",
    "seed": "int32",
    "phase": "string",
    "share": "float64",
    "split": "string",
    "group": "string",
    "kind": "string",
    "cosine": "float64",
    "low": "float64",
    "high": "float64",
    "facts": "int32",
}
"""Columns of ``tables/gradients.parquet``.

- `kind`: as in ``GRADIENTS``, or "matched - person" or "matched - relation" for the mean difference
  within facts
- `group`: as in ``GRADIENTS``, or "S - random" or "S - rest" for the mean difference within facts
- `cosine`: the mean of the people's means, over the `facts` that have one
- `low`, `high`: its 95 % percentile bootstrap interval over people. People are few: over five of
  them it is rough, and narrower than it should be. NaN where a sample of people may have none.
- `seed`: -1 for all together, where a person's facts of all seeds are drawn together
"""


def summarise_gradients(
    seed: int, *, runs: Sequence[Evaluation], out: Path, provenance: Mapping[str, Any]
) -> None:
    """Write ``tables/gradients.parquet``, columns ``GRADIENT_SUMMARY``.

    Parameters
    ----------
    seed : int
        The study's; draws the samples of people.
    runs : sequence of Evaluation
        The tables of all training histories, and whose they are.
    out : Path
        The table to write.
    provenance : mapping
        Kept in the table's metadata.
    """
    facts = read_runs(runs, GRADIENTS)
    write_table(out, mean_cosines(facts, seed), GRADIENT_SUMMARY, provenance)


def mean_cosines(facts: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Return the rows of ``GRADIENT_SUMMARY``, given those of ``GRADIENTS`` with model and seed."""
    parts = []
    for (model, tuning, split), rows in facts.groupby(["model", "tuning", "split"], sort=False):
        # The same draws of people for all that is compared, tunings among it.
        people = rows["individual"].nunique()
        rng = generator(seed, "gradients", str(model), str(split))
        drawn = draw_people(people, rng)
        for number in (*rows["seed"].unique(), TOGETHER):
            chosen = rows if number == TOGETHER else rows[rows["seed"] == number]
            whose = {"model": model, "tuning": tuning, "split": split, "seed": number}
            parts.append(_condensed(_with_differences(chosen), drawn).assign(**whose))
    return pd.concat(parts, ignore_index=True)


def _with_differences(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the cosines with a column a kind, and all differences of kinds and groups.

    Differences of kinds are those of the matched pair and each control; differences of groups those
    of S and each group that it is compared with.
    """
    same = [c for c in (*GRADIENTS, "seed") if c not in ("split", "kind", "cosine")]
    by_kind = {kind: part.set_index(same)["cosine"] for kind, part in rows.groupby("kind")}
    wide = pd.DataFrame({kind: by_kind[kind] for kind in KINDS})
    for control in CONTROLS:
        wide[f"{MATCHED} - {control}"] = wide[MATCHED] - wide[control]
    by_group = {group: part.droplevel("group") for group, part in wide.groupby("group")}
    ahead = {f"{SHARED} - {group}": by_group[SHARED] - by_group[group] for group in COMPARED}
    differences = pd.concat(ahead, names=["group"]).reorder_levels(wide.index.names)
    return pd.concat([wide, differences])


def _condensed(cosines: pd.DataFrame, drawn: np.ndarray) -> pd.DataFrame:
    """Average over facts, and bootstrap over people.

    Parameters
    ----------
    cosines : DataFrame
        From `_with_differences`.
    drawn : ndarray, shape (draws, people)
        See `draw_people`.
    """
    keys = ["phase", "share", "group"]
    by_person = cosines.groupby([*keys, "individual"], sort=False).mean()
    stacked = by_person.rename_axis(columns="kind").stack(future_stack=True)
    cells = stacked.index.droplevel("individual").unique()  # in order, which unstacking is not
    values = stacked.unstack("individual").reindex(cells).to_numpy()
    there = ~np.isnan(values)
    filled, counts = np.where(there, values, 0.0), there.astype(float)
    mean = ratio(filled.sum(1), counts.sum(1))
    low, high = mean_bounds(filled, counts, drawn)
    count = cosines.groupby(keys, sort=False).count().rename_axis(columns="kind")
    facts = count.stack(future_stack=True).reindex(cells).to_numpy()
    table = pd.DataFrame({"cosine": mean, "low": low, "high": high, "facts": facts}, cells)
    return table.reset_index()
