"""Gradient similarity in the report: whether both formats of a fact train the same parameters."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from factrecall.experiments.common.estimates import (
    SPLIT,
    TOGETHER,
    Estimate,
    apart,
    chosen,
    few_people,
    picked,
    signed_cosine,
    single,
    together,
    written,
)
from factrecall.experiments.gradient_similarity.tables import GRADIENT_SUMMARY
from factrecall.report.claims import NAMES, Claim, Quantity, listed, minus
from factrecall.report.marks import Estimates, Reference
from factrecall.report.plots import NOTHING, Axis, Figure, Panel
from factrecall.report.section import Caveats, Section, Source, Text
from factrecall.report.tables import Column, Table
from factrecall.vocabulary import COMPARED, PHASES

if TYPE_CHECKING:
    import pandas as pd

ABSTRACT = "so in the abstract of version 2; no number"

GROUPS = {
    "all": "all parameters",
    "S": "S",
    "random": "random, as many as S",
    "gamma": "γ",
    "rest": "neither S nor γ",
}
PAIRED = {"S - random": "S less random", "S - rest": "S less neither S nor γ"}
"""Differences within facts, which are no cosines and not drawn."""

KINDS = {
    "matched": "question on the same fact",
    "person": "on other people, same relation",
    "relation": "on the same person, other relations",
}
ABOVE = {
    "matched": "same fact",
    "matched - person": "… above other people",
    "matched - relation": "… above other relations",
}
BY_LAYER = "by layer"
_KIND = "matched - person"


class Gradients(Source):
    """One model's gradient similarities."""

    def moments(self) -> pd.DataFrame:
        """Return the rows of facts out with `progress`: phases done, 0 to 2 or 0 to 1."""
        return _with_progress(chosen(self.rows("gradients"), split=SPLIT))

    def over_training(self, tuning: str, group: str, kind: str) -> pd.DataFrame:
        """Return means over training, a row a seed and one of all seeds together.

        They are over the moments after the start, of both stages: columns seed, cosine, low, high.
        The bounds are the means of the moments' bounds, between which the mean's lie as a rule; if
        a moment has none, nor has the mean.
        """
        rows = chosen(self.moments(), tuning=tuning, group=group, kind=kind)
        rows = rows[rows["progress"] > 0]
        bounded = rows[["low", "high"]].notna().all(axis=1).groupby(rows["seed"]).transform("all")
        bounds = {end: rows[end].where(bounded) for end in ("low", "high")}
        by_seed = rows.assign(**bounds).groupby("seed", as_index=False)
        return by_seed[["cosine", "low", "high"]].mean()

    def mean(self, tuning: str, group: str, kind: str) -> Estimate:
        """Return the mean over training of all seeds together."""
        return together(self.over_training(tuning, group, kind), "cosine")

    def drawn(self) -> pd.DataFrame:
        """Return the cosines of all seeds together at every moment."""
        rows = chosen(self.moments(), seed=TOGETHER)
        return rows[rows["kind"].isin(KINDS) & ~rows["group"].isin(PAIRED)]


def _with_progress(rows: pd.DataFrame) -> pd.DataFrame:
    before = {phase: n for order in PHASES.values() for n, phase in enumerate(order)}
    return rows.assign(progress=rows["share"] + rows["phase"].map(before).astype(float))


