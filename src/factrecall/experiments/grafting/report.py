"""Grafting in the report: how few parameters bring recall back, and whether masks recur."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from factrecall.experiments.grafting.claims import claims
from factrecall.experiments.grafting.measures import Grafting, files
from factrecall.report.marks import Bars, Heat, Lines, Points, Reference
from factrecall.report.plots import Axis, Figure, Panel
from factrecall.report.section import Section
from factrecall.report.style import SPLIT_NAMES, TUNING_LABELS
from factrecall.report.tables import MISSING, Column, Table

if TYPE_CHECKING:
    import pandas as pd

_FLOOR = 0.01
"""A logarithm has no zero: less than a hundredth of the recall is drawn as this."""

LINES = {
    "with": "fitted, S may be in it",
    "without": "fitted, without S",
    "movement": "moved most, not fitted",
}
OBJECTIVES = {"gold": "gold answers", "distilled": "the fine-tuned model’s own answers"}
PEOPLE = {"fitted": "people gold masks are fitted to", "held_out": "held-out people"}
CHECKS = {
    "retained": "Retained: right, of what θtask has right",
    "newly_correct": "Newly correct: right, of what θtask has wrong",
    "shuffled": "Fitted to answers exchanged between people: right of them",
    "random": "Random mask of the size: accuracy",
    "overlap_runs": "In the mask fitted with another order of questions",
}


def trust(m: Grafting) -> list[str]:
    """Say what the masks' own numbers speak against."""
    means = m.checked().groupby("check")["value"].mean()
    said = []
    if means.get("shuffled", 0) > means.get("random", 1) + 0.1:
        said.append(
            f"Choosing parameters is a way to learn: fitted to answers exchanged between people, "
            f"which nobody was taught, masks get {100 * means['shuffled']:.0f} % of them right."
        )
    least = m.fitted()["alpha"].min()
    if (m.chosen["alpha"] <= least).any():
        said.append(f"The smallest size tried, {100 * least:g} %, was already enough in some runs.")
    if m.settings["optimiser"] == "dual_averaging":
        said.append("Smaller masks are fitted from the scores of larger ones: inclusion is easy.")
    return said


def _floored(data: pd.DataFrame, m: Grafting) -> pd.DataFrame:
    return data.assign(recovery=data["recovery"].clip(lower=_FLOOR))


def _listed(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows["listed"].astype(bool)]


def _alphas(column: str, rows: pd.DataFrame, m: Grafting, key: dict[str, Any]) -> str:
    known = rows[column].notna()
    shown = [f"{100 * a:.3g}" if there else MISSING
             for a, there in zip(rows[column], known, strict=True)]  # fmt: skip
    return " / ".join(shown) if known.any() else MISSING


def _share(rows: pd.DataFrame, panel: Panel) -> str:
    return f"{100 * rows['alpha'].mean():.3g} %"


def _room(panel: Panel) -> None:
    panel.axes.set_xlim(0, 1.4 * panel.axes.dataLim.xmax)
    panel.axes.locator_params(axis="x", nbins=4)


def _size_or_seed(value: float, panel: Panel) -> str:
    sizes = panel.key["panel"].startswith("inclusion")
    return f"{100 * value:g} %" if sizes else f"seed {value:g}"


def _matrix_title(key: dict[str, Any], m: Grafting) -> str:
    matrix, split = key["panel"].split()
    name = {"inclusion": "smaller in larger", "seeds": "across seeds"}[matrix]
    return f"{name} (%)\n{SPLIT_NAMES[split]}, {TUNING_LABELS[key['tuning']]}"


_SIZES = Axis(
    "α: grafted (%, log)",
    percent=("alpha",),
    scale="log",
    ticks=lambda rows: sorted(_listed(rows)["alpha"].unique()),
)
_RECOVERY = Axis("recovery (%, log)", percent=("recovery",), scale="log", grid=True,
                 write="{:g}".format)  # fmt: skip

