"""One model's rows of the tables on circuits, and the numbers that pages are made of.

As in `measures`: what is shown and judged of circuits is condensed here, once. Any kind of nodes
may not have been looked at, and a model may know nothing; what cannot be said is then missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from factrecall.experiments.circuits.continuity import CONTINUITY
from factrecall.experiments.circuits.summary import CIRCUITS, HEADS, INTERVENTIONS, SWEEPS
from factrecall.report.measures import rows_of
from factrecall.vocabulary import NODE_KINDS

MLP = ("column", "unit")
"""The kinds of nodes of the MLP."""

RATIOS = ("overall", "longest", "retained")
"""What is measured of continuity (see `experiments.continuity`)."""

CURVES = {
    "kind": "string",
    "tuning": "string",
    "direction": "string",
    "ranking": "string",
    "quantity": "string",
    "nodes": "int32",
    "share": "float64",
    "mean": "float64",
    "low": "float64",
    "high": "float64",
}
"""Columns of `CircuitMeasures.curves`; `low` and `high` are the least and most of all sweeps."""

QUANTITIES = ("completeness", "shared_fraction", "grafted_fraction")

POINTS = 300
"""So many points of a curve can be told apart."""


@dataclass(frozen=True)
class CircuitMeasures:
    """What was measured of one model's circuits: its rows of the tables.

    Attributes
    ----------
    interventions, circuits, heads, continuity, sweeps : DataFrame
        See `experiments.circuit_tables`.
    """

    interventions: pd.DataFrame
    circuits: pd.DataFrame
    heads: pd.DataFrame
    continuity: pd.DataFrame
    sweeps: pd.DataFrame

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of nodes that were intervened on."""
        there = set(self.interventions["kind"])
        return tuple(kind for kind in NODE_KINDS if kind in there)

    @property
    def lasting(self) -> str | None:
        """The kind that continuity is shown of: the MLP's if there is one."""
        return next((kind for kind in (*MLP, *self.kinds) if kind in self.kinds), None)

    def nodes(self, kind: str) -> int:
        """Return how many nodes of a kind there are."""
        return int(self.interventions.loc[self.interventions["kind"] == kind, "nodes"].max())

    @property
    def random(self) -> bool:
        """Whether there are random orders to compare with."""
        return bool((self.interventions["ranking"] == "random").any())

    def first_step(self, kind: str, tuning: str, priority: str, direction: str) -> int:
        """Return the fewest nodes that every sweep was asked at, but none; 0 without a sweep."""
        rows = self._sweeps(kind, tuning, priority, direction)
        least = rows[rows["nodes"] > 0].groupby(["seed", "random_order"])["nodes"].min()
        return int(least.max()) if len(least) else 0

    def number(
        self, kind: str, tuning: str, priority: str, measure: str, at: float | None = None
    ) -> dict[int, float]:
        """Return a measure of ``tables/circuits.parquet`` by seed, the mean of all draws.

        A seed of which it is not known has NaN.
        """
        rows = self.circuits
        wanted = {"kind": kind, "tuning": tuning, "ranking": priority, "measure": measure}
        for column, value in wanted.items():
            rows = rows[rows[column] == value]
        if at is not None:
            rows = rows[np.isclose(rows["at"], at)]
        return _by_seed(rows.groupby("seed")["value"].agg(_mean))

    def at(
        self, kind: str, tuning: str, priority: str, quantity: str, share: float, *directions: str
    ) -> dict[int, float]:
        """Read a quantity off curves by seed, the mean of all draws.

        Parameters
        ----------
        kind, tuning, priority : str
            Of which sweeps.
        quantity : {"completeness", "shared_fraction", "grafted_fraction"}
            What is read. What nodes hold is the same in both directions; the steps of all that
            are named are used.
        share : float
            Of the kind's nodes, from 0 to 1; of less than one node, the first is looked at.
        directions : str
            Of the sweeps.
        """
        rows = self._sweeps(kind, tuning, priority, *directions)
        if rows.empty:
            return {}
        place = max(share * self.nodes(kind), 1)
        found = {
            key: float(np.interp(place, sweep["nodes"], sweep[quantity]))
            for key, sweep in rows.sort_values("nodes").groupby(["seed", "random_order"])
        }
        return _by_seed(pd.Series(found).groupby(level=0).agg(_mean))

    def _sweeps(self, kind: str, tuning: str, priority: str, *directions: str) -> pd.DataFrame:
        rows = self.interventions[self.interventions["direction"].isin(directions)]
        for column, value in {"kind": kind, "tuning": tuning, "ranking": priority}.items():
            rows = rows[rows[column] == value]
        return rows

    def held(self, kind: str, tuning: str, priority: str, share: float) -> dict[int, float]:
        """Return by seed the share of the kind's S in a share of its nodes.

        Counted node by node where it was, else read off the steps.
        """
        if counted := self.number(kind, tuning, priority, "held", share):
            return counted
        both = ("forward", "backward")
        if share * self.nodes(kind) < min(self.first_step(kind, tuning, priority, d) for d in both):
            return {}
        return self.at(kind, tuning, priority, "shared_fraction", share, *both)

    def reached(self, kind: str, tuning: str, priority: str, share: float) -> dict[int, float]:
        """Return by seed the completeness with a share of the kind's nodes grafted."""
        return self._asked(kind, tuning, priority, share, "forward")

    def lost(self, kind: str, tuning: str, priority: str, share: float) -> dict[int, float]:
        """Return by seed the completeness lost with a share of the kind's nodes put back."""
        left = self._asked(kind, tuning, priority, share, "backward")
        return {seed: 1 - value for seed, value in left.items()}

    def _asked(
        self, kind: str, tuning: str, priority: str, share: float, direction: str
    ) -> dict[int, float]:
        """Read completeness off curves; nothing of fewer nodes than the first step takes."""
        least = self.first_step(kind, tuning, priority, direction)
        if round(share * self.nodes(kind), 6) < least:
            return {}
        return self.at(kind, tuning, priority, "completeness", share, direction)

    def floor(self, kind: str, tuning: str) -> dict[int, float]:
        """Return by seed the completeness with no node of the kind grafted."""
        return self.number(kind, tuning, "shared", "floor")

    def added(self, kind: str, tuning: str, values: Mapping[int, float]) -> dict[int, float]:
        """Return completeness as a share of what the kind adds: 0 for none of its nodes, 1 for all.

        Parameters
        ----------
        kind, tuning : str
            Of what.
        values : mapping of int to float
            Completeness by seed.
        """
        floor = self.floor(kind, tuning)
        return {
            seed: (value - floor[seed]) / (1 - floor[seed]) if floor[seed] < 1 else float("nan")
            for seed, value in values.items()
        }

    def continuous(self, kind: str, tuning: str, shuffled: bool) -> pd.DataFrame:
        """Return the rows of `continuity` of one sweep a seed, or those of exchanged outcomes."""
        rows = self.continuity
        rows = rows[(rows["kind"] == kind) & (rows["tuning"] == tuning)]
        return rows[rows["shuffled"].astype(bool) == shuffled]

    def curves(self, kind: str) -> pd.DataFrame:
        """Return the sweeps over a kind, condensed over seeds and draws; columns ``CURVES``."""
        rows = self.interventions[self.interventions["kind"] == kind]
        keys = ["tuning", "direction", "ranking"]
        parts = [
            condensed.assign(**dict(zip(keys, key, strict=True)), quantity=quantity)
            for key, sweeps in rows.groupby(keys, sort=False)
            for quantity in QUANTITIES
            if len(condensed := _condensed(sweeps, quantity))
        ]
        if not parts:
            return pd.DataFrame(columns=list(CURVES))
        table = pd.concat(parts, ignore_index=True)
        return table.assign(kind=kind, share=table["nodes"] / self.nodes(kind))[list(CURVES)]

    def places(self) -> pd.DataFrame:
        """Return what part of S and of γ in attention is in each node, the mean over seeds.

        Columns tuning, layer, projection, head, chosen ("shared" or "grafted"), count, part (of
        all of the kind; missing if there is none) and ranks (the node's rank in each seed, as
        text).
        """
        found = []
        node = ["layer", "projection", "head"]
        for chosen in ("shared", "grafted"):
            totals = self.heads.groupby(["tuning", "seed"])[chosen].transform("sum")
            rows = self.heads.assign(
                count=self.heads[chosen],
                part=self.heads[chosen] / totals.where(totals > 0),
                ranks=self.heads[f"{chosen}_rank"].astype(str),
            )
            groups = rows.groupby(["tuning", *node], sort=False)
            table = groups.agg(
                count=("count", "mean"), part=("part", "mean"), ranks=("ranks", ", ".join)
            )
            found.append(table.reset_index().assign(chosen=chosen))
        return pd.concat(found, ignore_index=True)


