"""Masks by name: how each came about, which are chosen, and which one circuits are searched in."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

WHOLE, MOVEMENT = "whole", "movement"
"""Methods that fit nothing: all that may be grafted, and what moved most (γbase)."""

UNFITTED = (WHOLE, MOVEMENT)

PREFERRED = ("distilled", "gold")
"""Objectives in the order in which circuits take their masks, if held-out people recover."""


def mask_name(objective: str, alpha: float) -> str:
    """Return the name of a fitted mask in its file."""
    return f"{objective} {alpha!r}"


def parts_of(name: str) -> tuple[str, float]:
    """Return objective and α of a mask's name."""
    objective, alpha = name.split()
    return objective, float(alpha)


def smallest(table: pd.DataFrame, least: float) -> pd.Series:
    """Mark the smallest mask of each objective that recovers `least`, if one does.

    `table` has the columns ``RECOVERED``, of masks with S.
    """
    enough = table[~table["method"].isin(UNFITTED) & (table["recovery"] >= least)]
    first = enough.sort_values("alpha", kind="stable").drop_duplicates("objective")
    return table.index.to_series().isin(first.index)


def taken_apart(table: pd.DataFrame, least: float) -> pd.Series:
    """Mark the mask that circuits are searched in, given ``chosen``.

    It is that of the first objective (`PREFERRED`) whose chosen mask also recovers `least` of
    what θtask recalls of held-out people. If there is none, it is the gold one (`looked_at`).
    """
    passed = table[table["chosen"] & (table["held_out_recovery"] >= least)]
    for objective in PREFERRED:
        rows = passed[passed["objective"] == objective]
        if len(rows):
            return table.index.to_series() == rows.index[0]
    return table.index.to_series().isin(looked_at(table, []).index)


def looked_at(table: pd.DataFrame, keys: list[str], objective: str = "gold") -> pd.DataFrame:
    """Return the row of the fitted mask with S that is looked at, one for each value of `keys`.

    It is the chosen mask of an objective or, where none recovered enough, the one that recovered
    most.
    """
    held = table[(table["objective"] == objective) & table["with_shared"].astype(bool)]
    # Of equal ones the first, which is the smallest; the chosen one comes before all others.
    best = held.sort_values(
        ["chosen", "recovery", "alpha"], ascending=[False, False, True], kind="stable"
    )
    return best.drop_duplicates(keys) if keys else best.head(1)