def _ends(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows at the end of training."""
    return rows[rows["progress"] == rows.groupby("tuning")["progress"].transform("max")]


def _panels(data: pd.DataFrame, m: Gradients) -> pd.DataFrame:
    """Return rows by panel: groups over training, and at its end the layers and embeddings."""
    import pandas as pd

    rows = _with_progress(data)
    places = {group: int(group.removeprefix("layer ")) for group in rows["group"].unique()
              if group.startswith("layer ")}  # fmt: skip
    places["embeddings"] = -1
    training = rows[rows["group"].isin(GROUPS)]
    ends = _ends(rows[rows["group"].isin(places)])
    return pd.concat(
        [
            ends.assign(panel=BY_LAYER, layer=ends["group"].map(places), at_end=ends["cosine"]),
            training.assign(panel=training["group"], over_training=training["cosine"]),
        ]
    ).reset_index(drop=True)


def _ticks(panel: Panel) -> None:
    """Name the phases of training, and the places of the last row of panels."""
    axes = panel.axes
    if panel.key["panel"] == BY_LAYER:
        last = int(panel.every["layer"].max())
        step = 1 if last < 8 else max(2, last // 4)
        # The first layer's number has no room beside the embeddings where layers are many.
        shown = list(range(0 if step == 1 else step, last + 1, step))
        axes.set_xticks([-1, *shown], ["emb.", *map(str, shown)])
        axes.set_xlim(-1.5, last + 0.5)
        return
    names = ("start", "BIO end", "QA end") if panel.key["tuning"] == "stage" else ("start", "end")
    end = len(names) - 1
    if end > 1:
        axes.axvline(1, color="#bbbbbb", linewidth=1, zorder=0)
    axes.set_xlim(-0.05 * end, 1.05 * end)
    axes.set_xticks(range(end + 1), names)
    first, *_, last_label = axes.get_xticklabels()  # the outer ones stay within the panel
    first.set_horizontalalignment("left")
    last_label.set_horizontalalignment("right")


def _alt(m: Gradients) -> str:
    found = {NAMES[t]: m.mean(t, "all", _KIND) for t in COMPARED}
    return (
        "Cosines of the gradients of statements and questions, over training and by layer. Above "
        f"other people's, over training: {written(found, signed_cosine, '; ') or NOTHING}."
    )


def _training(rows: pd.DataFrame, m: Gradients, key: dict[str, Any]) -> str:
    return m.mean(key["tuning"], key["group"], key["kind"]).write(signed_cosine)


def _end(rows: pd.DataFrame, m: Gradients, key: dict[str, Any]) -> str:
    return together(_ends(rows), "cosine").write(signed_cosine)


# --- claims -----------------------------------------------------------------------------------


def _larger_in_mix(group: str, m: Gradients) -> Quantity:
    """Compare what the matched pair is above other people in both trainings."""
    sides = {t: m.over_training(t, group, _KIND) for t in ("mix", "stage")}
    found = minus(*(single(rows, "cosine") for rows in sides.values()))
    both = {NAMES[t]: together(rows, "cosine") for t, rows in sides.items()}
    each = written(both, signed_cosine)
    difference = apart(*both.values()) if all(one.known for one in both.values()) else Estimate()
    said = f"Facts out: {each}; difference by seed {listed(found, signed_cosine)}."
    return Quantity(found, said, difference.interval)


def _larger_in_shared(m: Gradients) -> Quantity:
    """Compare S with random parameters, fact by fact: the cosine of a small group is large."""
    ahead = m.over_training("mix", "S - random", _KIND)
    found, all_seeds = single(ahead, "cosine"), together(ahead, "cosine")
    groups = {"S": "S", "random": "random", "neither S nor γ": "rest"}
    sides = {name: m.mean("mix", group, _KIND) for name, group in groups.items()}
    each = written(sides, signed_cosine)
    said = f"Facts out: {each}; S minus random by seed {listed(found, signed_cosine)}."
    return Quantity(found, said + all_seeds.sentence(signed_cosine), all_seeds.interval)


CLAIMS = (
    Claim(
        "Gradients of a fact's two formats are more consistent in mixed training: over training, "
        "the cosine of its statement and its question is further above that with questions on the "
        "same relation of other people.",
        partial(_larger_in_mix, "all"),
        ABSTRACT,
    ),
    Claim(
        "In mixed training this consistency sits in the parameters that both formats update: it is "
        "larger in S than in random parameters, as many of each tensor as S has.",
        _larger_in_shared,
        ABSTRACT,
    ),
    Claim(
        "It does so more than in two-stage training: S is further ahead of the random ones.",
        partial(_larger_in_mix, "S - random"),
        is_extension=True,
    ),
)


def no_more_alike(m: Gradients) -> list[str]:
    """Say where gradients of a fact are no more alike than those of other facts."""
    said = []
    for kind, others in (
        ("person", "the same relation of other people"),
        ("relation", "other relations of the same person"),
    ):
        found = {t: m.mean(t, "all", f"matched - {kind}") for t in COMPARED}
        poor = [NAMES[t] for t, one in found.items() if one.known and one.low <= 0]
        if poor:
            said.append(
                f"{' and '.join(poor)}: over training, the gradients of a fact's statement and "
                "question are not surely more alike than those of its statement and questions on "
                f"{others}."
            )
    return said


SECTION = Section(
    name="gradients",
    title="Gradients of both formats",
    read=Gradients,
    tables=("gradients",),
    claims=CLAIMS,
    body=(
        Text(
            "<p>The gradient of the loss on a fact’s answer shows which parameters would learn it. "
            "The paper’s revised abstract says that the gradients of statement and question agree "
            "more in mixed training, in the parameters that both formats update. It names no "
            "method; this is ours. The cosine of a fact’s two gradients is compared with that of "
            "its statement and <i>other</i> questions: on the same relation of other people, and "
            "on other relations of the same person. What exceeds both belongs to the fact. S and γ "
            "were found with the gradients and questions of these same people among others, so "
            "that facts of other people might agree less there.</p>"
        ),
        Caveats(no_more_alike, lambda m: few_people(m.rows("gradients"))),
        Figure(
            "gradients",
            data=Gradients.drawn,
            schema=picked(
                GRADIENT_SUMMARY, "tuning seed phase share group kind cosine low high facts"
            ),
            prepare=_panels,
            row="panel",
            col="tuning",
            layers=(
                Reference(0, "zero"),
                Estimates("layer", "at_end", "low", "high", hue="kind"),
                Estimates("progress", "over_training", "low", "high", hue="kind", connect=True,
                          places=10_000),
            ),
            labels={
                "panel": {group: name.replace(", ", ",\n").replace(" S nor", " S\nnor")
                          for group, name in GROUPS.items()} | {
                    BY_LAYER: "single layers,\nat the end"
                },
                "kind": KINDS,
            },
            palettes={"kind": {"matched": "#aa3377", "person": "#444444", "relation": "#009e73"}},
            annotate=_ticks,
            share_x=False,
            share_y="row",
            height=0.85,
            legend_columns=1,
            y=Axis("cosine of the gradients of statement and question", grid=True),
            alt=_alt,
            caption="<b>Whether both formats train the same parameters.</b> The gradient of a "
            "fact’s statement, and that of which question. Facts out of the traced people; marks "
            "are moments of training, with 95&nbsp;% intervals over people, all seeds together. "
            "Two-stage training goes through both stages. γ is the mask fitted to QA out; random: "
            "of every tensor as many parameters as S has there. The cosine of a small group is "
            "easily large, so that heights are compared within a row, <b>not between rows, whose "
            "axes differ</b>; S and random, which are of one size, are compared in the table. "
            "Last row: single layers, and all that is outside of them (emb.).",
        ),
        Table(
            "Cosine of the gradients of a fact’s statement and question, facts out, all seeds, "
            "with 95 % intervals over people. Training: the mean over the moments after the "
            "start, of both stages; its bounds are the means of theirs. S less others: "
            "differences within facts.",
            data=Gradients.moments,
            group="group",
            row="kind",
            columns=(Column(", training", _training), Column(", end", _end)),
            labels={"group": GROUPS | PAIRED, "kind": ABOVE},
            head="Gradients",
        ),
    ),
)  # fmt: skip
