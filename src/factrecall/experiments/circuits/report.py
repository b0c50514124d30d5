"""Circuits in the report: which nodes of a grafted model recall runs through."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from factrecall.experiments.circuits import caveats, views
from factrecall.experiments.circuits.claims import claims
from factrecall.experiments.circuits.drawing import maps, projections, strips, sweeps
from factrecall.experiments.circuits.tables import MLP, PEOPLE
from factrecall.report.marks import Heat
from factrecall.report.plots import Axis, Figure
from factrecall.report.section import Caveats, Section, Text
from factrecall.report.tables import Table
from factrecall.runs import kinds_of

if TYPE_CHECKING:
    from factrecall.config.study import Study
    from factrecall.experiments.circuits.measures import Circuits


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


# --- the section ------------------------------------------------------------------------------


def _attention(m: Circuits) -> bool:
    return "attention" in m.kinds


def _mlp(m: Circuits) -> bool:
    return bool(m.mlp)


SECTION = Section(
    name="circuits",
    title="Circuits",
    read=_read,
    tables=("interventions", "circuits", "heads", "continuity", "sweeps", "grafting",
            "grafting_checks"),
    files=_files,
    settings=lambda study, model: {
        "kind": _kind(study),
        "random_orders": study.circuits.random_orders,
        "recovery": study.grafting.target_recovery,
        "seed": study.training.seeds[0],
    },
    body=(
        Text(
            "<p>Which parts of the model does recall run through? The grafted model (mask fitted "
            "to QA out) is taken apart node by node. Forward, none of a kind of nodes is grafted "
            "at first, and nodes are grafted one after the other. Backward, all are, and nodes are "
            "reset to θpre. Everything else stays grafted. Completeness is accuracy over that of "
            "the whole grafted model, on the questions that the mask was fitted to"
            "{% if study.circuits.individuals %} (those of {{ study.circuits.individuals }} people "
            "at most){% endif %}. The paper studies Mix-tuned models; Stage-tuned ones are shown "
            "for comparison. If S lies in the nodes that matter, ranking nodes by shared "
            "parameters beats ranking them by grafted parameters{% if m.settings.random_orders %} "
            "and at random{% endif %}.</p>"
        ),
        Caveats(caveats.grafted_models),
        Text(
            "<h4>Attention heads</h4>\n<p>A node is one head’s slice of the query, key, value or "
            "output projection.</p>",
            when=_attention,
        ),
        Caveats(caveats.attention),
        sweeps(
            "circuits_attention",
            ("attention",),
            "<b>Which heads are enough, and which are needed.</b> Lines are means over seeds"
            "{% if m.settings.random_orders > 1 %} (at random: and over "
            "{{ m.settings.random_orders }} orders){% endif %}; bands go from the least to the "
            "most of all. Above, the steeper a line rises the fewer nodes are enough. In the "
            "middle, the steeper it falls the more the first nodes are needed. The dotted line is "
            "completeness with no head grafted: only what is above it comes from heads, and <b>the "
            "axis does not begin at zero</b>. Below: how much of S and γ in attention the first "
            "nodes by shared parameters hold. Above 100&nbsp;% a part answers more than the whole.",
        ),
        Table("", data=partial(views.numbers, "attention")),
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
                    "shared mix": "S, Mix-tuned",
                    "grafted mix": "γ, Mix-tuned",
                    "shared stage": "S, Stage-tuned",
                    "grafted stage": "γ, Stage-tuned",
                }
            },
            height=lambda rows: min(0.95, max(0.32, 0.05 * rows["layer"].nunique())) + 0.3,
            x=Axis("heads of each projection", ("part",)),
            y=Axis("layer"),
            annotate=projections,
            when=_attention,
            alt="Heat maps of the share of S and of γ in each attention node, by layer, projection "
            "and head; the table below holds the nodes with most.",
            caption="<b>Where S and γ are in attention.</b> Each cell is a node: its share of all "
            "that is in attention, mean over seeds. Layers go down from 0, the heads of each "
            "projection from left to right (in brackets how many). Colours follow a root, so that "
            "little can be told from nothing. Where one projection of one layer is dark "
            "throughout, S tells tensors apart, not heads.",
        ),
        Table("", data=views.top_heads),
        Text(
            "<h4>MLP nodes</h4>\n<p>Here the nodes are {{ m.labels(*m.mlp) }}: the paper’s neurons "
            "are columns of the gate, up and down matrices; a unit is a row of the matrices into "
            "the MLP with its column of the one out of it.</p>",
            when=_mlp,
        ),
        Caveats(caveats.mlp),
        sweeps(
            "circuits_mlp",
            MLP,
            "<b>Which neurons are enough, and which are needed.</b> As the figure of heads. In the "
            "paper completeness rises until nearly all neurons are grafted, and ranking by shared "
            "parameters is ahead of {% if m.settings.random_orders %}the other two{% else %}that "
            "by grafted parameters{% endif %} early on. The axis does not begin at zero.",
        ),
        *(Table("", data=partial(views.numbers, kind)) for kind in MLP),
        Text(
            "<h4>Continuity</h4>\n<p>If the MLP is a store of facts, an attribute that is once "
            "right stays right while more of its nodes are grafted.{% if not m.mlp %} No nodes of "
            "the MLP were intervened on here; what is shown is of {{ m.labels(m.lasting) }}."
            "{% endif %}</p>",
            when=lambda m: m.lasting is not None,
        ),
        Caveats(caveats.always_right),
        Figure(
            "continuity",
            data=lambda m: m.strip(),
            schema={"individual": "int32", "relation": "string", "step": "int32",
                    "nodes": "int32", "right": "bool", "grafted": "bool"},
            layers=(),
            annotate=strips,
            when=lambda m: m.lasting is not None,
            height=lambda rows: 0.6 + 0.18 * len(rows.drop_duplicates(["individual", "relation"]))
            + 0.18 * rows["individual"].nunique(),
            titles=lambda key, m: f"Right as {m.labels(m.settings['kind'])} are grafted",
            x=Axis("nodes grafted (% of all; small ticks: steps)", ticks=range(0, 101, 25)),
            alt="Lines of the steps at which attributes of the first people are answered "
            "correctly; the table below holds the ratios over all of them.",
            caption="<b>When a fact is answered correctly.</b> The forward sweep over "
            "{{ m.labels(m.lasting) }} ranked by shared parameters, Mix-tuned, seed "
            "{{ m.settings.seed }}. A line is thick from the first to the last of every stretch of "
            "steps at which the fact is right; small ticks below are the steps, where there are "
            "few enough to tell apart. The mark at the right is the whole grafted model’s answer. "
            f"These are all facts of the first {PEOPLE} people in the table of questions who have "
            "any of them right at any step.",
        ),
        Table("", data=views.continuity),
        Text(
            '<p class="small">Shuffled: at every step answers are exchanged between the people of '
            "one relation, which keeps every curve and ends everybody’s continuity. Ratios near "
            "these would mean that facts come and go. Only later right: the only ones that the "
            "nodes can have brought.</p>",
            when=lambda m: m.lasting is not None,
        ),
        Table("", data=views.grids),
    ),
    claims=claims,
)  # fmt: skip