SECTION = Section(
    name="grafting",
    title="Grafting",
    question="How few of the fine-tuned parameters bring recall back, and are they in S?",
    read=Grafting,
    reads=("grafting", "grafting_checks"),
    files=files,
    settings=lambda study, model: {
        "recovery": study.grafting.target_recovery, "optimiser": study.grafting.optimiser.method,
        "objectives": list(study.grafting.objectives),
    },
    claims=claims,
    trust=(trust,),
    figures=(
        Figure(
            "grafting",
            data=Grafting.lines,
            schema={"tuning": "string", "split": "string", "seed": "int32", "line": "string",
                    "alpha": "float64", "recovery": "float64", "chosen": "bool",
                    "listed": "bool"},
            prepare=_floored,
            row="split",
            col="tuning",
            layers=(
                Lines("alpha", "recovery", style="line", units="seed", markers=True, rows=_listed),
                Points("alpha", "recovery", "chosen size, a ring a seed",
                       rows=lambda rows: rows[rows["chosen"].astype(bool)].query("line == 'with'"),
                       look={"s": 60, "facecolor": "none", "edgecolor": "#000000", "linewidth": 1}),
                Reference(100, "whole", "as the fine-tuned model"),
                Reference(lambda panel: 100 * panel.measures.recovery, "enough",
                          lambda panel: f"enough: {100 * panel.measures.recovery:g} %"),
                Reference(lambda panel: 100 * max(panel.measures.nothing(**panel.key), _FLOOR),
                          "nothing", "nothing grafted"),
            ),
            labels={"line": LINES, "split": SPLIT_NAMES},
            height=2.1,
            x=_SIZES,
            y=_RECOVERY,
            caption="<b>How few parameters recover recall.</b> Masks fitted to gold answers. "
            "Recovery is accuracy over that of the fine-tuned model, on the people masks are "
            "fitted to; thick lines are means, thin ones seeds.",
        ),
        Figure(
            "grafting_objectives",
            data=Grafting.by_objective,
            schema={"tuning": "string", "split": "string", "seed": "int32", "objective": "string",
                    "people": "string", "alpha": "float64", "recovery": "float64",
                    "chosen": "bool", "listed": "bool"},
            prepare=_floored,
            row="split",
            col="tuning",
            layers=(
                Lines("alpha", "recovery", hue="objective", style="people", units="seed",
                      markers=True, rows=_listed),
                Reference(lambda panel: 100 * panel.measures.recovery, "enough",
                          lambda panel: f"enough: {100 * panel.measures.recovery:g} %"),
                Reference(lambda panel: 100 * max(panel.measures.nothing(**panel.key), _FLOOR),
                          "nothing", "nothing grafted"),
            ),
            labels={"objective": OBJECTIVES, "people": PEOPLE, "split": SPLIT_NAMES},
            palettes={"objective": {"gold": "#aa7700", "distilled": "#3366aa"}},
            height=2.1,
            x=_SIZES,
            y=_RECOVERY,
            caption="<b>Whether masks find recall or learn answers.</b> If a mask finds recall, "
            "held-out people’s line follows that of fitted people; if it learns answers, it stays "
            "at <i>nothing grafted</i>. No mask is fitted to held-out people’s questions.",
            when=lambda m: m.by_objective()["people"].eq("held_out").any(),
        ),
        Figure(
            "grafting_size",
            data=lambda m: m.chosen,
            schema={"tuning": "string", "split": "string", "seed": "int32", "alpha": "float64",
                    "size": "int64"},
            layers=(Bars("size", "split", note=_share),),
            labels={"split": SPLIT_NAMES},
            height=1.5,
            x=Axis("parameters in the chosen mask", write="{:,.0f}".format, grid=True),
            annotate=_room,
            empty="none chosen, or not measured",
            caption="<b>How many parameters that is.</b> The chosen masks, with their share of all "
            "parameters; only sizes that were tried. Where a model recalls little, little is "
            "enough.",
        ),
        Figure(
            "grafting_overlap",
            data=Grafting.overlaps,
            schema={"tuning": "string", "split": "string", "matrix": "string", "row": "float64",
                    "column": "float64", "alpha": "float64", "value": "float64"},
            prepare=lambda data, m: data.assign(
                panel=data["matrix"] + " " + data["split"]).sort_values("panel"),
            row="panel",
            col="tuning",
            layers=(Heat("value", "row", "column", names=_size_or_seed),),
            titles=_matrix_title,
            height=1.4,
            x=Axis(percent=("value",)),
            share_x=False,
            share_y=False,
            caption="<b>Whether masks recur.</b> How much of a smaller mask (row) is in a larger "
            "one (column), and of a seed's in another's at the largest size chosen. By chance it "
            "is about the α of the column.",
        ),
    ),
    tables=(
        Table(
            "The masks looked at, in per cent: the chosen ones or, where none was enough, those "
            "that recovered most. Mean ± s.d. over seeds; a single number is of the first seed.",
            data=Grafting.checked, row="check", group="split", columns=(Column("", "value"),),
            labels={"check": CHECKS, "split": SPLIT_NAMES}, head="Check",
        ),
        Table(
            lambda m: "Whether held-out people recover: α of the chosen mask by seed, recovery of "
            "held-out people with it (mean ± s.d.), and the smallest α that recovers "
            f"{100 * m.recovery:g} % of them. All in per cent.",
            data=Grafting.held_out_check, row="objective", group="split",
            columns=(
                Column(": α", partial(_alphas, "alpha")),
                Column(": held out", "held_out_recovery"),
                Column(": α for them", partial(_alphas, "smallest")),
            ),
            labels={"objective": {name: f"Fitted to {what}" for name, what in OBJECTIVES.items()},
                    "split": SPLIT_NAMES},
            head="Masks",
        ),
    ),
    method="<p>A mask of few parameters is grafted: they are as after fine-tuning, all others as "
    "before. It is fitted to gold answers to some people's questions. The chosen size is the "
    "smallest that recovers {{ '{:g}'.format(100 * m.recovery) }} % of what the fine-tuned model "
    "has right of these people. The same is done with S reset beforehand.</p>"
    "{% if 'distilled' in m.settings.objectives %}\n<p>Beside it, masks are fitted to the "
    "fine-tuned model’s own answers, right or wrong, to the questions of everybody but the "
    "held-out people. Their size is chosen by the same people as before.</p>{% endif %}",
)  # fmt: skip
