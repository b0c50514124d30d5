"""Claims on probes: how far statements and questions are represented and decoded alike."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from factrecall.report.ledger import SMALLEST, Claim
from factrecall.report.observations import estimated, minus, observe, scaled, where
from factrecall.report.section import Source
from factrecall.report.style import TUNING_LABELS
from factrecall.report.tables import percent
from factrecall.vocabulary import COMPARED

if TYPE_CHECKING:
    import pandas as pd

SPLIT = "out"
"""Whose facts are judged: the probes were fitted to nobody of these."""

BIO = {"bio_long": "BIO long", "bio_short": "BIO short"}
FORMATS = {"qa": "QA", **BIO}

NEAR = 0.05
"""Accuracies closer than this to chance leave differences no room."""

_CELL = ("split", "tuning", "layer", "bio", "measure")


class Probes(Source):
    """One model's probes; missing rows leave numbers unknown."""

    @property
    def top(self) -> list[int]:
        """The top third of the probed layers, by which claims are judged as in the paper."""
        layers = sorted({int(layer) for layer in self.rows("consistency")["layer"]})
        return layers[-math.ceil(len(layers) / 3) :]

    def accuracies(self) -> pd.DataFrame:
        """Return accuracies for facts out over all relations, condensed over seeds."""
        rows = where(self.rows("probes"), relation="all", split=SPLIT)
        keys = ["tuning", "trained", "tested", "layer"]
        table = rows.groupby(keys, sort=False).agg(
            mean=("accuracy", "mean"), low=("accuracy", "min"), high=("accuracy", "max"),
            shuffled=("shuffled", "mean"), chance=("chance", "mean"),
        )  # fmt: skip
        return table.reset_index()

    def differences(self) -> pd.DataFrame:
        """Return the signed differences at each layer, of each seed and of all together."""
        found = estimated(self.rows("consistency"), _CELL, "signed")
        found = found.rename(columns={"signed_low": "low", "signed_high": "high"})
        found = found.assign(value=found["signed"].abs())
        # Facts out first, as they are shown.
        return found.sort_values("split", key=lambda split: split != SPLIT, kind="stable")

    def in_top_layers(self, **keys: Any) -> pd.DataFrame:
        """Return observations of a signed difference: the means over the top layers."""
        rows = self.rows("consistency")
        return observe(rows[rows["layer"].isin(self.top)], "signed", split=SPLIT, **keys)

    def by_relation(self) -> pd.DataFrame:
        """Return Δrep by relation, in the top layers: columns of ``BIO``."""
        from factrecall.experiments.representations.probe_summary import differences

        rows = where(self.rows("probes"), split=SPLIT)
        rows = rows[rows["layer"].isin(self.top)]
        keys = ["tuning", "seed", "relation", "trained", "tested"]
        accuracy = rows.groupby(keys)["accuracy"].mean().unstack(["trained", "tested"])
        if accuracy.empty:
            return accuracy.reindex(columns=[*BIO, *keys])
        signed = differences(accuracy)["signed"].unstack(["measure", "bio"])
        return signed["rep"].reset_index()


def distance(m: Probes, **keys: Any) -> pd.DataFrame:
    """Return observations of a Δ: their mean is the absolute value of the mean difference.

    Each observation has the sign that the mean over people and seeds has.
    """
    signed = m.in_top_layers(**keys)
    return scaled(signed, -1.0 if signed["value"].mean() < 0 else 1.0)


def _larger_in_stage(measure: str) -> Callable[[Probes], pd.DataFrame]:
    keys = {"measure": measure, "bio": "bio_long"}
    return lambda m: minus(*(distance(m, tuning=t, **keys) for t in ("stage", "mix")))


def _of_both(measure: str, bio: str) -> Callable[[Probes], dict[str, pd.DataFrame]]:
    return lambda m: {
        TUNING_LABELS[t]: distance(m, tuning=t, measure=measure, bio=bio) for t in COMPARED
    }


