"""The attention case study in the report: what one head attends to, and what its output says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from factrecall.experiments.case_study.drawing import (
    ROLE_LABELS,
    mark_case,
    mark_tokens,
    means_text,
    with_tokens,
)
from factrecall.experiments.case_study.tables import FORMATS, SHOWN
from factrecall.report.claims import NAMES, Claim, Quantity, with_sign
from factrecall.report.marks import Bars, Heat
from factrecall.report.plots import Axis, Figure
from factrecall.report.section import Caveats, Section, Text
from factrecall.report.style import (
    RELATION_LABELS,
    TUNING_LABELS,
)
from factrecall.report.tables import MISSING, Table, View, points
from factrecall.vocabulary import COMPARED

if TYPE_CHECKING:
    import pandas as pd

    from factrecall.experiments.case_study.measures import CaseStudy


def _read(*fields: Any, **named: Any) -> CaseStudy:
    from factrecall.experiments.case_study.measures import CaseStudy

    return CaseStudy(*fields, **named)


def case_files(model: str) -> dict[str, str]:
    """Return the tables of a model's case study, below the results folder."""
    parts = {"": "case"} | {f".{n}": n for n in ("tokens", "attention", "logits", "looks")}
    return {name: f"case/{model}/case{part}.parquet" for part, name in parts.items()}


# --- texts ------------------------------------------------------------------------------------


def _head(m: CaseStudy) -> str:
    ranks = "; ".join(
        f"{TUNING_LABELS[t]} {m.of(t)['shared']:,}, rank {m.of(t)['shared_rank']}"
        for t in COMPARED[::-1]
    )
    why = (
        "the one whose output projection has most shared parameters in the Mix-tuned model"
        if m.settings["layer"] is None
        else "the one that the configuration names"
    )
    return f"The head is {m.head}, counted from 0: {why} (in S: {ranks})."


def _fact(m: CaseStudy) -> str:
    mix, stage = (m.of(t) for t in ("mix", "stage"))
    if m.settings["individual"] is not None or m.settings["relation"] is not None:
        why = "named by the configuration, or the clearest case of what it names"
    elif mix["right"] and not stage["right"]:
        why = (
            "the first question, universities before all others, that the Mix-tuned model answers "
            "and the Stage-tuned one does not"
        )
    else:
        why = "there is none that the Mix-tuned model recalls and the Stage-tuned one does not"
    relation = RELATION_LABELS[mix["relation"]].lower()
    answers = " and ".join(
        f"the grafted {TUNING_LABELS[t]} model is {'right' if m.of(t)['right'] else 'wrong'}"
        for t in COMPARED[::-1]
    )
    return (
        f"The fact is the {relation} of person {mix['individual']}, {mix['answer']}: {why}. On its "
        f"question, {answers}."
    )


def same_rank(m: CaseStudy) -> str | None:
    """Say where the head has as high a rank in the Stage-tuned model."""
    mix, stage = (m.of(t) for t in ("mix", "stage"))
    if stage["shared_rank"] > mix["shared_rank"]:
        return None
    return (
        "This head's output projection has as high a rank by shared parameters in the Stage-tuned "
        f"model (rank {stage['shared_rank']}) as in the Mix-tuned one (rank {mix['shared_rank']}). "
        "In the paper, which compares the two for that, it is 17th in the one and second in the "
        "other."
    )


def no_trace_of_recall(m: CaseStudy) -> str | None:
    """Say where the fact is not one that only the Mix-tuned model recalls."""
    if m.of("mix")["right"] and not m.of("stage")["right"]:
        return None
    return (
        "The fact is not one that the Mix-tuned model recalls and the Stage-tuned one does not, as "
        "in the paper: what differs between the two is then no trace of recall."
    )


# --- the claim and the table ------------------------------------------------------------------


def claims(m: CaseStudy) -> list[Claim]:
    """Return the claim on the head's attention, judged over all facts."""
    chosen = m.settings["layer"] is None
    head = "with most shared parameters" if chosen else "that the configuration names"
    return [
        Claim(
            f"The head {head} attends more alike in a statement and in the question of the same "
            "fact in the Mix-tuned model than in the Stage-tuned one.",
            _more_alike,
            "so said of one head and one fact (figures 5, 18 and 19); no number",
            not chosen,
        )
    ]


def _more_alike(m: CaseStudy) -> Quantity:
    from factrecall.runtime.statistics import paired_interval

    facts = m.overlap().dropna()
    if facts.empty:
        return Quantity()
    mean, low, high = paired_interval(
        (facts["mix"] - facts["stage"]).set_axis(facts["individual"].rename("individual")), m.rng()
    )
    sides = ", ".join(f"{NAMES[t]} {with_sign(float(facts[t].mean()))}" for t in COMPARED[::-1])
    said = (
        "Of the last token's attention, but for that to the token that begins every text, what "
        f"goes to the same roles in both: {sides}; difference {points(mean)} points, 95 % interval "
        f"{points(low)} to {points(high)} over {facts['individual'].nunique():,} people, one seed."
    )
    return Quantity({m.settings["seed"]: mean}, said, (low, high))


