"""One model's rows of the tables on representations, and the numbers that pages are made of.

Five analyses ask one question: does a model handle a fact told and the same fact asked alike?
Probes ask it of hidden states, gradients of what is learnt, attribution of what is read, and
patching of what a state does. What "over training", "by layer" and "in the middle" mean for all of
them is said here, once. Any table may lack rows; what is then not known is missing, not an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from factrecall.experiments.attribution.attribution_summary import (
    ATTRIBUTION_SUMMARY,
    PATCHING_SUMMARY,
)
from factrecall.experiments.gradient_similarity.summary import GRADIENT_SUMMARY as GRADIENTS
from factrecall.experiments.representations.probe_summary import CONSISTENCY, PROBES
from factrecall.report.measures import rows_of
from factrecall.runtime.statistics import TOGETHER
from factrecall.vocabulary import COMPARED

MEAN = TOGETHER
"""Stands for the mean over layers, where a layer is named, as `TOGETHER` does for all seeds."""

SPLIT = "out"
"""Whose facts are judged and drawn: of these no question was ever trained on."""

_SCHEMAS = {
    "probes": PROBES,
    "consistency": CONSISTENCY,
    "gradients": GRADIENTS,
    "signature": ATTRIBUTION_SUMMARY,
    "patching": PATCHING_SUMMARY,
}


class RepresentationFiles(NamedTuple):
    """The study's tables on representations."""

    probes: Path
    consistency: Path
    gradients: Path
    signature: Path
    patching: Path


DELTAS = {"rep": "Δrep", "mech": "Δmech", "mech_bio": "Δmech of BIO states"}
"""The last is the one that the paper's text has a number for (see `probe_tables`)."""

BIO_LABELS = {"bio_long": "BIO long", "bio_short": "BIO short"}
PHASES = {"stage": ("bio", "stage"), "mix": ("mix",)}
"""What each training is made of, in order."""


RESTORED = "same - other"
"""The donor whose gain is what a fact's own state restores beyond another person's."""


class Found(NamedTuple):
    """A number of all seeds together, with its 95 % interval (NaN: not known)."""

    value: float
    low: float
    high: float

    @property
    def known(self) -> bool:
        """Whether there is an interval."""
        return not any(map(pd.isna, self))


NOTHING = Found(float("nan"), float("nan"), float("nan"))