def read_circuits(tables: Mapping[str, Path], model: str) -> CircuitMeasures:
    """Read one model's rows of the tables.

    Parameters
    ----------
    tables : mapping of str to Path
        By name as in `measures.TableFiles`; one that is not there counts as empty.
    model : str
        Its name in the study.

    Raises
    ------
    FactRecallError
        When a file is missing or damaged.
    """
    schemas = {
        "interventions": INTERVENTIONS,
        "circuits": CIRCUITS,
        "heads": HEADS,
        "continuity": CONTINUITY,
        "sweeps": SWEEPS,
    }
    return CircuitMeasures(
        **{name: rows_of(tables.get(name), schema, model) for name, schema in schemas.items()}
    )


def _mean(values: pd.Series) -> float:
    return float(values.mean(skipna=False))


def _by_seed(values: pd.Series) -> dict[int, float]:
    return {int(str(seed)): float(value) for seed, value in values.items()}


def _condensed(sweeps: pd.DataFrame, quantity: str) -> pd.DataFrame:
    """Lay sweeps of one order on one another; steps that one of them lacks are on its lines."""
    sweeps = sweeps.dropna(subset=[quantity])
    grid = np.unique(sweeps["nodes"])
    if len(grid) > POINTS:
        grid = grid[np.linspace(0, len(grid) - 1, POINTS).round().astype(int)]
    lines = [
        np.interp(grid, line["nodes"], line[quantity])
        for _, line in sweeps.groupby(["seed", "random_order"], sort=False)
    ]
    if not lines:
        return pd.DataFrame()
    values = np.stack(lines)
    return pd.DataFrame(
        {"nodes": grid, "mean": values.mean(0), "low": values.min(0), "high": values.max(0)}
    )
