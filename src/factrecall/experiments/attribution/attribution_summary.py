"""What facts are read from and what patched states do, of all models together, with intervals.

Every number is a mean over facts, and has a percentile bootstrap interval over people (see
`statistics`). Models are compared on the same facts: the rows "mix - stage" are means of
differences, and so are the patches "same - other". All numbers of a side's people share the draws
of these people.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from factrecall.evaluation.exact_match import Evaluation
from factrecall.experiments.attribution.attribution import SIGNATURE
from factrecall.experiments.attribution.patching import DONORS, PATCHING
from factrecall.runtime.seeds import generator
from factrecall.runtime.statistics import TOGETHER, draw_people, mean_bounds, ratio
from factrecall.runtime.storage import Schema, read_table, write_table

DRAWS = 2000
"""Samples of people; there are thousands of numbers, each of them shown as a band."""

COMPARED = ("mix", "stage")
"""Tunings; the difference is a row of its own, "mix - stage"."""

_RUN = {"model": "string", "tuning": "string", "seed": "int32", "split": "string"}


def _with_intervals(measures: Sequence[str]) -> dict[str, str]:
    return {f"{name}{end}": "float64" for name in measures for end in ("", "_low", "_high")}


SHARES = ("share", "logit_drop", "still_right", "donors")
"""Measures of the signature that have intervals."""

READ_FROM = {
    **_RUN,
    "relation": "string",
    "format": "string",
    "role": "string",
    "facts": "int32",
    "exchanged": "int32",
    "tokens": "float64",
    **_with_intervals(SHARES),
}
"""Columns of ``tables/signature.parquet``; `relation` is "all" or one of them.

- `facts`: how many facts there are, `exchanged`: of how many the role could be exchanged, `tokens`:
  how many the role has, the mean
- `share`: a role's attribution, as a share of the absolute attributions of all roles, fact by
  fact. It is negative where the role speaks against the answer; shares of the total would be
  without bound where roles cancel.
- `logit_drop`: how much lower the logit of the answer's first token is with the role exchanged
- `still_right`: the share of facts whose first token stays the likeliest, of those where it was
- `donors`: the share of facts whose likeliest first token is then what the exchanged part calls for

Each is of the facts where it is defined (of "mix - stage": of both models), and missing where there
is none.
"""

GAINS = ("gain", "log_gain", "donors")
"""Measures of patching that have intervals."""

PATCHED = {
    **_RUN,
    "source": "string",
    "target": "string",
    "layer": "int32",
    "position": "string",
    "donor": "string",
    "facts": "int32",
    "accuracy": "float64",
    "unpatched": "float64",
    **_with_intervals(GAINS),
}
"""Columns of ``tables/patching.parquet``.

`gain` is `accuracy` minus `unpatched`, `log_gain` how much the log-probability of the answer's
first token rises, `donors` as in `patching.PATCHING`. The rows "same - other" of `donor` hold
differences; their gain is what the fact's own state restores beyond any state of its kind.
"""


def summarise_signature(
    seed: int, *, runs: Sequence[Evaluation], out: Path, provenance: Mapping[str, Any]
) -> None:
    """Write ``tables/signature.parquet``, columns ``READ_FROM``.

    Parameters
    ----------
    seed : int
        The study's; draws the samples of people.
    runs : sequence of Evaluation
        The tables of `signature.attribute`.
    out : Path
        The table to write.
    provenance : mapping
        Kept in the table's metadata.
    """
    table = _read(runs, SIGNATURE)
    fact = ["model", "tuning", "seed", "split", "individual", "relation", "format"]
    whole = table["attribution"].abs().groupby([table[key] for key in fact]).transform("sum")
    made = table["replaced_logit"].notna()
    table = table.assign(
        share=table["attribution"] / whole.where(whole > 0),
        logit_drop=table["logit"] - table["replaced_logit"],
        still_right=table["replaced_right"].astype(float).where(made & table["right"]),
        donors=table["donors"].astype(float).where(made),
        facts=1.0,
        exchanged=made.astype(float),
        tokens=table["tokens"].astype(float),
    )
    table = _with_difference(table, "tuning", COMPARED, [*fact, "role"], SHARES)
    table = pd.concat([table, table.assign(relation="all")])
    _write(out, table, READ_FROM, SHARES, seed, provenance)


def summarise_patching(
    seed: int, *, runs: Sequence[Evaluation], out: Path, provenance: Mapping[str, Any]
) -> None:
    """Write ``tables/patching.parquet``, columns ``PATCHED``; see `summarise_signature`."""
    table = _read(runs, PATCHING)
    table = table.assign(
        gain=table["right"].astype(float) - table["unpatched"],
        log_gain=table["log_probability"] - table["unpatched_log_probability"],
        donors=table["donors"].astype(float),
        facts=1.0,
        accuracy=table["right"].astype(float),
        unpatched=table["unpatched"].astype(float),
    )
    keys = ["model", "tuning", "seed", "split", "individual", "relation"]
    keys += ["source", "target", "layer", "position", "donor"]
    values = (*GAINS, "accuracy", "unpatched")
    table = _with_difference(table, "donor", DONORS, keys, values)
    table = _with_difference(table, "tuning", COMPARED, keys, values)
    _write(out, table, PATCHED, GAINS, seed, provenance)


def _read(runs: Sequence[Evaluation], schema: Schema) -> pd.DataFrame:
    tables = [
        read_table(run.table, schema).assign(model=run.model, tuning=run.tuning, seed=run.seed)
        for run in runs
    ]
    return pd.concat(tables, ignore_index=True)


def _with_difference(
    table: pd.DataFrame,
    column: str,
    pair: tuple[str, str],
    keys: Sequence[str],
    values: Sequence[str],
) -> pd.DataFrame:
    """Add the rows of one kind minus those of another that are alike in all other keys."""
    shared = [key for key in keys if key != column]
    one, other = (table[table[column] == name].set_index(shared) for name in pair)
    one = one.loc[one.index.isin(other.index)]
    less = other.loc[:, list(values)].reindex(one.index)
    found = one.assign(**{value: one[value] - less[value] for value in values})
    found[column] = " - ".join(pair)
    return pd.concat([table, found.reset_index()], ignore_index=True)


def _write(
    out: Path,
    table: pd.DataFrame,
    schema: Schema,
    bounded: Sequence[str],
    seed: int,
    provenance: Mapping[str, Any],
) -> None:
    """Write means of the schema's numbers over facts, of each seed and of all together.

    Columns of `table` that are no floating-point numbers tell rows apart; `facts` and `exchanged`
    are counted; numbers in `bounded` have intervals.
    """
    table = pd.concat([table, table.assign(seed=TOGETHER)])
    counted = [column for column in ("facts", "exchanged") if column in schema]
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
    write_table(out, pd.concat(parts)[list(schema)], schema, provenance)