@dataclass(frozen=True)
class Represented:
    """What was measured of one model's representations: its rows of the tables."""

    probes: pd.DataFrame
    consistency: pd.DataFrame
    gradients: pd.DataFrame
    signature: pd.DataFrame
    patching: pd.DataFrame

    @property
    def layers(self) -> list[int]:
        """The layers that were probed."""
        return _layers(self.probes)

    @property
    def middle(self) -> int | None:
        """The middle one of the layers that were patched, the lower of two; None if none was."""
        layers = _layers(self.patching)
        return layers[(len(layers) - 1) // 2] if layers else None

    def accuracies(self, split: str = SPLIT) -> pd.DataFrame:
        """Return accuracies over all relations, condensed over seeds.

        Columns tuning, trained, tested, layer, mean, low, high (of seeds), shuffled, chance.
        """
        rows = chosen(self.probes, relation="all", split=split)
        keys = ["tuning", "trained", "tested", "layer"]
        grouped = rows[rows["layer"] >= 0].groupby(keys, sort=False)
        table = grouped.agg(
            mean=("accuracy", "mean"),
            low=("accuracy", "min"),
            high=("accuracy", "max"),
            shuffled=("shuffled", "mean"),
            chance=("chance", "mean"),
        )
        return table.reset_index()

    def difference(self, **keys: Any) -> pd.DataFrame:
        """Return the rows of `consistency` over all relations with these keys."""
        return chosen(self.consistency, relation="all", **keys)

    def at_layers(self, split: str = SPLIT) -> pd.DataFrame:
        """Return the rows of `consistency` over all relations at single layers."""
        rows = self.difference(split=split)
        return rows[rows["layer"] >= 0]

    def moments(self, split: str = SPLIT) -> pd.DataFrame:
        """Return the rows of `gradients` with `progress`: phases done, 0 to 2 or 0 to 1."""
        rows = chosen(self.gradients, split=split)
        before = {phase: n for order in PHASES.values() for n, phase in enumerate(order)}
        return rows.assign(progress=rows["share"] + rows["phase"].map(before).astype(float))

    def trained(self, tuning: str, group: str, kind: str, split: str = SPLIT) -> pd.DataFrame:
        """Return consistency of gradients over training, a row a seed and one of all together.

        It is the mean over the moments behind the start, of both stages: columns seed, cosine,
        low, high. The bounds are the means of the moments' bounds, between which the mean's lie as
        a rule; if a moment has none, nor has the mean.
        """
        rows = chosen(self.moments(split), tuning=tuning, group=group, kind=kind)
        rows = rows[rows["progress"] > 0]
        bounded = rows[["low", "high"]].notna().all(axis=1).groupby(rows["seed"]).transform("all")
        bounds = {end: rows[end].where(bounded) for end in ("low", "high")}
        by_seed = rows.assign(**bounds).groupby("seed", as_index=False)
        return by_seed[["cosine", "low", "high"]].mean()

    def ends(self, split: str = SPLIT) -> pd.DataFrame:
        """Return the rows of `gradients` at the end of training."""
        rows = self.moments(split)
        last = rows.groupby("tuning")["progress"].transform("max")
        return rows[rows["progress"] == last]


def read_represented(tables: Mapping[str, Path], model: str) -> Represented:
    """Read one model's rows of the tables.

    Parameters
    ----------
    tables : mapping of str to Path
        By name as in `TableFiles`; one that is not there counts as empty.
    model : str
        Its name in the study.

    Raises
    ------
    FactRecallError
        When a file is missing or damaged.
    """
    rows = {name: rows_of(tables.get(name), schema, model) for name, schema in _SCHEMAS.items()}
    # A role without tokens has no share, not one of nothing.
    signature = rows["signature"]
    there = signature["tokens"] > 0
    shares = {c: signature[c].where(there) for c in ("share", "share_low", "share_high")}
    return Represented(**{**rows, "signature": signature.assign(**shares)})


def chosen(rows: pd.DataFrame, **keys: Any) -> pd.DataFrame:
    """Return the rows whose columns have these values."""
    for column, value in keys.items():
        rows = rows[rows[column] == value]
    return rows


def together(rows: pd.DataFrame, value: str) -> Found:
    """Return a number of all seeds together, of rows with one such.

    Its bounds are in columns named after it, or are the only ones there are.
    """
    rows = chosen(rows, seed=TOGETHER)
    if rows.empty:
        return NOTHING
    first = rows.iloc[0]
    ends = (f"{value}_{end}" if f"{value}_{end}" in rows else end for end in ("low", "high"))
    low, high = (float(first[end]) for end in ends)
    return Found(float(first[value]), low, high)


def single(rows: pd.DataFrame, value: str) -> dict[int, float]:
    """Return a number of each seed, of rows with one a seed; those not known are left out."""
    rows = rows[rows["seed"] >= 0].dropna(subset=[value]).sort_values("seed")
    return {int(seed): float(v) for seed, v in zip(rows["seed"], rows[value], strict=True)}


def minus(ours: Mapping[int, float], others: Mapping[int, float]) -> dict[int, float]:
    """Return the differences of the seeds that have both."""
    return {seed: ours[seed] - others[seed] for seed in ours if seed in others}


def apart(ours: Found, other: Found) -> Found:
    """Return a difference whose bounds are set as far apart as those of its sides allow."""
    return Found(ours.value - other.value, ours.low - other.high, ours.high - other.low)


def by_tuning(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Split rows by tuning, in the order in which these are shown."""
    return {tuning: rows[rows["tuning"] == tuning] for tuning in COMPARED}


def _layers(rows: pd.DataFrame) -> list[int]:
    return sorted({int(layer) for layer in rows["layer"] if layer >= 0})
