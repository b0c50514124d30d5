"""The attention case study in the report: what one head attends to, and what its output says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from factrecall.experiments.case_study.tables import FORMATS, SHOWN
from factrecall.report.ledger import Claim
from factrecall.report.marks import Bars, Heat, Points
from factrecall.report.observations import mix_minus_stage
from factrecall.report.plots import Axis, Figure, Panel
from factrecall.report.section import Section
from factrecall.report.style import ROLE_COLOURS, plain
from factrecall.report.tables import MISSING, Column, Table

if TYPE_CHECKING:
    from factrecall.experiments.case_study.measures import CaseStudy

ROLE_LABELS = {
    "subject": "name, pronouns",
    "relation": "relation",
    "attribute": "attributes\nstated before",
    "start": "start token",
    "other": "everything else",
}
LONGEST = 12
"""Characters of a token."""

_SOURCE = "v1, section 4.2 and appendix A.7.2, figures 5, 18 and 19"


def _read(*fields: Any, **named: Any) -> CaseStudy:
    from factrecall.experiments.case_study.measures import CaseStudy

    return CaseStudy(*fields, **named)


def case_files(model: str) -> dict[str, str]:
    """Return the tables of a model's case study, below the results folder."""
    parts = {"": "case"} | {f".{n}": n for n in ("tokens", "attention", "logits", "looks")}
    return {name: f"case/{model}/case{part}.parquet" for part, name in parts.items()}


def mark_tokens(panel: Panel) -> None:
    """Name the queries, in the colour of their role."""
    rows = panel.rows.drop_duplicates("query").sort_values("query")
    texts = [
        f"{plain(row.query_text, LONGEST) or row.query_role} ({row.query})"
        for row in rows.itertuples()
    ]
    places = [place + 0.5 for place in range(len(texts))]
    panel.axes.set_yticks(places, texts, fontsize=6.3, parse_math=False)
    for label, role in zip(panel.axes.get_yticklabels(), rows["query_role"], strict=False):
        label.set_color(ROLE_COLOURS[role])


def same_rank(m: CaseStudy) -> str | None:
    """Say where the head has as high a rank in the Stage-tuned model."""
    mix, stage = (m.of(t)["shared_rank"] for t in ("mix", "stage"))
    if stage > mix:
        return None
    return (
        f"By its shared parameters this head is number {mix} in the Mix-tuned model and number "
        f"{stage} in the Stage-tuned one. The paper compares the two because it is 2 and 17 there."
    )


def no_trace_of_recall(m: CaseStudy) -> str | None:
    """Say where the fact is not one that only the Mix-tuned model recalls."""
    if m.of("mix")["right"] and not m.of("stage")["right"]:
        return None
    return (
        "No fact is, as in the paper, one that only the Mix-tuned model recalls: what differs "
        "between the two is then no trace of recall."
    )


CLAIMS = (
    Claim(
        id="case_study.more-alike",
        text=lambda m: (
            f"The attention of the {m.head} overlaps more between a fact's statement and "
            "question in the Mix-tuned model than in the Stage-tuned one."
        ),
        observe=lambda m: mix_minus_stage(m.overlap(), "same"),
        bound=0.02,
        why="2 points of attention are small compared with the spread between facts.",
        source=_SOURCE,
        quote="shown for one head and one fact, no number printed",
        compares_tunings=True,
    ),
    Claim(
        id="case_study.names-the-person",
        text=lambda m: (
            f"The {m.head} has part of the person’s name among its likeliest tokens in "
            "more prompts of one fact in the Mix-tuned than in the Stage-tuned model."
        ),
        observe=lambda m: mix_minus_stage(m.names(), "named"),
        why="Zero: the name is among the likeliest tokens or not, so that any difference counts.",
        source=_SOURCE,
        quote="in both prompts against one",
        compares_tunings=True,
    ),
)

SECTION = Section(
    name="case_study",
    title="Case study",
    question="Does one attention head attend alike in statements and questions?",
    read=_read,
    files=lambda study, model: case_files(model),
    settings=lambda study, model: {
        "seed": study.training.seeds[0], "named": study.circuits.case.layer is not None,
    },
    figures=(
        Figure(
            "case",
            data=lambda m: m.cells(),
            schema={
                "tuning": "string", "format": "string", "query": "int32", "key": "int32",
                "query_text": "string", "key_text": "string", "query_role": "string",
                "key_role": "string", "weight": "float64",
            },
            row="format",
            col="tuning",
            layers=(
                Heat("weight", "query", "key", power=0.5, numbers=0, colours="Greys",
                     bar="of a token’s attention (%)"),
            ),
            labels={"format": FORMATS},
            height=lambda rows: 0.4 + 0.112 * max(4, rows["query"].nunique()),
            x=Axis("attends to token", ("weight",)),
            share_x=False,
            share_y="row",
            annotate=mark_tokens,
            caption="<b>What the head attends to</b> ({{ m.title }}; seed {{ m.settings.seed }}). "
            "A row is a token; darker is more. After the last one the attribute follows; shown are "
            f"the {SHOWN} it attends to most. Blue: name, brown: relation, violet: attribute.",
        ),
        Figure(
            "looks",
            data=lambda m: m.by_role(),
            schema={
                "tuning": "string", "format": "string", "role": "string", "mean": "float64",
                "low": "float64", "high": "float64", "facts": "int32", "case": "float64",
            },
            row="format",
            layers=(
                Bars("mean", "role", low="low", high="high", points=False,
                     interval="middle half of the facts"),
                Points("case", "role", "the case above", "tuning",
                       look={"marker": "D", "s": 14, "clip_on": False}),
            ),
            labels={
                "format": {"bio": "Statement (BIO)", "qa": "Question (QA)"}, "role": ROLE_LABELS
            },
            height=lambda rows: 0.5 + 0.36 * rows["role"].nunique(),
            x=Axis("of the last token’s attention (%)", ("mean", "low", "high", "case"),
                   limits=(0, 112), ticks=range(0, 101, 25), grid=True),
            caption="<b>Whether the case is typical.</b> The same head over all facts that masks "
            "were fitted to: the last token’s attention by the role of the token attended to. A "
            "question states no attributes.",
        ),
    ),
    claims=CLAIMS,
    trust=(same_rank, no_trace_of_recall),
    tables=(
        Table(
            "Logit lens of the head’s output at the last token: the likeliest tokens, and, at "
            "their ranks, the answer’s first token and those of the name (subject).",
            data=lambda m: m.lens(),
            row="rank",
            across="prompt",
            columns=(Column("", lambda rows, m, key: ", ".join(rows["text"]) or MISSING),),
            head="Rank",
            wide=True,
        ),
    ),
    method="<p>The head has most shared parameters in the Mix-tuned model’s output projections "
    "(or the configuration names it), which favours that side. The fact is the first, universities "
    "before others, that only the grafted Mix-tuned model recalls.</p>\n<p>Alike: of the last "
    "token’s attention, but for the token that begins every text, the part that goes to the same "
    "roles in both prompts. The logit lens applies the last norm and the output head to the head’s "
    "own output.</p>",
)  # fmt: skip
