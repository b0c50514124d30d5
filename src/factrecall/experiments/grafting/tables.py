"""Columns of the tables of masks."""

from __future__ import annotations

from factrecall.evaluation.exact_match import PER_EXAMPLE
from factrecall.runs import RUN

MASK = {"alpha": "float64", "with_shared": "bool", "method": "string", "objective": "string"}

RECOVERED = {
    **MASK,
    "accuracy": "float64",
    "recovery": "float64",
    "held_out_recovery": "float64",
    "size": "int64",
}
"""Columns of what masks without S recover; `alpha` 1 stands for all that may be grafted.

`objective` is what a mask was fitted to, empty where nothing was. `accuracy` is that on the people
gold masks are fitted to, `recovery` its share of θtask's, `held_out_recovery` that share on
held-out people (missing where they are not asked), `size` |γ|0.
"""

OUTCOMES = {**RECOVERED, "chosen": "bool", "taken_apart": "bool"}
"""Columns of what masks that may hold anything recover.

`chosen` is the smallest of its objective that recovers enough; `taken_apart` the one that circuits
are searched in.
"""

SHARES = {"alpha": "float64", "method": "string", "shared_fraction": "float64"}
"""Columns of how much of what was not fitted is in S: |S ∩ γ|/|γ|."""

GRAFTING = {**RUN, "split": "string", **OUTCOMES, "shared_fraction": "float64"}
"""Columns of ``tables/grafting.parquet``."""

PER_MASK = {**MASK, "fitted": "bool", **PER_EXAMPLE}
"""Columns of a model's answers: a row a mask and question; `fitted` people's the mask saw."""
