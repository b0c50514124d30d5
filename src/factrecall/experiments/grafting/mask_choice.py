"""Which of the masks of a table are fitted, and which one of them is looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

WHOLE, MOVEMENT = "whole", "movement"
"""Methods that fit nothing: all that may be grafted, and what moved most (γbase)."""

UNFITTED = (WHOLE, MOVEMENT)


def looked_at(table: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Return the row of the fitted mask with S that is looked at, one for each value of `keys`.

    It is the chosen mask or, where none recovered enough, the one that recovered most.
    """
    held = table[~table["method"].isin(UNFITTED) & table["with_shared"].astype(bool)]
    # Of equal ones the first, which is the smallest; the chosen one comes before all others.
    best = held.sort_values(
        ["chosen", "recovery", "alpha"], ascending=[False, False, True], kind="stable"
    )
    return best.drop_duplicates(keys) if keys else best.head(1)
