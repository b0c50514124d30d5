"""Ablation in the report: what a model still recalls when parameters are reset to θpre.

The module is long because a section is declared in one place: its claims, figures and captions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from factrecall.report.ledger import SMALLEST, Claim
from factrecall.report.marks import Bars, Reference
from factrecall.report.observations import minus, mix_minus_stage, observe, scaled, where
from factrecall.report.plots import Axis, Figure, Panel
from factrecall.report.published import published, published_ablation
from factrecall.report.section import Section, Source
from factrecall.report.style import SPLIT_LABELS, TUNING_LABELS
from factrecall.report.tables import Column, Table, mean_sd, percent, points
from factrecall.vocabulary import COMPARED

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


# --- claims -----------------------------------------------------------------------------------


def _each(*names: str) -> Callable[[Any], Any]:
    """Observe how much more S costs Mix-tuned models than each of several sets."""
    return lambda m: {
        CONTROLS[name]: minus(m.lost("shared", "mix"), m.lost(name, "mix")) for name in names
    }


def _gained(one: str, other: str, tuning: str) -> Callable[[Any], Any]:
    """Observe how much more a model answers after one ablation than after another."""
    return lambda m: minus(m.lost(other, tuning), m.lost(one, tuning))


def too_small(*names: str) -> Callable[[Ablation], str | None]:
    """Return what says where clearly fewer are reset than S has: too few are left outside S."""

    def said(m: Ablation) -> str | None:
        sizes = {CONTROLS[name]: m.size(name) for name in names if m.size(name) < AS_MANY}
        each = ", ".join(f"{name} {percent(share)}" for name, share in sizes.items())
        few = "controls are smaller than S, because too few parameters are left outside it"
        return f"{few} (in % of |S|: {each})" if each else None

    return said


def costs_nothing(m: Ablation) -> str | None:
    """Say where S itself may cost nothing, so that no part of it can be told from all."""
    from factrecall.runtime.intervals import estimate

    low = estimate(m.lost("shared", "mix")).low
    return None if low > SMALLEST["bound"] else "S itself may cost Mix-tuned models next to nothing"


def _random_costs(m: Ablation) -> dict[str, pd.DataFrame]:
    return {
        f"{TUNING_LABELS[tuning]}, {split}, {way}": scaled(
            m.lost("random", tuning, split=split, draw=0), sign
        )
        for tuning in COMPARED
        for split in SPLIT_LABELS
        for way, sign in (("lost", 1), ("gained", -1))
    }


def _share_lost(m: Ablation) -> pd.DataFrame:
    from factrecall.runtime.intervals import ratio_observations

    rows = m.people(ablated="shared")
    return minus(
        *(
            ratio_observations(*(observe(rows, c, tuning=t) for c in ("drop", "before")))
            for t in ("mix", "stage")
        )
    )


def _published(one: tuple[str, str], other: tuple[str, str]) -> Callable[[Any], float | None]:
    """Return how much more one ablation of the paper costs than another (tuning and what)."""

    def found(m: Ablation) -> float | None:
        costs = []
        for tuning, ablated in (one, other):
            after = published_ablation(m.paper, tuning, ablated, OUT)
            before = published(m.paper, tuning, OUT)
            if before is None or after is None:
                return None
            costs.append((before - after) / 100)
        return costs[0] - costs[1]

    return found


_FIGURES = "v1, section 3.1 and figures 8 and 9"
COSTS = "In Mix-tuned models, resetting S costs more accuracy on unseen questions than resetting"

CLAIMS = (
    Claim(
        id="ablation.mix-loses-more",
        text="Resetting S lowers accuracy on unseen questions more in Mix-tuned than in "
        "Stage-tuned models, for each of three influences: absolute, magnitude and signed.",
        source=_FIGURES,
        observe=lambda m: {
            i: mix_minus_stage(m.people(ablated="shared", influence=i, draw=0), "drop")
            for i in READINGS
        },
        published=_published(("mix", "shared"), ("stage", "shared")),
        compares_tunings=True,
        **SMALLEST,
    ),
    Claim(
        id="ablation.more-than-random",
        text="In Mix-tuned models, resetting S lowers accuracy on unseen questions more than "
        "resetting as many random parameters outside S, for each of three influences.",
        source=_FIGURES,
        observe=lambda m: {
            i: minus(*(m.lost(a, "mix", influence=i) for a in ("shared", "random")))
            for i in READINGS
        },
        published=_published(("mix", "shared"), ("mix", "random")),
        **SMALLEST,
    ),
    Claim(
        id="ablation.random-costs-nothing",
        text="Resetting as many random parameters outside S as S has changes accuracy by less than "
        "2 points, on BIO, QA in and QA out, in Stage-tuned and Mix-tuned models.",
        source="v1, figure 9",
        observe=_random_costs,
        comparison="less",
        quote="0.3 points at most",
        **SMALLEST,
    ),
    Claim(
        id="ablation.adam",
        text="With adam influence, resetting S costs Mix-tuned models more accuracy on unseen "
        "questions than Stage-tuned ones, and more than resetting as many random parameters does.",
        observe=lambda m: {
            "Mix-tuned against Stage-tuned": minus(
                *(m.lost("shared", t, influence="adam") for t in ("mix", "stage"))
            ),
            "S against random": minus(
                *(m.lost(a, "mix", influence="adam") for a in ("shared", "random"))
            ),
        },
        **SMALLEST,
    ),
    Claim(
        id="ablation.share-lost",
        text="Resetting S costs Mix-tuned models a larger share of their accuracy on unseen "
        "questions than it costs Stage-tuned models.",
        observe=_share_lost,
        compares_tunings=True,
        **SMALLEST,
    ),
    Claim(
        id="ablation.not-just-tensors",
        text=f"{COSTS} each of three random controls: as many parameters outside S, of the same "
        "tensors, rows or columns.",
        observe=_each(*LIKE_S),
        lenient=too_small(*LIKE_S),
        **SMALLEST,
    ),
    Claim(
        id="ablation.more-than-isolate",
        text=f"{COSTS} BIO-isolate parameters, and more than resetting QA-isolate ones.",
        observe=_each("bio_only", "qa_only"),
        lenient=too_small("bio_only", "qa_only"),
        **SMALLEST,
    ),
    Claim(
        id="ablation.more-than-one-task",
        text=f"{COSTS} as many top-ranked parameters of biographies, and more than as many of "
        "questions.",
        observe=_each("bio_top", "qa_top"),
        **SMALLEST,
    ),
    Claim(
        id="ablation.more-than-moved",
        text=f"{COSTS} as many of the parameters that fine-tuning changed most.",
        observe=_each("most_moved"),
        **SMALLEST,
    ),
    Claim(
        id="ablation.not-one-tensor",
        text="Resetting S outside the tensor with most of S still costs Mix-tuned models at least "
        "half the accuracy on unseen questions that resetting all of S costs.",
        observe=lambda m: minus(
            m.lost(f"shared_without:{m.top_tensor()}", "mix"),
            scaled(m.lost("shared", "mix"), MOSTLY),
        ),
        bound=0.0,
        why="Zero, because half of what resetting S costs is already subtracted.",
        unmeasurable=costs_nothing,
    ),
    Claim(
        id="ablation.sufficient",
        text="θpre with the Mix-tuned values of S alone answers more unseen questions than θpre "
        "with those of as many random parameters.",
        observe=_gained("only_shared", "only_random", "mix"),
        **SMALLEST,
    ),
    Claim(
        id="ablation.transplanted",
        text="A Stage-tuned model given the Mix-tuned values of S answers more unseen questions "
        "than one given the Mix-tuned values of as many random parameters.",
        observe=_gained("mix_into_stage", "mix_into_stage_random", "stage"),
        **SMALLEST,
    ),
)  # fmt: skip


# --- how far to trust them --------------------------------------------------------------------


def one_tensor(m: Ablation) -> str | None:
    """Say what S's largest tensor costs, whole and without the rest of S."""
    rows, top = where(m.tensors(), tuning="mix", tensor=m.top_tensor()), m.top_tensor()
    if rows.empty:
        return None
    whole, rest = (
        percent(float(where(rows, what=what)["drop"].mean()))
        for what in ("tensor", "shared_without")
    )
    every = percent(float(where(m.controls(), tuning="mix", ablated="shared")["drop"].mean()))
    return (
        f"In Mix-tuned models S costs {every} points of QA out. Resetting all of its largest "
        f"tensor, {top}, costs {whole}; S without its members there costs {rest}."
    )


