"""Grafting of all models of a study: what masks recover, and their overlap between seeds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pandas as pd

from factrecall.experiments.grafting.grafter import overlap
from factrecall.experiments.grafting.mask_checks import CHECK
from factrecall.experiments.grafting.mask_choice import UNFITTED, mask_name, parts_of
from factrecall.experiments.grafting.tables import OUTCOMES, RECOVERED, SHARES
from factrecall.parameters.sets import read_set, read_sets
from factrecall.runtime.storage import read_table

if TYPE_CHECKING:
    from pathlib import Path

    from factrecall.experiments.grafting.runs import Graft


def graft_outcomes(graft: Graft) -> pd.DataFrame:
    """Return what masks with S and without recover; columns ``GRAFTING``."""
    allowed = read_table(graft.table, OUTCOMES)
    without = read_table(graft.without, RECOVERED)
    masks = read_sets(graft.masks)
    shared = read_set(graft.sets, "S", next(iter(masks.values())).space)
    held = read_table(graft.shares, SHARES).set_index(["alpha", "method"])["shared_fraction"]
    allowed["shared_fraction"] = [
        held[alpha, method]
        if method in UNFITTED
        else overlap(masks[mask_name(objective, alpha)], shared)
        for alpha, method, objective in allowed[["alpha", "method", "objective"]].itertuples(
            index=False, name=None
        )
    ]
    without["shared_fraction"] = 0.0
    # Without S as much is grafted as with it, whatever it recovers.
    alpha = allowed.loc[allowed["chosen"] & (allowed["objective"] == "gold"), "alpha"].min()
    without["chosen"] = (without["objective"] == "gold") & (without["alpha"] == alpha)
    without["taken_apart"] = False
    return pd.concat([allowed, without]).assign(**graft.labels)


def overlaps(masks: Mapping[int, Path]) -> pd.DataFrame:
    """Compare the masks of every two seeds of a replicate; columns ``CHECK`` and ``seed``."""
    by_seed = {seed: read_sets(path) for seed, path in masks.items()}
    rows = [
        (one, "overlap_seeds", *parts_of(name), float(other), overlap(mask, theirs[name]))
        for one, its in by_seed.items()
        for other, theirs in by_seed.items()
        for name, mask in its.items()
        if one != other and name in theirs
    ]
    return pd.DataFrame(rows, columns=["seed", *CHECK])
