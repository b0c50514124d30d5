"""Circuits in the report: which nodes of a grafted model recall runs through."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from factrecall.experiments.circuits.claims import HIGH, claims
from factrecall.experiments.circuits.drawing import maps, strips, sweeps
from factrecall.experiments.circuits.tables import MLP, PEOPLE
from factrecall.experiments.grafting.report import OBJECTIVES
from factrecall.report.marks import Heat
from factrecall.report.observations import where
from factrecall.report.plots import Axis, Figure
from factrecall.report.section import Section
from factrecall.report.style import KIND_LABELS, TUNING_LABELS
from factrecall.report.tables import count, percent
from factrecall.runs import kinds_of

if TYPE_CHECKING:
    from factrecall.config.study import Study
    from factrecall.experiments.circuits.measures import Circuits

GAINED = 0.1
"""From which share on of the questions that were wrong a mask has learnt answers itself."""

ENOUGH_ORDERS = 5
"""Of fewer random orders the mean says little of what a random order does."""


def _read(*fields: Any, **named: Any) -> Circuits:
    from factrecall.experiments.circuits.measures import Circuits

    return Circuits(*fields, **named)


def _kind(study: Study) -> str:
    """Return the kind of nodes whose continuity is shown: the MLP's if there is one."""
    kinds = kinds_of(study)
    return next((kind for kind in kinds if kind in MLP), kinds[0])


def _files(study: Study, model: str) -> dict[str, str]:
    stem = f"circuits/{model}/mix/seed{study.training.seeds[0]}.{_kind(study)}.shared"
    return {"sweep_steps": f"{stem}.parquet", "sweep_questions": f"{stem}.questions.parquet"}


def masks_learn(m: Circuits) -> list[str]:
    """Say in what the grafted models are not the fine-tuned ones they stand for."""
    said, gained, others, whole = (
        [],
        m.mask("newly_correct"),
        m.mask("held_out_people"),
        m.fine_tuned(),
    )
    if gained > GAINED:
        said.append(
            f"The masks give {percent(gained)} % of the answers that the fine-tuned Mix-tuned "
            "model has wrong: a circuit is in part what its mask learnt."
        )
    if others < HIGH * whole:
        said.append(
            f"Of people the masks were not fitted to, grafted models recall {percent(others)} %, "
            f"fine-tuned ones {percent(whole)} %: these are no circuits of recall at large."
        )
    return said


def masks_used(m: Circuits) -> list[str]:
    """Say what the masks are that are taken apart, and whether held-out people recover."""
    masks, said = m.masks(), []
    for objective, rows in masks.groupby("objective", sort=True):
        back = rows["held_out_recovery"].mean()
        passed = (rows["held_out_recovery"] >= m.settings["recovery"]).all()
        held_out = "nobody was held out to test them"
        if back == back:
            verb = "recover" if passed else "do not recover"
            held_out = f"held-out people {verb} with them ({percent(back)} % of their recall)"
        said.append(
            f"Of {len(masks)} grafted models (Mix- and Stage-tuned), {len(rows)} have masks fitted "
            f"to {OBJECTIVES[objective]}: {held_out}."
        )
    return said


def one_tensor(m: Circuits) -> str | None:
    """Say where S in attention lies in one tensor, so that its order is not one of heads."""
    places = where(m.places(), tuning="mix", chosen="shared")
    tensors = places.groupby(["layer", "projection"])["part"].sum()
    if not tensors.max() > HIGH:
        return None
    layer, projection = tensors.idxmax()
    return (
        f"{percent(tensors.max())} % of S in attention is in projection {projection} of layer "
        f"{layer}. Ranking by shared parameters tells tensors apart rather than heads."
    )


def random_orders(m: Circuits) -> str | None:
    """Say where random orders are few, but there are some."""
    orders = m.settings["random_orders"]
    if not 0 < orders < ENOUGH_ORDERS:
        return None
    drawn = f"{count(orders, 'order')} in each training run and kind of nodes"
    return f"At random: {drawn}. How much depends on the draw is hardly known."


