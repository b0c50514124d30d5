"""Recall in the report: accuracies by split and relation, the paper's beside, and the losses.

The module is long because a section is declared in one place: its claims, figures and captions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from factrecall.report.ledger import MOVES, Claim
from factrecall.report.marks import Bars, Heat, Lines, Reference
from factrecall.report.observations import minus, mix_minus_stage, observe, where
from factrecall.report.plots import Axis, Figure, Panel
from factrecall.report.published import published
from factrecall.report.section import Section, Source
from factrecall.report.style import RELATION_LABELS, TUNING_LABELS
from factrecall.report.tables import percent, points
from factrecall.runs import run_seeds
from factrecall.vocabulary import COMPARED, RELATIONS, TUNINGS

if TYPE_CHECKING:
    import pandas as pd

    from factrecall.config.study import Study

AVERAGE = "average"
HALF = len(RELATIONS) // 2
POINTS = 0.02
LOSS_POINTS = 150
"""How many points a line of losses has at most; each is a mean over a block of updates."""

_COLUMNS = ("All\nsix", "Birth\ndate", "Birth\ncity", "Univer-\nsity", "Job", "Em-\nployer",
            "Blood\ntype")  # fmt: skip


class Recall(Source):
    """One model's recall and its training; accuracies are shares of the answers."""

    def by_seed(self) -> pd.DataFrame:
        """Return the accuracy over all relations: columns tuning, seed, split, accuracy."""
        return _pooled(self.rows("recall"), ["tuning", "seed", "split"])

    def by_relation(self) -> pd.DataFrame:
        """Return accuracy on QA out by relation, the paper's too: source, tuning, relation.

        The average over all comes first.
        """
        import pandas as pd

        rows = where(self.rows("recall"), split="qa_out")
        every = pd.concat([rows.assign(relation=AVERAGE), rows])
        seeds = _pooled(every, ["tuning", "relation", "seed"])
        means = seeds.groupby(["tuning", "relation"], sort=False)["accuracy"].mean().reset_index()
        paper = [
            ("paper", tuning, relation, self.published(tuning, "qa_out", relation))
            for tuning in COMPARED
            for relation in (AVERAGE, *RELATIONS)
        ]
        theirs = pd.DataFrame(paper, columns=["source", *means]).dropna()
        # A model of another architecture is not drawn beside the paper's.
        whole = theirs.groupby("tuning")["relation"].transform("size") > 1
        whole &= self.published_model is not None
        return pd.concat([means.assign(source="here"), theirs[whole]])

    def published(self, tuning: str, split: str, relation: str = AVERAGE) -> float:
        """Return the accuracy that the paper has for its model, as a share; NaN: none."""
        wanted = None if relation == AVERAGE else relation
        value = published(self.paper, tuning, split, wanted)
        return math.nan if value is None else value / 100

    def mean(self, tuning: str, split: str) -> float:
        """Return the mean over seeds; NaN where there is none."""
        return float(where(self.by_seed(), tuning=tuning, split=split)["accuracy"].mean())

    def losses(self) -> pd.DataFrame:
        """Return losses by kind, a mean a block of updates; `progress`: the share of them done."""
        every = self.per_run("history").drop(columns="loss")
        every = every.rename(columns={"loss_bio": "bio", "loss_qa": "qa"})
        rows = every.melt(["tuning", "seed", "update"], ["bio", "qa"], "kind", "loss")
        rows["updates"] = rows.groupby(["tuning", "seed"])["update"].transform("max") + 1
        block = rows["update"] // -(-rows["updates"] // LOSS_POINTS)
        keys = ["tuning", "seed", "kind", "updates", block.rename("block")]
        means = rows.groupby(keys, sort=False)[["update", "loss"]].mean().reset_index()
        return means.eval("progress = (update + 0.5) / updates").dropna(subset="loss")

    def falls(self) -> pd.DataFrame:
        """Return how much less each person's second half of the biography is recalled (QA out)."""
        rows = where(self.per_run("answers"), split="qa_out")
        sign = rows["relation"].isin(RELATIONS[:HALF]) * 2 - 1
        rows = rows.assign(fall=sign * rows["correct"] / HALF)
        return rows.groupby(["tuning", "seed", "individual"])["fall"].sum().reset_index()

    def published_fall(self, tuning: str) -> float:
        """Return the same of the paper's numbers."""
        values = [self.published(tuning, "qa_out", relation) for relation in RELATIONS]
        return (sum(values[:HALF]) - sum(values[HALF:])) / HALF


