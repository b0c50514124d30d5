"""Ablation in the report: what a model still recalls when parameters are reset to θpre."""

from __future__ import annotations

from factrecall.experiments.ablation.claims import CLAIMS, too_small
from factrecall.experiments.ablation.measures import (
    CONTROLS,
    LITTLE,
    MAIN,
    OUT,
    SUFFICIENT,
    Ablation,
)
from factrecall.report.marks import Bars, Reference
from factrecall.report.observations import where
from factrecall.report.plots import Axis, Figure, Panel
from factrecall.report.section import Section
from factrecall.report.style import TUNING_LABELS
from factrecall.report.tables import Column, Table, mean_sd, percent, points

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