def steps_left_out(m: Circuits) -> str | None:
    """Say where steps were left out, and how far off the lines between them are."""
    rows = m.rows("sweeps")
    if (rows["evaluated"] > rows["steps"]).all():
        return None
    worst = percent(float(rows["worst"].max()))
    return f"Not every step was evaluated. Steps that test the lines are up to {worst} points off."


_CAPTION = (
    "Lines are means over seeds{% if m.settings.random_orders > 1 %} and random orders{% endif %}, "
    "bands their range. The steeper a line rises (grafting) or falls (resetting), the more the "
    "first nodes do. Only what is above the dotted line comes from them."
)

SECTION = Section(
    name="circuits",
    title="Circuits",
    question="Does recall run through the attention heads and MLP neurons that hold most of S?",
    read=_read,
    reads=("interventions", "circuits", "heads", "continuity", "sweeps", "grafting",
           "grafting_checks"),
    files=_files,
    settings=lambda study, model: {
        "kinds": kinds_of(study),
        "lasting": _kind(study),
        "nodes": KIND_LABELS[_kind(study)],
        "recovery": study.grafting.target_recovery,
        "random_orders": study.circuits.random_orders,
        "seed": study.training.seeds[0],
    },
    figures=(
        sweeps("circuits_attention", ("attention",), f"<b>Attention heads.</b> {_CAPTION}"),
        Figure(
            "heads",
            data=lambda m: m.places(),
            schema={"tuning": "string", "chosen": "string", "layer": "int32",
                    "projection": "string", "head": "int32", "part": "float64"},
            prepare=maps,
            row="map",
            layers=(
                Heat("part", "layer", "node", power=0.5, numbers=0, colours="Purples",
                     most=lambda panel: float(panel.every["part"].max()) or 1.0,
                     bar="of all S, or γ, in attention (%)"),
            ),
            labels={
                "map": {
                    f"{chosen} {tuning}": f"{name}, {TUNING_LABELS[tuning]}"
                    for tuning in ("mix", "stage")
                    for chosen, name in (("shared", "S"), ("grafted", "γ"))
                }
            },
            height=lambda rows: min(0.95, max(0.32, 0.05 * rows["layer"].nunique())) + 0.3,
            x=Axis("head of the query (Q), key, value or output projection", ("part",)),
            y=Axis("layer"),
            when=lambda m: "attention" in m.settings["kinds"],
            caption="<b>Where S and γ are in attention.</b> A cell is a node: its share of all in "
            "attention, mean over seeds. Colours follow a root, so that little shows.",
        ),
        sweeps("circuits_mlp", MLP, f"<b>MLP nodes.</b> {_CAPTION}"),
        Figure(
            "continuity",
            data=lambda m: m.strip(),
            schema={"individual": "int32", "relation": "string", "step": "int32",
                    "nodes": "int32", "right": "bool", "grafted": "bool"},
            layers=(),
            annotate=strips,
            height=lambda rows: 0.3 + 0.15 * len(rows.drop_duplicates(["individual", "relation"])),
            x=Axis("nodes grafted (% of all)", limits=(-3, 103), ticks=range(0, 101, 25)),
            caption="<b>When a fact is right</b> (thick line) while {{ m.settings.nodes }} are "
            "grafted by shared parameters; Mix-tuned, seed {{ m.settings.seed }}. A tick or cross: "
            f"the whole grafted model. All facts of the first {PEOPLE} people with any right.",
        ),
    ),
    claims=claims,
    trust=(masks_used, masks_learn, one_tensor, random_orders, steps_left_out),
    method="<p>The grafted model is taken apart node by node. Its mask is of QA out: fitted to the "
    "fine-tuned model’s own answers if held-out people recover with it, else to gold answers. "
    "Forward, no node of a kind is grafted at first; they are then grafted one after the other. "
    "Backward, all are, and they are reset to θpre. Everything else stays grafted.</p>\n"
    "<p>Completeness is "
    "accuracy over that of the whole grafted model, on the questions that gold masks are fitted to"
    "{% if study.circuits.individuals %} (of {{ study.circuits.individuals }} people at most)"
    "{% endif %}. Nodes are heads of one projection, and columns of MLP matrices (the paper’s "
    "neurons) or hidden units. Continuity: the paper’s table 4, on forward sweeps by shared "
    "parameters.</p>",
)  # fmt: skip
