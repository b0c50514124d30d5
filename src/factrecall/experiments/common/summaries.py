"""Tables of all fine-tuned models of a study."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from factrecall.runtime.storage import Schema, read_table

if TYPE_CHECKING:
    from factrecall.runs import Run


def read_runs(runs: Sequence[Run], schema: Schema, table: str = "table") -> pd.DataFrame:
    """Read one table of each run, with the columns that say which run it is of."""
    tables = [read_table(getattr(run, table), schema).assign(**run.labels) for run in runs]
    return pd.concat(tables, ignore_index=True)