def _no_room(bound: float) -> Callable[[Probes], str | None]:
    """Return what says where probes decode so little that no difference can reach the bound."""

    def said(m: Probes) -> str | None:
        rows = m.accuracies()
        rows = rows[(rows["trained"] == "qa") & (rows["tested"] == "qa")]
        rows = rows[rows["layer"].isin(m.top) & rows["tuning"].isin(COMPARED)]
        means = rows.groupby("tuning")[["mean", "chance"]].mean()
        room = float((means["mean"] - means["chance"]).min())
        if not room < bound:
            return None
        return f"QA probes decode only {percent(room)} points above chance in one of the two models"

    return said


def _longer(m: Probes) -> pd.DataFrame:
    return minus(*(distance(m, tuning="stage", measure="rep", bio=bio) for bio in BIO))


CLAIMS = (
    Claim(
        id="representations.features-differ",
        text="With BIO long, Δrep averaged over all relations is larger in Stage-tuned than in "
        "Mix-tuned models: features of the two formats differ more.",
        observe=_larger_in_stage("rep"),
        **SMALLEST,
        source="short paper, section 3.2, figure 3",
        quote="clearly larger, for the relation job, Llama",
        compares_tunings=True,
    ),
    Claim(
        id="representations.short-features-agree",
        text="With BIO short, Δrep averaged over all relations is below 10 points in Stage-tuned "
        "and in Mix-tuned models.",
        observe=_of_both("rep", "bio_short"),
        comparison="less",
        bound=0.1,
        why="The paper's own bound.",
        source="short paper, section 3.2, figure 4",
        quote="below 10 %, for the relation job, Llama",
    ),
    Claim(
        id="representations.length-matters",
        text="In Stage-tuned models, Δrep is larger with BIO long than with BIO short.",
        observe=_longer,
        **SMALLEST,
        source="short paper, section 3.2, figures 3 and 4",
        quote="much smaller with BIO short",
    ),
    Claim(
        id="representations.mechanisms-differ",
        text="With BIO long, Δmech measured on BIO states is larger in Stage-tuned than in "
        "Mix-tuned models.",
        observe=_larger_in_stage("mech_bio"),
        **SMALLEST,
        source="short paper, section 3.2, figure 3",
        quote="about 20 % in Stage-tuned Llama at layer 24, for the relation job; higher than in "
        "Mix-tuned",
        compares_tunings=True,
    ),
    *(
        Claim(
            id=f"representations.mechanisms-agree-{bio.removeprefix('bio_')}",
            text=f"With {BIO[bio]}, Δmech measured on QA states is below {100 * bound:g} points in "
            "Stage-tuned and in Mix-tuned models.",
            observe=_of_both("mech", bio),
            comparison="less",
            bound=bound,
            why=f"Our reading: the paper says “{said}” and names no bound.",
            lenient=_no_room(bound),
        )
        for bio, bound, said in (
            ("bio_long", 0.2, "relatively small"),
            ("bio_short", 0.1, "nearly zero"),
        )
    ),
)


def near_chance(m: Probes) -> list[str]:
    """Say which probes decode nothing from the states of their own format."""
    rows = m.accuracies()
    rows = rows[rows["trained"] == rows["tested"]]
    means = rows.groupby(["tuning", "tested"])[["mean", "chance"]].mean()
    means = means[means["mean"] - means["chance"] < NEAR]
    return [
        f"{TUNING_LABELS[tuning]}: {FORMATS[form]} probes decode only {percent(row['mean'])} % of "
        f"facts out from {FORMATS[form]} states (chance {percent(row['chance'])} %). A small "
        "difference from that is no sign of like representations."
        for (tuning, form), row in means.iterrows()
    ]


def states_ahead(m: Probes) -> list[str]:
    """Say where statements are decoded better than questions."""
    signed = {t: m.in_top_layers(tuning=t, measure="rep", bio="bio_long") for t in COMPARED}
    return [
        f"{TUNING_LABELS[t]}: QA probes decode BIO states better than QA states. There Δrep tells "
        "what the model states but does not answer."
        for t, rows in signed.items()
        if rows["value"].mean() < 0
    ]