def _pooled(rows: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    sums = rows.groupby(keys, sort=False)[["correct", "n"]].sum().reset_index()
    sums["accuracy"] = sums["correct"] / sums["n"]
    return sums[[*keys, "accuracy"]]


# --- claims -----------------------------------------------------------------------------------


def _accuracy(m: Recall, tuning: str, split: str) -> pd.DataFrame:
    return observe(m.per_run("answers"), "correct", tuning=tuning, split=split)


def _both(split: str) -> Callable[[Recall], Mapping[str, pd.DataFrame]]:
    return lambda m: {TUNING_LABELS[t]: _accuracy(m, t, split) for t in COMPARED}


def _least(split: str) -> Callable[[Recall], float]:
    return lambda m: min(m.published(tuning, split) for tuning in COMPARED)


def _fall(tuning: str) -> Callable[[Recall], pd.DataFrame]:
    return lambda m: observe(m.falls(), "fall", tuning=tuning)


def _claim(name: str, text: str, source: str, observe: Any, published: Any, **more: Any) -> Claim:
    more = {"bound": POINTS, "why": MOVES, **more}
    return Claim(
        id=f"recall.{name}", text=text, source=source, observe=observe, published=published, **more
    )


_STORED, _FALLS = "v1, section 2.2 and appendix A.3", "short paper, section 3 and figure 1"
_LEAST = "The lowest accuracy that the paper reports for any of its models."

CLAIMS = (
    _claim(
        "mix-recalls-more",
        "Mix-tuned models answer more of the questions they never saw than Stage-tuned ones.",
        "v1, section 2.2 and figure 1",
        lambda m: mix_minus_stage(m.per_run("answers"), "correct", split="qa_out"),
        lambda m: m.published("mix", "qa_out") - m.published("stage", "qa_out"),
        compares_tunings=True,
    ),
    _claim(
        "biographies-stored",
        "Stage-tuned and Mix-tuned models continue the biographies they learnt with nearly all "
        "attributes right.",
        _STORED, _both("bio"), _least("bio"), bound=0.887, why=_LEAST,
    ),
    _claim(
        "questions-learnt",
        "Stage-tuned and Mix-tuned models answer nearly all questions that they were trained on.",
        _STORED, _both("qa_in"), _least("qa_in"), bound=0.981, why=_LEAST,
    ),
    _claim(
        "nothing-forgotten",
        "The second stage lowers accuracy on biographies by less than 2 points.",
        "short paper, section 2.2 and figure 5",
        lambda m: minus(_accuracy(m, "bio", "bio"), _accuracy(m, "stage", "bio")),
        lambda m: m.published("bio", "bio") - m.published("stage", "bio"),
        comparison="less",
    ),
    _claim(
        "no-answers-without-questions",
        "BIO-tuned models, which were trained on no question, answer almost none.",
        "short paper, figure 5",
        lambda m: _accuracy(m, "bio", "qa_out"),
        lambda m: m.published("bio", "qa_out"),
        comparison="less", bound=0.028, why="The accuracy of the majority vote in the paper.",
    ),
    _claim(
        "stage-falls",
        "Stage-tuned models recall less of the last three sentences of a biography than of the "
        "first three.",
        _FALLS, _fall("stage"), lambda m: m.published_fall("stage"),
    ),
    _claim(
        "mix-does-not-fall",
        "In Mix-tuned models, recall falls by less than 2 points from the first three to the last "
        "three sentences of a biography.",
        _FALLS, _fall("mix"), lambda m: m.published_fall("mix"), comparison="less",
        quote="robust along the whole biography, though its own figure falls, too",
    ),
    _claim(
        "stage-falls-more",
        "From the first three to the last three sentences of a biography, recall falls more in "
        "Stage-tuned than in Mix-tuned models.",
        _FALLS,
        lambda m: minus(_fall("stage")(m), _fall("mix")(m)),
        lambda m: m.published_fall("stage") - m.published_fall("mix"),
        compares_tunings=True,
    ),
)  # fmt: skip

# --- how far to trust them --------------------------------------------------------------------


def second_stage_forgets(m: Recall) -> str | None:
    """Say where Stage-tuned models lose biographies, as the paper's do not."""
    before, after = m.mean("bio", "bio"), m.mean("stage", "bio")
    said = f"The second stage takes recall of biographies from {percent(before)} % to "
    said += f"{percent(after)} %: part of Mix-tuned models’ lead may be that they forget less."
    return said if before - after > POINTS else None


def answers_without_questions(m: Recall) -> str | None:
    """Say where BIO-tuned models answer questions, which they never trained on."""
    bio, stage, chance = (m.mean(t, "qa_out") for t in ("bio", "stage", "majority"))
    said = f"Before it is trained on questions, the BIO-tuned model answers {percent(bio)} % of "
    said += f"the unseen ones, the Stage-tuned model {percent(stage)} %. In the paper it is 0.2 %."
    return said if bio > chance + POINTS else None


def little_can_fall(m: Recall) -> str | None:
    """Say where recall falls more in Mix-tuned models, the reverse of the paper."""
    mix, stage = (float(where(m.falls(), tuning=t)["fall"].mean()) for t in ("mix", "stage"))
    said = (
        f"From the first to the last sentences recall falls by {points(mix)} points in Mix-tuned "
    )
    said += (
        f"and {points(stage)} in Stage-tuned models, the reverse of the paper. What is recalled "
    )
    said += f"less can fall less: Stage-tuned models recall {percent(m.mean('stage', 'qa_out'))} %."
    return said if mix > stage else None


# --- figures ----------------------------------------------------------------------------------


def headline(m: Recall) -> str:
    """Return the main result with its numbers."""
    mix, stage, chance = (percent(m.mean(t, "qa_out")) for t in ("mix", "stage", "majority"))
    return (
        f"Mix-tuned models get {mix} % of the questions they never saw right, Stage-tuned ones "
        f"{stage} %; a baseline that always gives the most frequent answer, {chance} %."
    )


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
    return {
        f"{key}/{tuning}/{seed}": f"models/{model}/{tuning}/seed{seed}.{suffix}.parquet"
        for key, suffix in (("history", "history"), ("answers", "recall"))
        for tuning in TUNINGS
        for seed in run_seeds(study)
    }


SECTION = Section(
    name="recall",
    title="Recall",
    question="Do models recall facts whose question they were never trained on?",
    read=Recall,
    reads=("recall",),
    files=_files,
    headline=headline,
    claims=CLAIMS,
    trust=(second_stage_forgets, answers_without_questions, little_can_fall),
    figures=(
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
            height=lambda rows: 0.28 * rows["tuning"].nunique() + 0.38,
            x=Axis("answers exactly right (%)", percent=("accuracy",), limits=(0, 118),
                   ticks=range(0, 101, 20), grid=True),
            legend_columns=3,
            caption="<b>How much is recalled.</b> Bars are means over seeds. The dashed line is "
            "chance: always giving the most frequent training answer of a relation.",
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
            height=lambda rows: 0.26 * rows["tuning"].nunique() + 0.35,
            x=Axis(percent=("accuracy",)),
            share_y=False,
            annotate=_set_average_apart,
            caption="<b>Which facts are recalled.</b> QA out in per cent, mean over seeds. "
            "Relations stand in the order of the biography. Majority vote is chance, which differs "
            "by relation.",
        ),
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
            caption="<b>How the losses fall.</b> One line a seed, each point a mean over a block "
            "of updates. Stage-tuned models see no biographies in their second stage, BIO-tuned "
            "ones no questions.",
        ),
    ),
    method="<p>An answer is right if it is exact. BIO: the biography is continued; everybody’s was "
    "trained on. QA in: questions trained on. QA out: questions that never were, about people "
    "whose biography was.</p><p>Claims are judged on each person’s accuracy in each training run; "
    "Mix-tuned and Stage-tuned models of a seed are paired. Along the biography relations change "
    "with their place, so that a fall may be due to either: a blood type is guessed more easily "
    "than a birth date.</p>",
)  # fmt: skip