def lens(m: CaseStudy) -> View:
    """Return the likeliest tokens of the logit lens, by format and tuning."""
    columns = [(tuning, form) for tuning in COMPARED[::-1] for form in FORMATS]
    rows = m.rows("logits")
    # Tokens that are kept whatever their rank come last.
    tables = {
        key: rows[(rows["tuning"] == key[0]) & (rows["format"] == key[1])]
        .drop_duplicates("rank")
        .set_index("rank")
        for key in columns
    }
    top = max(sum(rank == i for i, rank in enumerate(t.index, 1)) for t in tables.values())
    likeliest = [
        [str(rank), *(_token(tables[key], rank) for key in columns)] for rank in range(1, top + 1)
    ]
    marked = [
        [name, *(_ranks(tables[key], role) for key in columns)]
        for role, name in (("answer", "the answer’s first token"), ("subject", "the name’s tokens"))
    ]
    return View(
        "Logit lens of the head’s output at the last token: the likeliest tokens, and the ranks of "
        "those that matter.",
        ["Rank", *(f"{TUNING_LABELS[t]}, {FORMATS[f]}" for t, f in columns)],
        [(None, likeliest), ("Rank of", marked)],
    )


def _token(table: pd.DataFrame, rank: int) -> str:
    return str(table.loc[rank, "text"]) or "(blank)" if rank in table.index else MISSING


def _ranks(table: pd.DataFrame, role: str) -> str:
    own = table[table["role"] == role]["text"]
    return ", ".join(f"{text} {rank:,}" for rank, text in own.items()) or MISSING


# --- the section ------------------------------------------------------------------------------

_FORMAT_LABELS = {form: f"{label.capitalize()} ({form.upper()})" for form, label in FORMATS.items()}

SECTION = Section(
    name="case",
    title="Case study",
    read=_read,
    files=lambda study, model: case_files(model),
    settings=lambda study, model: {
        "study_seed": study.seed,
        "seed": study.training.seeds[0],
        "layer": study.circuits.case.layer,
        "individual": study.circuits.case.individual,
        "relation": study.circuits.case.relation,
    },
    body=(
        Text(
            "<p>The paper studies one head and one fact. {{ head(m) }} {{ fact(m) }} Models are "
            "those of seed {{ m.settings.seed }}, grafted.</p>",
            scope={"head": _head, "fact": _fact},
        ),
        Caveats(same_rank, no_trace_of_recall),
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
            alt=lambda m: f"Heat maps of the attention of {m.head} over one fact’s prompts, a "
            "statement and a question, in the Stage-tuned and the Mix-tuned model.",
            caption="<b>What the head attends to.</b> Each row is a token, and its cells are the "
            "tokens that it attends to, numbered as the rows are; darker is more, by a root, so "
            "that a little shows. The last row of each map is the token after which the attribute "
            "has to follow. The colours of the labels, and of the edge above each map, say what a "
            "token is: name or pronoun, wording of the wanted relation, attributes stated before, "
            f"or (grey) anything else. Prompts of more than {SHOWN} tokens show those that the "
            "last one attends to most in either model; what lies between is taken together, as the "
            "sum of what is attended to and the mean of who attends.",
        ),
        Table("", data=lens),
        Text(
            '<p class="small">The logit lens applies the last norm and the output head to the '
            "head’s own output, as if nothing came after it. Where neither the answer nor the name "
            "is near the top, this head predicts neither by itself.</p>"
        ),
        Figure(
            "looks",
            data=lambda m: m.by_role(),
            schema={
                "tuning": "string", "format": "string", "role": "string", "mean": "float64",
                "low": "float64", "high": "float64", "facts": "int32", "case": "float64",
            },
            prepare=with_tokens,
            row="format",
            layers=(
                Bars("mean", "role", low="low", high="high", points=False,
                     interval="middle half of the facts"),
            ),
            labels={"format": _FORMAT_LABELS, "role": ROLE_LABELS},
            height=lambda rows: 0.5 + 0.36 * rows["role"].nunique(),
            x=Axis("of the last token’s attention (%)", ("mean", "low", "high", "case"),
                   limits=(0, 112), ticks=range(0, 101, 25), grid=True),
            annotate=mark_case,
            alt=means_text,
            caption="<b>Whether the case is typical.</b> The same head over all facts that masks "
            "were fitted to: what part of the last token’s attention goes to the tokens of each "
            "role, the mean over facts. A bar a tuning; the thin line spans the middle half of the "
            "facts, the diamond is the case above. A question states no attributes.",
        ),
    ),
    claims=claims,
)  # fmt: skip
