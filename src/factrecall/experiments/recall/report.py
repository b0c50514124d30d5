"""Recall in the report: accuracies by split and relation, the paper's beside, and the losses."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

from factrecall.experiments.recall.measures import AVERAGE, HEADLINE_RULE, LOSS_POINTS, Recall
from factrecall.report.claims import listed, with_sign
from factrecall.report.marks import Bars, Heat, Lines, Reference
from factrecall.report.plots import Axis, Figure, Panel
from factrecall.report.published import LLAMA, PUBLISHED, published
from factrecall.report.section import Caveats, Headline, Section, Text
from factrecall.report.style import RELATION_LABELS, SPLIT_LABELS, TUNING_LABELS
from factrecall.report.tables import MISSING, NO_BREAK, Table, View, count, percent, points
from factrecall.vocabulary import TUNINGS

if TYPE_CHECKING:
    import pandas as pd

    from factrecall.config.study import Study

FORGETTING = 0.05
"""Recall of biographies that the second stage may cost before it counts as forgetting."""

_COLUMNS = ("All\nsix", "Birth\ndate", "Birth\ncity", "Univer-\nsity", "Job", "Em-\nployer",
            "Blood\ntype")  # fmt: skip


def second_stage_forgets(m: Recall) -> str | None:
    """Say where Stage-tuned models lose biographies, as the paper's do not."""
    before, after = m.mean("bio", "bio"), m.mean("stage", "bio")
    if not before - after > FORGETTING:
        return None
    return (
        f"The second stage also forgets: it takes recall of biographies from {with_sign(before)} "
        f"to {with_sign(after)} (in the paper from 98.7 % to 97.2 % for Llama). Part of the "
        "difference between the tunings is therefore loss of facts, which the paper rules out for "
        "its models."
    )


def answers_without_questions(m: Recall) -> str | None:
    """Say where BIO-tuned models answer questions, which they never trained on."""
    bio, stage = m.mean("bio", "qa_out"), m.mean("stage", "qa_out")
    if not bio > m.mean("majority", "qa_out") + FORGETTING:
        return None
    return (
        f"The BIO-tuned model answers {with_sign(bio)} of the unseen questions with no question of "
        f"the study trained on, {'more' if bio > stage else 'fewer'} than the Stage-tuned one (in "
        "the paper 0.2 %). The model it starts from has met questions, about other people."
    )


CAVEATS = Caveats(second_stage_forgets, answers_without_questions)


def headline(m: Recall) -> Headline:
    """Return what the page begins with."""
    from factrecall.runtime.statistics import DRAWS

    found, chance = m.headline, m.mean("majority", "qa_out")
    guess = "" if chance != chance else f"; the most frequent answer gives {with_sign(chance)}"
    return Headline(
        f"Mix-tuned models recall {with_sign(found.mix)} of the facts whose question they never "
        f"saw, Stage-tuned ones {with_sign(found.stage)} "
        f"({count(len(found.differences), 'seed')}{guess}).",
        "The paper’s claim that mixed training recalls more",
        found.verdict,
        f"Difference {points(found.mix - found.stage)} points, 95 % interval {points(found.low)} "
        f"to {points(found.high)} over {found.people:,} people; by seed "
        f"{listed(found.differences, points)}.",
        CAVEATS.said(m),
        f"{HEADLINE_RULE} The interval comes from {DRAWS:,} bootstrap samples of people with all "
        "their answers; it says how far other people would move the difference, while the "
        "differences by seed say how far another training run would.",
    )


def recall_view(m: Recall) -> View:
    """Return accuracy by split and tuning: mean, spread and, of several, every seed."""
    found = m.by_seed()
    several = found.groupby("tuning")["seed"].transform("nunique") > 1
    seeds = sorted(found.loc[several, "seed"].unique())
    groups: list[tuple[str | None, list[list[str]]]] = []
    for split, title in SPLIT_LABELS.items():
        rows = []
        for tuning, own in found[found["split"] == split].groupby("tuning", sort=False):
            accuracy = own.set_index("seed")["accuracy"].reindex(seeds)
            own_mean = [percent(own["accuracy"].mean()), percent(own["accuracy"].std())]
            rows.append([TUNING_LABELS[str(tuning)], *own_mean, *map(percent, accuracy)])
        groups.append((title, rows))
    return View(
        "Answers exactly right, in per cent, over all relations; s.d. is the sample standard "
        "deviation over seeds.",
        ["Tuning", "mean", "s.d.", *(f"seed{NO_BREAK}{seed}" for seed in seeds)],
        groups,
    )


