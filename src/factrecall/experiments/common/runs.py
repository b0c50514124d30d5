"""Tables of all fine-tuned models of a study, read as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from factrecall.runtime.storage import Schema, read_table

if TYPE_CHECKING:
    from factrecall.runs import Evaluation


def read_runs(runs: Sequence[Evaluation], schema: Schema) -> pd.DataFrame:
    """Read the tables of all runs, with columns model, tuning and seed."""
    tables = [
        read_table(run.table, schema).assign(model=run.model, tuning=run.tuning, seed=run.seed)
        for run in runs
    ]
    return pd.concat(tables, ignore_index=True)
