"""Mean cosines of gradients over facts, with bootstrap intervals over people."""

from __future__ import annotations

import pandas as pd

from factrecall.experiments.common.summaries import cell_means
from factrecall.experiments.gradient_similarity.tables import GRADIENTS, KINDS
from factrecall.runtime.seeds import generator
from factrecall.runtime.statistics import TOGETHER, draw_people

MATCHED, *CONTROLS = KINDS

SHARED, *COMPARED = ("S", "random", "rest")
"""S, and the groups that it is compared with."""


def mean_cosines(facts: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Return the rows of ``GRADIENT_SUMMARY``, given those of ``GRADIENTS`` with model and seed."""
    parts = []
    cell = ["phase", "share", "group"]
    for (model, tuning, split), rows in facts.groupby(["model", "tuning", "split"], sort=False):
        # The same draws of people for all that is compared, tunings among it.
        rng = generator(seed, "gradients", str(model), str(split))
        individuals = sorted(rows["individual"].unique())
        drawn = draw_people(len(individuals), rng)
        whose = {"model": model, "tuning": tuning, "split": split}
        for number, part in (*rows.groupby("seed", sort=False), (TOGETHER, rows)):
            people = _with_differences(part).groupby([*cell, "individual"], sort=False)
            columns = {"cosine": people.mean(), "facts": people.count()}
            by_person = pd.DataFrame(
                {name: wide.stack(future_stack=True) for name, wide in columns.items()}
            ).reset_index()
            means = cell_means(
                by_person,
                [*cell, "kind"],
                individuals,
                drawn,
                counted=["facts"],
                bounded=["cosine"],
            )
            parts.append(means.assign(**whose, seed=number))
    table = pd.concat(parts, ignore_index=True)
    return table.rename(columns={"cosine_low": "low", "cosine_high": "high"})


def _with_differences(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the cosines with a column a kind, and all differences of kinds and groups.

    Differences of kinds are those of the matched pair and each control; differences of groups those
    of S and each group that it is compared with.
    """
    same = ["seed", *(c for c in GRADIENTS if c not in ("split", "kind", "cosine"))]
    by_kind = {kind: part.set_index(same)["cosine"] for kind, part in rows.groupby("kind")}
    wide = pd.DataFrame({kind: by_kind[kind] for kind in KINDS}).rename_axis(columns="kind")
    for control in CONTROLS:
        wide[f"{MATCHED} - {control}"] = wide[MATCHED] - wide[control]
    by_group = {group: part.droplevel("group") for group, part in wide.groupby("group")}
    ahead = {f"{SHARED} - {group}": by_group[SHARED] - by_group[group] for group in COMPARED}
    return pd.concat([wide, pd.concat(ahead, names=["group"]).reorder_levels(wide.index.names)])
