"""One model's circuits in numbers: what its figures, claims and cautions are made of.

Any kind of nodes may not have been intervened on, and a model may recall nothing: tables of
observations then have no rows.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from factrecall.experiments.circuits.tables import (
    CURVE,
    NOTHING,
    PEOPLE,
    QUESTIONS,
    STEPS,
)
from factrecall.report.observations import minus, observe, where
from factrecall.report.section import Source
from factrecall.runtime.intervals import ratio_observations
from factrecall.runtime.storage import read_table

QUANTITIES = ("completeness", "shared_fraction", "grafted_fraction")

POINTS = 300
"""As many points of a curve can be told apart."""


class Circuits(Source):
    """One model's sweeps; observations are of Mix-tuned models, which the paper's claims are on."""

    def nodes(self, kind: str) -> int:
        """Return how many nodes of a kind there are."""
        return int(where(self.rows("interventions"), kind=kind)["nodes"].max())

    def first_step(self, kind: str) -> int:
        """Return the fewest nodes that are reset at once."""
        rows = where(self.rows("interventions"), kind=kind, direction="backward")
        return int(rows.loc[rows["nodes"] > 0, "nodes"].min())

    def right(
        self, kind: str, direction: str, ranking: str, place: tuple[float, float]
    ) -> pd.DataFrame:
        """Observe what is right in a sweep, at one of the places ``READ`` of its curve."""
        rows = where(self.rows("circuits"), kind=kind, direction=direction, ranking=ranking)
        rows = rows[np.isclose(rows["start"], place[0]) & np.isclose(rows["end"], place[1])]
        return observe(rows, "right", tuning="mix")

    def whole(self, kind: str) -> pd.DataFrame:
        """Observe what the whole grafted model has right."""
        return observe(self.rows("circuits"), "whole", tuning="mix", kind=kind)

    def completeness(
        self, kind: str, place: tuple[float, float], ranking: str = "shared", against: str = ""
    ) -> pd.DataFrame:
        """Observe completeness, forward, or by how much it is above that of another ranking."""
        ours = self.right(kind, "forward", ranking, place)
        if against:
            ours = minus(ours, self.right(kind, "forward", against, place))
        return ratio_observations(ours, self.whole(kind))

    def lost(
        self, kind: str, place: tuple[float, float], ranking: str = "shared", against: str = ""
    ) -> pd.DataFrame:
        """Observe completeness lost, backward, or how much more than by another ranking."""
        left = self.right(kind, "backward", ranking, place)
        other = self.right(kind, "backward", against, place) if against else self.whole(kind)
        return ratio_observations(minus(other, left), self.whole(kind))

    def added(self, kind: str, place: tuple[float, float]) -> pd.DataFrame:
        """Observe what nodes give of what all of their kind add to everything else."""
        nothing = self.right(kind, "forward", "shared", NOTHING)
        ours = self.right(kind, "forward", "shared", place)
        return ratio_observations(minus(ours, nothing), minus(self.whole(kind), nothing))

    def floor(self, kind: str) -> float:
        """Return the mean completeness with no node of the kind grafted; NaN: nothing recalled."""
        rows = where(self.rows("interventions"), kind=kind, tuning="mix", direction="forward")
        return float(rows.loc[rows["nodes"] == 0, "completeness"].mean())

    def held(self, kind: str, share: float) -> pd.DataFrame:
        """Observe the share of the kind's S in a share of its nodes, by shared parameters."""
        rows = where(self.rows("interventions"), kind=kind, tuning="mix", ranking="shared")
        at, sweeps = share * self.nodes(kind), rows.sort_values("nodes").groupby("seed")
        found = {s: np.interp(at, r["nodes"], r["shared_fraction"]) for s, r in sweeps}
        # Where all of S is there in every run, the interval is that of as many nodes (`estimate`).
        return pd.DataFrame({"seed": found.keys(), "value": found.values(), "questions": round(at)})

    def lasting(self, *, shuffled: bool = False) -> pd.DataFrame:
        """Return the rows of continuity of Mix-tuned models, of the kind that is shown."""
        kind = self.settings["lasting"]
        return where(self.rows("continuity"), tuning="mix", kind=kind, shuffled=shuffled)

    def continuity(self, ratio: str) -> pd.DataFrame:
        """Observe a ratio of continuity."""
        return observe(self.lasting(), ratio)

    def beyond_chance(self, ratio: str) -> pd.DataFrame:
        """Observe a ratio of attributes wrong at first, less that of shuffled outcomes."""
        rows = (self.lasting(shuffled=shuffled) for shuffled in (False, True))
        return minus(*(observe(r[r["first"] > 0], ratio) for r in rows))

    def curves(self, *kinds: str) -> pd.DataFrame:
        """Return the sweeps over kinds, condensed over seeds and random orders; see ``CURVE``."""
        rows = self.rows("interventions")
        keys = ["kind", "tuning", "direction", "ranking"]
        parts = [
            condensed.assign(**dict(zip(keys, key, strict=True)), quantity=quantity)
            for key, sweeps in rows[rows["kind"].isin(kinds)].groupby(keys, sort=False)
            for quantity in QUANTITIES
            if len(condensed := _condensed(sweeps, quantity))
        ]
        if not parts:
            return pd.DataFrame(columns=list(CURVE))
        table = pd.concat(parts, ignore_index=True)
        return table.assign(share=table["nodes"] / table["kind"].map(self.nodes))[list(CURVE)]

    def places(self) -> pd.DataFrame:
        """Return what each node has of S ("shared"), or γ ("grafted"), in attention, as a part."""
        run, node = ["tuning", "seed", "chosen"], ["tuning", "layer", "projection", "head"]
        rows = self.rows("heads").melt(
            ["seed", *node], ["shared", "grafted"], var_name="chosen", value_name="part"
        )
        totals = rows.groupby(run, sort=False)["part"].transform("sum")
        rows["part"] /= totals.where(totals > 0)
        return rows.groupby([*node, "chosen"], sort=False)["part"].mean().reset_index()

    def strip(self) -> pd.DataFrame:
        """Return by step which attributes of the first ``PEOPLE`` are right, grafting by S."""
        steps = read_table(self.files["sweep_steps"], STEPS)
        questions = read_table(self.files["sweep_questions"], QUESTIONS)
        steps = where(steps, direction="forward", ranking="shared")[["step", "nodes", "right"]]
        ever = {number for right in steps["right"] for number in right}
        people = questions.loc[questions["question"].isin(ever), "individual"].unique()[:PEOPLE]
        rows = questions[questions["individual"].isin(people)].merge(steps, how="cross")
        right = [q in r for q, r in zip(rows["question"], rows["right"], strict=True)]
        return rows.assign(right=np.array(right, dtype=bool))

    def mask(self, check: str) -> float:
        """Return a check of the masks that are taken apart (Mix-tuned), the mean over seeds."""
        rows = where(self.rows("grafting_checks"), split="out", tuning="mix", check=check)
        masks = where(self.masks(), tuning="mix")[["seed", "objective", "alpha"]]
        return float(rows.merge(masks)["value"].mean())

    def masks(self) -> pd.DataFrame:
        """Return the masks that are taken apart, a row a tuning and seed."""
        rows = where(self.rows("grafting"), split="out")
        return rows[rows["taken_apart"].astype(bool)]

    def fine_tuned(self) -> float:
        """Return what fine-tuned models recall of the people that no mask was fitted to."""
        rows = where(self.rows("grafting_checks"), split="out", tuning="mix", other=1)
        return float(where(rows, check="fine_tuned")["value"].mean())


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