def smaller_controls(m: Ablation) -> str | None:
    """Say which controls have clearly fewer parameters than S."""
    said = too_small(*CONTROLS)(m)
    return f"Some controls are smaller than S: {said}." if said else None


def little_to_lose(m: Ablation) -> list[str]:
    """Say which model is so close to the majority vote that it can lose little."""
    chance = m.majority(OUT)
    means = where(m.accuracies(), split=OUT, ablated="none").groupby("tuning")["accuracy"].mean()
    return [
        f"{TUNING_LABELS[str(tuning)]} models answer {percent(mean)} % of QA out and the majority "
        f"vote {percent(chance)} %: they have little to lose."
        for tuning, mean in means.items()
        if mean - chance < LITTLE
    ]


# --- figures ----------------------------------------------------------------------------------


def _chance(panel: Panel) -> float:
    return 100 * float(panel.measures.majority(panel.key["split"]))


_SCHEMA = {"tuning": "string", "seed": "int32", "ablated": "string", "accuracy": "float64",
           "drop": "float64"}  # fmt: skip

SECTION = Section(
    name="ablation",
    title="Ablation",
    question="Is recall lost when S is reset to what it was before fine-tuning, and more so than "
    "with as many other parameters?",
    read=Ablation,
    reads=("ablation", "ablation_people", "ablation_sets", "recall"),
    settings=lambda study, model: {"influence": study.shared.influence},
    claims=CLAIMS,
    trust=(one_tensor, smaller_controls, little_to_lose),
    figures=(
        Figure(
            "ablation",
            data=Ablation.accuracies,
            schema={**_SCHEMA, "split": "string"},
            row="split",
            layers=(
                Bars("accuracy", "ablated"),
                Reference(_chance, "chance", "majority vote", axis="x"),
            ),
            labels={"ablated": MAIN},
            height=1.65,
            x=Axis("answers exactly right (%)", percent=("accuracy",), limits=(0, 118),
                   ticks=range(0, 101, 20), grid=True),
            y=Axis("reset to θpre"),
            caption="<b>What is recalled without S.</b> Bars are means over seeds, points are "
            "seeds. Compare within a colour: it matters which parameters are reset only where S is "
            "shorter than all below it.",
        ),
        Figure(
            "ablation_controls",
            data=Ablation.controls,
            schema=_SCHEMA,
            layers=(Bars("drop", "ablated"),),
            labels={"ablated": CONTROLS},
            height=4.6,
            x=Axis("points of QA out lost", percent=("drop",), grid=True),
            caption="<b>S against as many others.</b> Random ones are drawn outside S, means over "
            "draws. Isolate parameters are ranked highly by one task and not by the other.",
        ),
        Figure(
            "ablation_sufficient",
            data=Ablation.sufficient,
            schema=_SCHEMA,
            layers=(Bars("accuracy", "ablated"),),
            labels={"ablated": SUFFICIENT},
            height=1.6,
            x=Axis("QA out: answers exactly right (%)", percent=("accuracy",), grid=True),
            caption="<b>Is S enough?</b> θpre with the fine-tuned values of S alone, and a "
            "Stage-tuned model with those of the Mix-tuned model’s S; beside each, as many random "
            "parameters.",
        ),
    ),
    tables=(
        Table(
            "Points of QA out lost when a tensor with at least 1 % of S is reset whole, when only "
            "its members of S are, and when all of S but these are: mean ± s.d. over seeds.",
            data=Ablation.tensors,
            group="what",
            row="tensor",
            columns=(Column("", lambda rows, m, key: mean_sd(rows["drop"], points)),),
            labels={"what": {"tensor": "the whole tensor", "shared_in": "its members of S",
                             "shared_without": "S without them"}},
            head="Tensor",
        ),
    ),
    method="<p>S is that of {{ study.shared.influence }} influence. A control has as many "
    "parameters as S, or all that are left outside S. Differences are between the same answers of "
    "the same people; all but the first figure show the people that every ablation was evaluated "
    "on. Random sets are drawn outside S, {{ study.ablation.draws }} times.</p><p>The reading of "
    "influence was chosen after seeing what S cost; the paper’s claims are therefore judged for "
    "all readings. Version 1 of the paper names isolate parameters and does not reset them.</p>",
)  # fmt: skip