def comparison_view(m: Recall) -> View:
    """Return this study's accuracies beside those of the paper's model."""
    found = m.by_seed().groupby(["tuning", "split"])["accuracy"].agg(["mean", "std"])
    rows = []
    for tuning, label in TUNING_LABELS.items():
        cells = []
        for split in SPLIT_LABELS:
            here, theirs = MISSING, published(m.paper, tuning, split)
            if (tuning, split) in found.index:
                mean, sd = map(percent, found.loc[(tuning, split)])
                here = mean if sd == MISSING else f"{mean} ± {sd}"
            cells += [here, MISSING if theirs is None else f"{theirs:.1f}"]
        rows.append([label, *cells])
    names = [label.partition(":")[0] for label in SPLIT_LABELS.values()]
    head = [f"{name}, {side}" for name, side in product(names, ("here", "paper"))]
    caption = "Answers exactly right, in per cent; here: mean ± s.d. over seeds."
    return View(caption, ["Tuning", *head], [(None, rows)])


def _sources(m: Recall) -> str:
    return "; ".join(sorted({r.source for r in PUBLISHED if r.model == m.paper and not r.relation}))


def _relations_alt(m: Recall) -> str:
    lines = []
    for (source, tuning), rows in m.by_relation().groupby(["source", "tuning"], sort=False):
        values = ", ".join(
            f"{RELATION_LABELS.get(r.relation, r.relation)} {percent(r.accuracy)}"
            for r in rows.itertuples()
        )
        where = "the paper" if source == "paper" else "this study"
        lines.append(f"{TUNING_LABELS[tuning]} ({where}): {values}")
    return f"Heat map of QA out in per cent. {'. '.join(lines)}."


def _losses_alt(m: Recall) -> str:
    last = m.losses().groupby(["tuning", "kind", "seed"], sort=False).last()
    final = last.groupby(["tuning", "kind"], sort=False)["loss"].mean()
    names = {"bio": "biographies", "qa": "questions"}
    values = (f"{TUNING_LABELS[t]}, {names[k]}: {loss:.3g}" for (t, k), loss in final.items())
    return f"Loss curves. Mean loss at the end of training: {'; '.join(values)}."


def _chance(panel: Panel) -> float:
    return 100 * float(panel.measures.mean("majority", panel.key["split"]))


def _number_of_updates(panel: Panel) -> None:
    """Add to the legend how many updates each tuning has."""
    for tuning, updates in panel.every.groupby("tuning")["updates"].first().items():
        label = panel.label("tuning", tuning)
        panel.legend[f"{label} ({updates:,} updates)"] = panel.legend.pop(label)


def _set_average_apart(panel: Panel) -> None:
    panel.axes.axvline(1, color="white", linewidth=5)


def _files(study: Study, model: str) -> dict[str, str]:
    runs = [(t, s, f"models/{model}/{t}/seed{s}") for t in TUNINGS for s in study.training.seeds]
    kinds = {"history": "history", "answers": "recall"}
    return {
        f"{key}/{tuning}/{seed}": f"{path}.{suffix}.parquet"
        for key, suffix in kinds.items()
        for tuning, seed, path in runs
    }


def _per_tuning(rows: pd.DataFrame) -> int:
    return int(rows["tuning"].nunique())


