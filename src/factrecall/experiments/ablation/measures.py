"""What the report reads of the ablations of a model, and the names of what is reset."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from factrecall.report.observations import observe, where
from factrecall.report.section import Source

if TYPE_CHECKING:
    import pandas as pd

OUT = "qa_out"
MAIN = {
    "none": "nothing",
    "shared": "S",
    "random": "random",
    "random_by_tensor": "random,\nas S by tensor",
    "most_moved": "moved most",
}
CONTROLS = {
    "shared": "S",
    "random": "random",
    "random_by_tensor": "random of the same tensors",
    "random_same_rows": "random of the same rows",
    "random_same_columns": "random of the same columns",
    "bio_only": "BIO-isolate",
    "qa_only": "QA-isolate",
    "bio_only_by_tensor": "BIO-isolate, as S by tensor",
    "qa_only_by_tensor": "QA-isolate, as S by tensor",
    "bio_top": "top of BIO alone",
    "qa_top": "top of QA alone",
    "most_moved": "moved most",
}
SUFFICIENT = {
    "only_shared": "θpre with S alone",
    "only_random": "θpre with random alone",
    "mix_into_stage": "Stage-tuned with S of Mix-tuned",
    "mix_into_stage_random": "Stage-tuned with random of Mix-tuned",
}
READINGS = ("absolute", "magnitude", "signed")
"""The readings of influence that the paper's words allow; "adam" is this project's."""

LIKE_S = ("random_by_tensor", "random_same_rows", "random_same_columns")
AS_MANY = 0.9
"""From this share of |S| on, a control counts as of as many parameters."""

MOSTLY = 0.5
LITTLE = 0.1
"""A model that is ahead of the majority vote by less has little to lose."""


class Ablation(Source):
    """One model's ablations."""

    def people(self, **keys: Any) -> pd.DataFrame:
        """Return right answers by individual; S is that of the study's influence if none is named.

        `before` is the accuracy with nothing reset, on the same questions.
        """
        keys = {"influence": self.settings["influence"], "split": OUT} | keys
        rows = where(self.rows("ablation_people"), **keys)
        return rows.assign(before=rows["correct"] / rows["n"] + rows["drop"], questions=rows["n"])

    def lost(self, ablated: str, tuning: str, **keys: Any) -> pd.DataFrame:
        """Return what one ablation costs of QA out, by seed and person, the mean over draws."""
        return observe(self.people(ablated=ablated, **keys), "drop", tuning=tuning)

    def accuracies(self) -> pd.DataFrame:
        """Return accuracies after the main ablations, of every split."""
        own = self.rows("ablation")
        own = own[own["influence"].isin(("", self.settings["influence"])) & (own["draw"] == 0)]
        return pooled(own[own["ablated"].isin(MAIN)], "split")

    def of_the_same_people(self) -> pd.DataFrame:
        """Return right answers on QA out of the people that every ablation was evaluated on."""
        rows = self.people()
        # A number is another person in another replicate.
        asked = where(rows, ablated="bio_top")[["seed", "individual"]].drop_duplicates()
        return rows.merge(asked, on=["seed", "individual"])

    def controls(self) -> pd.DataFrame:
        """Return what S and as many others cost of QA out, the mean over draws."""
        rows = self.of_the_same_people()
        return pooled(rows[rows["ablated"].isin(CONTROLS)])

    def sufficient(self) -> pd.DataFrame:
        """Return accuracy on QA out of θpre with S alone, and of models given the other's S."""
        rows = self.of_the_same_people()
        return pooled(rows[rows["ablated"].isin(SUFFICIENT)])

    def tensors(self) -> pd.DataFrame:
        """Return what each tensor with at least 1 % of S costs of QA out.

        `what`: the tensor, its members of S, or S without these.
        """
        rows = self.of_the_same_people()
        found = rows["ablated"].str.extract(r"^(tensor|shared_in|shared_without):(.*)$")
        rows = rows.assign(what=found[0], tensor=found[1]).dropna(subset="what")
        return pooled(rows, "what", "tensor")

    def size(self, ablated: str) -> float:
        """Return how many parameters an ablation resets, over how many S has (NaN: not made)."""
        rows = where(self.rows("ablation_sets"), influence=self.settings["influence"], draw=0)
        members = rows.groupby("ablated")["members"].sum()
        return float(members.get(ablated, math.nan) / members.get("shared", math.nan))

    def majority(self, split: str) -> float:
        """Return the accuracy of the majority vote (NaN: not known)."""
        rows = where(self.rows("recall"), split=split, tuning="majority")
        return float(rows["correct"].sum() / rows["n"].sum()) if len(rows) else math.nan

    def top_tensor(self) -> str:
        """Return the tensor with most of the Mix-tuned models' S ("": none)."""
        rows = where(self.rows("ablation_sets"), ablated="shared", tuning="mix")
        rows = where(rows, influence=self.settings["influence"])
        sums = rows.groupby("tensor")["members"].sum()
        return str(sums.idxmax()) if len(sums) else ""


def pooled(rows: pd.DataFrame, *keys: str) -> pd.DataFrame:
    """Add up relations and draws: accuracy and what is lost, by run, ablation and `keys`."""
    by = ["tuning", "seed", *keys, "ablated"]
    rows = rows.assign(lost=rows["drop"] * rows["n"])
    sums = rows.groupby(by, sort=False)[["n", "correct", "lost"]].sum().reset_index()
    return sums.assign(accuracy=sums["correct"] / sums["n"], drop=sums["lost"] / sums["n"])
