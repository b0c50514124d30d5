"""One model's circuits in numbers: what its figures, tables, claims and caveats are made of.

Any kind of nodes may not have been intervened on, and a model may recall nothing. Mappings by seed
are then empty or NaN.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from factrecall.experiments.circuits.tables import (
    CURVE,
    MLP,
    PEOPLE,
    QUANTITIES,
    QUESTIONS,
    STEPS,
)
from factrecall.report.claims import by_seed
from factrecall.report.section import Source
from factrecall.report.style import KIND_LABELS
from factrecall.runtime.storage import read_table
from factrecall.vocabulary import NODE_KINDS

_UNFITTED = ("whole", "movement")
"""Methods of grafting that fit no mask."""

POINTS = 300
"""As many points of a curve can be told apart."""


class Circuits(Source):
    """One model's sweeps."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of nodes that were intervened on."""
        there = set(self.rows("interventions")["kind"])
        return tuple(kind for kind in NODE_KINDS if kind in there)

    @property
    def mlp(self) -> tuple[str, ...]:
        """Those of the MLP."""
        return tuple(kind for kind in MLP if kind in self.kinds)

    @property
    def lasting(self) -> str | None:
        """The kind that continuity is shown of: the MLP's if there is one."""
        return next(iter((*self.mlp, *self.kinds)), None)

    @property
    def random(self) -> bool:
        """Whether there are random orders to compare with."""
        return bool((self.rows("interventions")["ranking"] == "random").any())

    def labels(self, *kinds: str | None) -> str:
        """Return kinds of nodes in words."""
        return " and ".join(KIND_LABELS[kind] for kind in kinds if kind)

    def nodes(self, kind: str) -> int:
        """Return how many nodes of a kind there are."""
        rows = self.rows("interventions")
        return int(rows.loc[rows["kind"] == kind, "nodes"].max())

    def sweeps(self, kind: str, tuning: str, ranking: str, *directions: str) -> pd.DataFrame:
        """Return the steps of sweeps."""
        rows = _where(self.rows("interventions"), kind=kind, tuning=tuning, ranking=ranking)
        return rows[rows["direction"].isin(directions)]

    def first_step(self, kind: str, tuning: str, ranking: str, direction: str) -> int:
        """Return the fewest nodes, but none, at which every sweep was evaluated; 0: no sweep."""
        rows = self.sweeps(kind, tuning, ranking, direction)
        least = rows[rows["nodes"] > 0].groupby(["seed", "random_order"])["nodes"].min()
        return int(least.max()) if len(least) else 0

    def number(
        self, kind: str, tuning: str, ranking: str, measure: str, at: float | None = None
    ) -> dict[int, float]:
        """Return a measure of ``tables/circuits.parquet`` by seed, the mean of random orders."""
        rows = _where(self.rows("circuits"), kind=kind, tuning=tuning, ranking=ranking)
        rows = rows[rows["measure"] == measure]
        if at is not None:
            rows = rows[np.isclose(rows["at"], at)]
        return by_seed(rows.groupby("seed")["value"].agg(_mean))

    def at(
        self, kind: str, tuning: str, ranking: str, quantity: str, share: float, *directions: str
    ) -> dict[int, float]:
        """Read one of ``QUANTITIES`` off curves by seed, the mean of random orders.

        Parameters
        ----------
        kind, tuning, ranking : str
            Of which sweeps.
        quantity : str
            What is read.
        share : float
            Of the kind's nodes, from 0 to 1; of less than one node, the first is taken.
        directions : str
            Of the sweeps. What nodes hold does not depend on it: the steps of both are used.
        """
        rows = self.sweeps(kind, tuning, ranking, *directions)
        if rows.empty:
            return {}
        place = max(share * self.nodes(kind), 1)
        found = {
            key: float(np.interp(place, sweep["nodes"], sweep[quantity]))
            for key, sweep in rows.sort_values("nodes").groupby(["seed", "random_order"])
        }
        return by_seed(pd.Series(found).groupby(level=0).agg(_mean))

    def held(self, kind: str, tuning: str, ranking: str, share: float) -> dict[int, float]:
        """Return by seed the share of the kind's S in a share of its nodes.

        Counted node by node where it was, else read off the steps.
        """
        if counted := self.number(kind, tuning, ranking, "held", share):
            return counted
        both = ("forward", "backward")
        if share * self.nodes(kind) < min(self.first_step(kind, tuning, ranking, d) for d in both):
            return {}
        return self.at(kind, tuning, ranking, "shared_fraction", share, *both)

    def reached(
        self, kind: str, tuning: str, ranking: str, share: float, direction: str = "forward"
    ) -> dict[int, float]:
        """Return by seed the completeness with a share of the kind's nodes grafted.

        Fewer nodes than the first step takes were not measured: the mapping is then empty.
        """
        least = self.first_step(kind, tuning, ranking, direction)
        if round(share * self.nodes(kind), 6) < least:
            return {}
        return self.at(kind, tuning, ranking, "completeness", share, direction)

    def lost(self, kind: str, tuning: str, ranking: str, share: float) -> dict[int, float]:
        """Return by seed the completeness lost with a share of the kind's nodes reset."""
        left = self.reached(kind, tuning, ranking, share, "backward")
        return {seed: 1 - value for seed, value in left.items()}

    def floor(self, kind: str, tuning: str) -> dict[int, float]:
        """Return by seed the completeness with no node of the kind grafted."""
        return self.number(kind, tuning, "shared", "floor")

    def added(self, kind: str, tuning: str, values: Mapping[int, float]) -> dict[int, float]:
        """Return completeness by seed as a share of what the kind adds: 0 with none, 1 with all."""
        floor = self.floor(kind, tuning)
        return {
            seed: (value - floor[seed]) / (1 - floor[seed]) if floor[seed] < 1 else float("nan")
            for seed, value in values.items()
        }

    def continuity(self, kind: str, tuning: str, shuffled: bool) -> pd.DataFrame:
        """Return the rows of continuity of one sweep a seed, or those of shuffled outcomes."""
        rows = _where(self.rows("continuity"), kind=kind, tuning=tuning)
        return rows[rows["shuffled"].astype(bool) == shuffled]

    def curves(self, *kinds: str) -> pd.DataFrame:
        """Return the sweeps over kinds, condensed over seeds and random orders; see ``CURVE``."""
        rows = self.rows("interventions")
        keys = ["kind", "tuning", "direction", "ranking"]
        parts = [
            condensed.assign(**dict(zip(keys, key, strict=True)), quantity=quantity)
            for kind in kinds
            for key, sweeps in rows[rows["kind"] == kind].groupby(keys, sort=False)
            for quantity in QUANTITIES
            if len(condensed := _condensed(sweeps, quantity))
        ]
        if not parts:
            return pd.DataFrame(columns=list(CURVE))
        table = pd.concat(parts, ignore_index=True)
        return table.assign(share=table["nodes"] / table["kind"].map(self.nodes))[list(CURVE)]

    def places(self) -> pd.DataFrame:
        """Return what share of S and of γ in attention is in each node, the mean over seeds.

        Columns tuning, layer, projection, head, chosen ("shared" or "grafted"), count, part (of
        all in attention; missing if there is none) and ranks (the node's rank in each seed).
        """
        found = []
        for chosen in ("shared", "grafted"):
            rows = self.rows("heads")
            totals = rows.groupby(["tuning", "seed"])[chosen].transform("sum")
            rows = rows.assign(
                count=rows[chosen],
                part=rows[chosen] / totals.where(totals > 0),
                ranks=rows[f"{chosen}_rank"].astype(str),
            )
            groups = rows.groupby(["tuning", "layer", "projection", "head"], sort=False)
            table = groups.agg(
                count=("count", "mean"), part=("part", "mean"), ranks=("ranks", ", ".join)
            )
            found.append(table.reset_index().assign(chosen=chosen))
        return pd.concat(found, ignore_index=True)

    def strip(self) -> pd.DataFrame:
        """Return by step which attributes of the first ``PEOPLE`` are right, grafting by S."""
        steps = read_table(self.files["sweep_steps"], STEPS)
        questions = read_table(self.files["sweep_questions"], QUESTIONS)
        steps = steps[(steps["direction"] == "forward") & (steps["ranking"] == "shared")]
        ever = sorted({int(number) for right in steps["right"] for number in right})
        people = questions.loc[questions["question"].isin(ever), "individual"].drop_duplicates()
        chosen = questions[questions["individual"].isin(people.head(PEOPLE))]
        parts = [
            chosen.assign(
                step=step.step, nodes=step.nodes, right=chosen["question"].isin(list(step.right))
            )
            for step in steps.itertuples()
        ]
        return pd.concat([chosen.assign(step=0, nodes=0, right=False).head(0), *parts])

    def learnt(self) -> float:
        """Return the share of QA out that masks gained over the fine-tuned Mix-tuned model."""
        rows = _where(self.rows("grafting_checks"), check="newly_correct", split="out")
        rows = _where(rows, tuning="mix")
        masks = self.masks()
        if masks.empty:
            return float("nan")
        return float(rows.merge(masks[["tuning", "seed", "alpha"]])["value"].mean())

    def masks(self) -> pd.DataFrame:
        """Return the mask of QA out of each tuning and seed: the chosen or best one."""
        rows = _where(self.rows("grafting"), split="out")
        rows = rows[rows["with_shared"].astype(bool) & ~rows["method"].isin(_UNFITTED)]
        best = rows.sort_values(
            ["chosen", "recovery", "alpha"], ascending=[False, False, True], kind="stable"
        )
        return best.drop_duplicates(["tuning", "seed"]).sort_index()


def _where(rows: pd.DataFrame, **values: Any) -> pd.DataFrame:
    for column, value in values.items():
        rows = rows[rows[column] == value]
    return rows


def _mean(values: pd.Series) -> float:
    return float(values.mean(skipna=False))


def _condensed(sweeps: pd.DataFrame, quantity: str) -> pd.DataFrame:
    """Interpolate the sweeps of one ranking at the steps of all, and condense them."""
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
