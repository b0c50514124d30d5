"""One model's rows of the tables on shared parameters, and the numbers that pages are made of.

Figures, tables and verdicts must not each condense the tables their own way: what "at shared.k",
"after ablation" and "the chosen mask" mean is said here, once. Any table may lack rows; what
cannot be computed is then missing, not an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

from factrecall.experiments.grafting.grafter import GRAFTING, UNFITTED, looked_at
from factrecall.experiments.grafting.mask_checks import CHECKS
from factrecall.experiments.shared_parameters.compute import SHARED, SHARED_LOCATIONS
from factrecall.parameters.amounts import absolute_count
from factrecall.report.claims import by_seed_difference
from factrecall.report.style import SPLIT_NAMES
from factrecall.runtime.storage import arrow_schema, read_table
from factrecall.vocabulary import COMPARED, SPLITS

__all__ = [
    "SPLIT_NAMES",
    "Measures",
    "TableFiles",
    "by_seed_difference",
    "read_measures",
]

_ORDER = {
    "tuning": (*COMPARED, "stage - mix", "mix - stage"),
    "split": (*SPLITS, "in", "held", "out"),
}


@dataclass(frozen=True)
class TableFiles:
    """The tables of a study; see the module that writes each for its columns."""

    recall: Path
    shared: Path
    shared_locations: Path
    ablation: Path
    ablation_intervals: Path
    grafting: Path
    grafting_checks: Path
    interventions: Path
    circuits: Path
    heads: Path
    continuity: Path
    sweeps: Path
    probes: Path
    consistency: Path
    gradients: Path
    attribution: Path
    patching: Path

    @classmethod
    def of(cls, folder: Path) -> TableFiles:
        """Return the tables at their fixed places in a folder."""
        names = cls.__dataclass_fields__
        return cls(**{name: folder / f"{name}.parquet" for name in names})


@dataclass(frozen=True)
class Measures:
    """What was measured of one model's shared parameters.

    Attributes
    ----------
    shared, places, grafting, checks : DataFrame
        This model's rows of the tables, two-stage before mixed training.
    k : int
        How many parameters of each ranking were taken (shared.k); 0 if nothing was.
    parameters : int
        How many the model has; 0 if unknown.
    influence : str
        The reading of influence that S was ranked by.
    recovery : float
        The share of the fine-tuned accuracy that a chosen mask recovers.
    """

    shared: pd.DataFrame
    places: pd.DataFrame
    grafting: pd.DataFrame
    checks: pd.DataFrame
    k: int
    parameters: int
    influence: str
    recovery: float

    def at_k(self) -> pd.DataFrame:
        """Return the rows of `shared` at shared.k."""
        return self.shared[self.shared["k"] == self.k]

    def size_of_s(self) -> pd.DataFrame:
        """Return the share of all parameters that is in S: columns tuning, seed, share."""
        rows = self.places[self.places["set"] == "S"]
        sums = rows.groupby(["tuning", "seed"], sort=False)[["shared", "parameters"]].sum()
        return (sums["shared"] / sums["parameters"]).rename("share").reset_index()

    def fitted(self) -> pd.DataFrame:
        """Return the rows of `grafting` on fitted masks."""
        return self.grafting[~self.grafting["method"].isin(UNFITTED)]

    def masks(self) -> pd.DataFrame:
        """Return one row a tuning, seed and split on the mask the report looks at.

        It is the chosen mask or, where none recovered enough, the one that recovered most:
        columns tuning, seed, split, chosen, alpha, size, accuracy, recovery, shared_fraction and,
        of the mask of that α without S, accuracy_without, recovery_without.
        """
        fitted = self.fitted()
        keys = ["tuning", "seed", "split"]
        best = looked_at(self.grafting, keys)
        columns = ["accuracy", "recovery"]
        without = fitted[~fitted["with_shared"].astype(bool)].set_index([*keys, "alpha"])[columns]
        joined = best.join(without.add_suffix("_without"), on=[*keys, "alpha"])
        return _ordered(joined.drop(columns=["with_shared", "method", "model"], errors="ignore"))

    def checked(self, check: str) -> pd.DataFrame:
        """Return a check's rows of the masks of `masks`: columns tuning, seed, split, other, value.

        Checks without an α (``fine_tuned`` and ``pre_trained``) are returned as they are.
        """
        rows = self.checks[self.checks["check"] == check]
        if rows["alpha"].isna().all():
            return rows
        keys = ["tuning", "seed", "split", "alpha"]
        return rows.merge(self.masks()[keys], on=keys)

    def known(self, other: Literal[0, 1]) -> pd.DataFrame:
        """Return what is right with nothing and with everything grafted, as it was measured.

        Columns tuning, seed, split, before (θpre's accuracy), whole (θtask's) and nothing (before
        over whole: what grafting nothing recovers); `other` 0 asks for the people that masks are
        fitted to, 1 for the others.
        """
        keys = ["tuning", "seed", "split"]
        rows = self.checks[self.checks["other"] == other].set_index(keys)
        whole = rows[rows["check"] == "fine_tuned"]["value"].rename("whole").reset_index()
        before = rows[rows["check"] == "pre_trained"]["value"].rename("before")
        table = whole.join(before, on=keys)
        return table.assign(nothing=share_of(table["before"], table["whole"]))

    def others(self) -> pd.DataFrame:
        """Return how much of other people's recall the masks bring back, at every α.

        Columns tuning, seed, split, alpha, accuracy, those of `known`, recovery (accuracy over
        whole) and, of what fine-tuning added, the share that is back: `closed`.
        """
        keys = ["tuning", "seed", "split"]
        rows = self.checks[self.checks["check"] == "others"][[*keys, "alpha", "value"]]
        rows = rows.rename(columns={"value": "accuracy"})
        rows = rows.join(self.known(1).set_index(keys), on=keys)
        return rows.assign(
            recovery=share_of(rows["accuracy"], rows["whole"]),
            closed=share_of(rows["accuracy"] - rows["before"], rows["whole"] - rows["before"]),
        )

    def others_of_masks(self) -> pd.DataFrame:
        """Return the rows of `others` on the masks of `masks`.

        Besides, `fitted` and `fitted_closed`: recovery and closed of the people fitted to.
        """
        keys = ["tuning", "seed", "split"]
        masks = self.masks().join(self.known(0).set_index(keys), on=keys)
        added = masks["whole"] - masks["before"]
        masks = masks.assign(
            fitted=masks["recovery"],
            fitted_closed=share_of(masks["accuracy"] - masks["before"], added),
        )
        keys = [*keys, "alpha"]
        return self.others().merge(masks[[*keys, "fitted", "fitted_closed"]], on=keys)


def read_measures(
    tables: Mapping[str, Path], model: str, *, k: float, influence: str, recovery: float
) -> Measures:
    """Read one model's rows of the tables.

    Parameters
    ----------
    tables : mapping of str to Path
        By name as in `TableFiles`; one that is not there counts as empty.
    model : str
        Its name in the study.
    k : int or float
        As configured: a count, or a fraction of all parameters.
    influence, recovery
        As configured.

    Raises
    ------
    FactRecallError
        When a file is missing or damaged.
    """
    schemas = {
        "shared": SHARED,
        "shared_locations": SHARED_LOCATIONS,
        "grafting": GRAFTING,
        "grafting_checks": CHECKS,
    }
    frames = {name: rows_of(tables.get(name), schema, model) for name, schema in schemas.items()}
    places = frames["shared_locations"]
    size = _model_size(places)
    return Measures(
        shared=frames["shared"],
        places=places,
        grafting=frames["grafting"],
        checks=frames["grafting_checks"],
        k=absolute_count(k, size) if size else 0,
        parameters=size,
        influence=influence,
        recovery=recovery,
    )


def share_of(part: pd.Series, whole: pd.Series) -> pd.Series:
    """Return part over whole; of nothing there is no share, so it is then missing."""
    return part / whole.where(whole > 0)


def rows_of(path: Path | None, schema: Mapping[str, str], model: str) -> pd.DataFrame:
    """Read one model's rows of a table, in the order in which they are shown; of none none."""
    if path is None:
        table = arrow_schema(dict(schema)).empty_table().to_pandas()
    else:
        table = read_table(path, dict(schema))
    rows = _ordered(table[table["model"] == model])
    # pandas cannot join empty columns of Arrow's strings.
    return rows.astype({column: object for column, kind in schema.items() if kind == "string"})


def _ordered(table: pd.DataFrame) -> pd.DataFrame:
    """Sort by what is shown first; rows that compare equal stay in their order."""
    by = [c for c in ("tuning", "seed", "split") if c in table.columns]
    return table.sort_values(
        by,
        key=lambda c: c.map(_ORDER[c.name].index) if c.name in _ORDER else c,
        kind="stable",
        ignore_index=True,
    )


def _model_size(places: pd.DataFrame) -> int:
    if places.empty:
        return 0
    first = places.iloc[0]
    same = (places["set"] == first["set"]) & (places["tuning"] == first["tuning"])
    return int(places.loc[same & (places["seed"] == first["seed"]), "parameters"].sum())
