"""Circuits in the report: which nodes of a grafted model recall runs through."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

from factrecall.experiments.circuits import caveats, views
from factrecall.experiments.circuits.claims import claims
from factrecall.experiments.circuits.tables import CURVE, MLP, PEOPLE
from factrecall.report.marks import Heat, Lines, Reference
from factrecall.report.plots import Axis, Figure, Panel
from factrecall.report.section import Caveats, Section, Text
from factrecall.report.style import COLOURS, GREY, KIND_LABELS, RANKING_LABELS, SMALL
from factrecall.report.tables import Table, percent
from factrecall.runs import kinds_of

if TYPE_CHECKING:
    import pandas as pd

    from factrecall.config.study import Study
    from factrecall.experiments.circuits.measures import Circuits

PROJECTIONS = "QKVO"

PANELS = {
    "forward": "grafting nodes:\ncompleteness (%)",
    "backward": "resetting nodes:\ncompleteness (%)",
    "held": "in these nodes:\nof S, of γ (%)",
}
LINES = {"completeness": "completeness", "shared_fraction": "of S", "grafted_fraction": "of γ"}

TELL_APART = 65
"""Up to so many steps the figure of continuity has a tick for each."""


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


# --- figures ----------------------------------------------------------------------------------


def _by_panel(data: pd.DataFrame, m: Circuits) -> pd.DataFrame:
    """Put completeness in a panel a direction, and what nodes ranked by S hold in another."""
    held = data["quantity"] != "completeness"
    chosen = ~held | ((data["direction"] == "forward") & (data["ranking"] == "shared"))
    panel = data["kind"] + " " + data["direction"].where(~held, "held")
    return data.assign(panel=panel)[chosen]


def _floor(panel: Panel) -> float | None:
    """Return the completeness with no node grafted, where a sweep begins (forward) or ends."""
    _, direction = panel.key["panel"].split()
    if direction == "held":
        return None
    end = panel.rows["share"] == (0 if direction == "forward" else 100)
    return float(panel.rows.loc[end, "mean"].mean())


def _limits(panel: Panel) -> None:
    kind, direction = panel.key["panel"].split()
    if direction == "held":
        line = panel.axes.plot([0, 100], [0, 100], color="#bbbbbb", linewidth=0.8, zorder=0)
        panel.legend["below: spread evenly"] = line[0]
        panel.axes.set_ylim(0, 104)
        return
    rows = panel.every
    rows = rows[rows["panel"].isin([f"{kind} forward", f"{kind} backward"])]
    low, high = float(rows["low"].min()), float(rows["high"].max())
    panel.axes.set_ylim(max(0.0, 10 * math.floor((low - 2) / 10)), max(104, 1.03 * high))
    if panel.rows.empty:
        panel.axes.text(50, low, "nothing recalled", ha="center", fontsize=SMALL)


def _sweeps(name: str, kinds: tuple[str, ...], caption: str) -> Figure:
    return Figure(
        name,
        data=lambda m: m.curves(*(kind for kind in kinds if kind in m.kinds)),
        schema=CURVE,
        prepare=_by_panel,
        row="panel",
        col="tuning",
        layers=(
            Lines("share", "mean", "ranking", "quantity", low="low", high="high"),
            Reference(_floor, "random", "none of them grafted"),
        ),
        labels={
            "panel": {
                f"{kind} {key}": f"{KIND_LABELS[kind]},\n{label}" if kind in MLP else label
                for kind in kinds
                for key, label in PANELS.items()
            },
            "quantity": LINES,
        },
        height=1.55,
        x=Axis("nodes so far (% of all)", ("share",), limits=(0, 100), ticks=range(0, 101, 25)),
        y=Axis(percent=("mean", "low", "high"), grid=True),
        share_y="row",
        annotate=_limits,
        alt=lambda m: _sweeps_alt(m, kinds),
        caption=caption,
        when=lambda m: bool({*kinds} & {*m.kinds}),
    )


def _sweeps_alt(m: Circuits, kinds: tuple[str, ...]) -> str:
    curves = m.curves(*(kind for kind in kinds if kind in m.kinds))
    rows = curves[(curves["tuning"] == "mix") & (curves["quantity"] == "completeness")]
    said = []
    for (kind, direction, ranking), line in rows.groupby(
        ["kind", "direction", "ranking"], sort=False
    ):
        middle = line.iloc[(line["share"] - 0.5).abs().argmin()]
        named = f"{KIND_LABELS[kind]}, {direction}, {RANKING_LABELS[ranking]}"
        said.append(f"{named}: {percent(float(middle['mean']))}")
    return (
        "Curves of completeness against the share of nodes intervened on. Mix-tuned, in per cent "
        f"at half of the nodes: {'; '.join(said) or 'nothing to show'}."
    )


def _maps(data: pd.DataFrame, m: Circuits) -> pd.DataFrame:
    """Return columns `map` and `node`: heads of all projections are numbered from left to right."""
    heads = data.groupby("projection")["head"].max() + 1
    first, place = 0, {}
    for projection in PROJECTIONS:
        place[projection], first = first, first + int(heads.get(projection, 0))
    return data.assign(
        map=data["chosen"] + " " + data["tuning"],
        node=data["projection"].map(place) + data["head"],
        part=data["part"].fillna(0.0),
    )


def _projections(panel: Panel) -> None:
    """Set the projections of a map apart, and number its layers."""
    rows, axes = panel.rows, panel.axes
    if rows.empty:
        return
    ends = rows.groupby("projection")["node"].agg(["min", "max"]).loc[list(PROJECTIONS)]
    for end in ends["max"][:-1]:
        axes.axvline(end + 1, color="#444444", linewidth=1)
    labels = [f"{p} ({row['max'] - row['min'] + 1})" for p, row in ends.iterrows()]
    axes.set_xticks((ends.sum(axis=1) + 1) / 2, labels)
    layers = range(0, rows["layer"].nunique(), max(1, -(-rows["layer"].nunique() // 4)))
    axes.set_yticks([layer + 0.5 for layer in layers], [str(layer) for layer in layers])
    axes.spines[:].set(visible=True, color="#bbbbbb", linewidth=0.7)


def _strips(panel: Panel) -> None:
    """Draw a line a fact, thick from the first to the last of every stretch of right steps."""
    import numpy as np

    axes, data = panel.axes, panel.rows
    if data.empty:
        return
    total = int(data["nodes"].max()) or 1
    place, ticks = 0, {}
    for person, own in data.groupby("individual", sort=False):
        ticks[place] = (f"person {person}", "bold")
        for relation in (r for r in panel.order("relation") if (own["relation"] == r).any()):
            place += 1
            fact = own[own["relation"] == relation].sort_values("step")
            ticks[place] = (panel.label("relation", relation), "normal")
            at, right = 100 * fact["nodes"].to_numpy() / total, fact["right"].to_numpy(dtype=bool)
            axes.plot([at[0], at[-1]], [place, place], color="#cccccc", linewidth=0.8, zorder=1)
            ends = np.flatnonzero(np.diff(np.concatenate([[False], right, [False]]).astype(int)))
            for begin, end in ends.reshape(-1, 2):
                # Of a single step there is no line, only the markers at its ends.
                axes.plot(
                    [at[begin], at[end - 1]], [place, place], color=COLOURS["mix"], linewidth=5,
                    marker="o", markersize=5, markeredgewidth=0, zorder=2,
                )  # fmt: skip
            sign, colour = ("✓", "#00684d") if fact["grafted"].iloc[0] else ("✗", GREY)
            axes.text(106, place, sign, ha="center", va="center", fontsize=9, color=colour)
        place += 1
    axes.set_yticks(list(ticks), [text for text, _ in ticks.values()])
    for label, (_, weight) in zip(axes.get_yticklabels(), ticks.values(), strict=True):
        label.set_fontweight(weight)
    steps = np.unique(data["nodes"].to_numpy(dtype=int))
    if len(steps) <= TELL_APART:
        axes.set_xticks(100 * steps / total, minor=True)
    axes.set_xlim(-3, 110)
    axes.set_ylim(place - 0.4, -0.8)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.text(106, -0.9, "all", ha="center", va="bottom", fontsize=SMALL)


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
        _sweeps(
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
            prepare=_maps,
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
            annotate=_projections,
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
        _sweeps(
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
            annotate=_strips,
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