SECTION = Section(
    name="recall",
    title="Recall",
    read=Recall,
    tables=("recall",),
    files=_files,
    settings=lambda study, model: {"seed": study.seed},
    headline=headline,
    body=(
        Figure(
            "recall",
            data=Recall.by_seed,
            schema={"tuning": "string", "seed": "int32", "split": "string", "accuracy": "float64"},
            prepare=lambda data, m: data[data["tuning"] != "majority"],
            row="split",
            layers=(
                Bars("accuracy", "tuning"),
                Reference(_chance, "chance", "majority vote", axis="x"),
            ),
            height=lambda rows: 0.28 * _per_tuning(rows) + 0.38,
            x=Axis("answers exactly right (%)", percent=("accuracy",), limits=(0, 118),
                   ticks=range(0, 101, 20), grid=True),
            legend_columns=3,
            alt="Bars of accuracy by split and tuning; the table below holds the numbers.",
            caption="<b>How much is recalled.</b> Bars and numbers are means over seeds, points "
            "are seeds, the thin line spans the lowest to the highest seed. The dashed line is "
            "chance: always giving the most frequent training answer of a relation. BIO: the "
            "biography is continued, everybody’s was trained on. QA in: questions that were "
            "trained on. QA out: questions that never were, about people whose biography was; only "
            "this tells recall from rote memory.",
        ),
        Table("", data=recall_view),
        Text(
            "<h4>The paper’s numbers</h4><p>The paper fine-tuned {{ m.paper }} on 10,000 people, "
            "with three seeds. A model of another size, trained on other people, will not reach "
            "the same heights: compare the order of the rows and the distance between Stage-tuned "
            "and Mix-tuned, not the values.</p>"
        ),
        Table("", data=comparison_view),
        Text(
            '<p class="small">Paper: arXiv 2505.16178. Read from {{ sources(m) }}. The short paper '
            "is a later text of the same title, on Llama alone. A dash: not published, or not "
            "measured.</p><h4>By relation</h4>",
            scope={"sources": _sources},
        ),
        Figure(
            "recall_by_relation",
            data=Recall.by_relation,
            schema={"source": "string", "tuning": "string", "relation": "string",
                    "accuracy": "float64"},
            row="source",
            layers=(Heat("accuracy", "tuning", "relation", write=".1f"),),
            labels={
                "source": {"here": "", "paper": ""},
                "relation": dict(zip((AVERAGE, *RELATION_LABELS), _COLUMNS, strict=True)),
            },
            titles=lambda key, m: "This study" if key["source"] == "here"
            else f"The paper: {m.published_model}",
            height=lambda rows: 0.26 * _per_tuning(rows) + 0.35,
            x=Axis(percent=("accuracy",)),
            share_y=False,
            annotate=_set_average_apart,
            alt=_relations_alt,
            caption="<b>Which facts are recalled.</b> QA out in per cent, mean over seeds; darker "
            "is better. Relations stand in the order of the biography, so that a row that fades to "
            "the right loses facts stated late. Majority vote is chance, which differs by "
            "relation: a blood type is guessed more easily than a birth date."
            "{% if m.paper == llama %} The paper’s two rows (short paper, figure 1) are of a much "
            "larger pre-trained model."
            "{% endif %}",
            scope={"llama": LLAMA},
        ),
        Text("<h4>Training</h4>"),
        Figure(
            "loss",
            data=Recall.losses,
            schema={"tuning": "string", "seed": "int32", "kind": "string", "progress": "float64",
                    "loss": "float64", "updates": "int32"},
            row="kind",
            layers=(Lines("progress", "loss", units="seed", mean=False),),
            labels={"kind": {"bio": "Loss of biographies", "qa": "Loss of questions"}},
            height=2.0,
            x=Axis("share of the run’s updates done (%)", percent=("progress",), limits=(0, 100),
                   grid=True),
            y=Axis("nats per token (log)", scale="log", write="{:g}".format, grid=True),
            share_y=False,
            annotate=_number_of_updates,
            alt=_losses_alt,
            caption="<b>How the losses fall.</b> One line a seed; each point is the mean over a "
            f"block of updates, at most {LOSS_POINTS} blocks a run. Runs differ in length, so that "
            "the axis is the share done. Stage-tuned models see no biographies and BIO-tuned "
            "models no questions, hence no such line. Pre-trained is the model before fine-tuning, "
            "which learns from other people. A model that guessed evenly among a thousand tokens "
            "would stand at 6.9.",
        ),
    ),
)  # fmt: skip
