"""Ablation in the report: what a model still recalls when parameters are reset to θpre.

The module is long because a section is declared in one place: its figures, tables, claims and
captions.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from factrecall.report.claims import (
    NAMES,
    Claim,
    Interval,
    Quantity,
    by_seed,
    compared,
    listed,
)
from factrecall.report.marks import Bars, Reference
from factrecall.report.plots import Axis, Figure, Panel
from factrecall.report.published import published, published_ablation
from factrecall.report.section import Caveats, Section, Source, Text
from factrecall.report.style import SPLIT_LABELS
from factrecall.report.tables import MISSING, Column, Table, mean_sd, percent, points
from factrecall.vocabulary import COMPARED

if TYPE_CHECKING:
    import pandas as pd

NEGLIGIBLE = 0.02
"""Points of accuracy that a random ablation may cost and count as nothing."""

MOSTLY = 0.5
"""From which share on something counts as most of it."""

LABELS = {
    "none": "nothing",
    "shared": "S",
    "random": "random",
    "random_by_tensor": "random, as S by tensor",
    "most_moved": "moved most",
}
CONTROLS = {
    "random": "as many random parameters",
    "random_by_tensor": "as many random parameters of the same tensors",
    "most_moved": "as many of those that fine-tuning moved most",
}


class Ablation(Source):
    """One model's ablations."""

    def accuracies(self) -> pd.DataFrame:
        """Return accuracy over all relations: columns tuning, seed, ablated, split, accuracy, drop.

        `drop` is the accuracy lost to the ablation.
        """
        import pandas as pd

        keys = ["tuning", "seed", "split", "ablated"]
        sums = self.rows("ablation").groupby(keys, sort=False)[["correct", "n"]].sum()
        table = (sums["correct"] / sums["n"]).rename("accuracy").reset_index()
        whole = table[table["ablated"] == "none"].set_index(keys[:3])["accuracy"]
        before = whole.reindex(pd.MultiIndex.from_frame(table[keys[:3]])).to_numpy()
        return table.assign(drop=before - table["accuracy"].to_numpy())

    def lost(self, ablated: str) -> pd.DataFrame:
        """Return the accuracies on QA out after one ablation."""
        rows = self.accuracies()
        return rows[(rows["split"] == "qa_out") & (rows["ablated"] == ablated)]

    def intervals(self) -> pd.DataFrame:
        """Return the intervals of all pairs; `pair` names what was reset, and instead of what."""
        rows = self.rows("ablation_intervals")
        return rows.assign(pair=rows["ablated"] + " " + rows["against"])

    def interval(self, tuning: str, split: str, ablated: str, against: str) -> Interval | None:
        """Return the interval of one difference, if it is known."""
        rows = self.rows("ablation_intervals")
        wanted = {"tuning": tuning, "split": split, "ablated": ablated, "against": against}
        for column, value in wanted.items():
            rows = rows[rows[column] == value]
        return None if rows.empty else (float(rows["low"].iloc[0]), float(rows["high"].iloc[0]))

    def majority(self, split: str) -> float:
        """Return the accuracy of the majority vote (NaN: not known)."""
        rows = self.rows("recall")
        rows = rows[(rows["tuning"] == "majority") & (rows["split"] == split)]
        return float(rows["correct"].sum() / rows["n"].sum()) if len(rows) else float("nan")


def _chance(panel: Panel) -> float:
    return 100 * float(panel.measures.majority(panel.key["split"]))


# --- tables -----------------------------------------------------------------------------------


def _change(rows: pd.DataFrame, m: Ablation, key: dict[str, str]) -> str:
    return MISSING if key["ablated"] == "none" else mean_sd(rows["drop"], lambda d: points(-d))


def _published(rows: pd.DataFrame, m: Ablation, key: dict[str, str]) -> str:
    after = published_ablation(m.paper, key["tuning"], key["ablated"], key["split"])
    before = published_ablation(m.paper, key["tuning"], "none", key["split"])
    if after is None:
        return MISSING
    change = key["ablated"] != "none" and before is not None
    return f"{after:.1f}" + (f" ({points((after - before) / 100)})" if change else "")  # type: ignore[operator]


def _bounded(rows: pd.DataFrame, m: Ablation, key: dict[str, str]) -> str:
    if rows.empty:
        return MISSING
    mean, low, high = (points(float(rows[c].iloc[0])) for c in ("difference", "low", "high"))
    return f"{mean} ({low} to {high})"


_PAIRS = [("shared", against) for against in ("none", *CONTROLS)]
_PAIRS += [(control, "none") for control in CONTROLS]

# --- claims -----------------------------------------------------------------------------------


def _between(bounds: Interval) -> str:
    return f"{points(bounds[0])} to {points(bounds[1])}"


def _costs_more(m: Ablation) -> Quantity:
    stage, mix = (m.interval(t, "qa_out", "shared", "none") for t in COMPARED)
    after, interval = "", None
    if stage and mix:
        # Bounds of two intervals set as far apart as they allow: wider than that of the difference.
        interval = (mix[0] - stage[1], mix[1] - stage[0])
        after = f" 95 % intervals of the two: {_between(mix)} and {_between(stage)}."
    found = compared(m.lost("shared"), "drop", "Lost: ", "points", after)
    return found._replace(interval=interval)


def _costs_larger_share(m: Ablation) -> Quantity:
    lost = m.lost("shared")
    before = lost["accuracy"] + lost["drop"]
    part = lost["drop"] / before.where(before > 0)
    return compared(lost.assign(part=part), "part", "Lost of what was recalled: ")


def _costs_more_than(control: str, m: Ablation) -> Quantity:
    ours, theirs = (
        rows[rows["tuning"] == "mix"].set_index("seed")["accuracy"]
        for rows in (m.lost("shared"), m.lost(control))
    )
    found = by_seed((theirs - ours).dropna())
    interval = m.interval("mix", "qa_out", "shared", control)
    said = f"By seed {listed(found, points)} points"
    said += f"; 95 % interval {_between(interval)}" if interval else ""
    return Quantity(found, f"{said}.", interval)


def _random_costs_nothing(m: Ablation) -> Quantity:
    rows = m.accuracies()
    lost = rows[rows["ablated"] == "random"]
    most = by_seed(lost.assign(size=lost["drop"].abs()).groupby("seed")["size"].max())
    pairs = sorted(set(zip(lost["tuning"], lost["split"], strict=True)))
    known = [b for t, s in pairs if (b := m.interval(t, s, "random", "none"))]
    interval = None
    if known:
        nearest = [0.0 if low <= 0 <= high else min(abs(low), abs(high)) for low, high in known]
        furthest = [max(abs(low), abs(high)) for low, high in known]
        interval = (NEGLIGIBLE - max(furthest), NEGLIGIBLE - max(nearest))
    said = f"Largest change by seed: {listed(most, percent)} points."
    return Quantity({seed: NEGLIGIBLE - size for seed, size in most.items()}, said, interval)


def _published_changes(m: Ablation, ablated: str) -> dict[tuple[str, str], float]:
    return {
        (tuning, split): before - after
        for tuning in ("mix", "stage")
        for split in SPLIT_LABELS
        if (before := published(m.paper, tuning, split)) is not None
        and (after := published_ablation(m.paper, tuning, ablated, split)) is not None
    }


def _published_drops(m: Ablation) -> str:
    drops = _published_changes(m, "shared")
    return ", ".join(
        f"{NAMES[t]} {drop:.1f} points" for (t, split), drop in drops.items() if split == "qa_out"
    )


def _published_random(m: Ablation) -> str:
    changes = [abs(change) for change in _published_changes(m, "random").values()]
    return f"at most {max(changes):.1f} points" if changes else ""


CLAIMS = (
    Claim(
        "Putting back S costs Mix-tuned models more recall of unseen questions (QA out) than "
        "Stage-tuned ones.",
        _costs_more,
        _published_drops,
    ),
    Claim(
        "It also costs them the larger share of what they recalled on QA out.",
        _costs_larger_share,
        is_extension=True,
    ),
    *(
        Claim(
            f"Putting back S costs Mix-tuned models more on QA out than putting back {described}.",
            partial(_costs_more_than, control),
            is_extension=control != "random",
        )
        for control, described in CONTROLS.items()
    ),
    Claim(
        "Putting back as many random parameters changes accuracy by less than "
        f"{100 * NEGLIGIBLE:g} points on every split.",
        _random_costs_nothing,
        _published_random,
    ),
)

# --- caveats ----------------------------------------------------------------------------------


def tensors_cost_most(m: Ablation) -> str | None:
    """Say where other parameters of the same tensors cost most of what S costs."""
    ours, theirs = (
        float(rows.loc[rows["tuning"] == "mix", "drop"].mean())
        for rows in (m.lost("shared"), m.lost("random_by_tensor"))
    )
    if not ours > 0 or not theirs > MOSTLY * ours:
        return None
    return (
        f"In Mix-tuned models S costs {percent(ours)} points of QA out, and as many random "
        f"parameters of the same tensors {percent(theirs)}. Most of the loss comes with the "
        "tensors S lies in, whichever of their parameters are reset."
    )


SECTION = Section(
    name="ablation",
    title="Ablation",
    read=Ablation,
    tables=("ablation", "ablation_intervals", "recall"),
    body=(
        Text(
            "<p>If S carries recall, a model in which S is reset to what it was before fine-tuning "
            "should recall less, and more so than one in which as many other parameters are "
            "reset.</p>"
        ),
        Caveats(tensors_cost_most),
        Figure(
            "ablation",
            data=Ablation.accuracies,
            schema={
                "tuning": "string",
                "seed": "int32",
                "split": "string",
                "ablated": "string",
                "accuracy": "float64",
                "drop": "float64",
            },
            row="split",
            layers=(
                Bars("accuracy", "ablated"),
                Reference(_chance, "chance", "majority vote", axis="x"),
            ),
            labels={"ablated": {**LABELS, "random_by_tensor": "random,\nas S by tensor"}},
            height=1.65,
            x=Axis("answers exactly right (%)", percent=("accuracy",), limits=(0, 118),
                   ticks=range(0, 101, 20), grid=True),
            y=Axis("reset to before fine-tuning"),
            alt="Bars of accuracy by split, tuning and what was reset; the table below holds the "
            "numbers.",
            caption="<b>What is recalled without S.</b> Bars and numbers are means over seeds, "
            "points are seeds, the dashed line is chance. Compare within a colour: nothing reset, "
            "S, as many random parameters, as many random ones with as many in each tensor as S "
            "has, and as many of those that moved most. Only where S is shorter than the three "
            "below it does it matter which parameters they are. A model close to chance before has "
            "little left to lose.",
        ),
        Table(
            lambda m: "Answers exactly right after parameters are reset to θpre, in per cent, and "
            f"the change in points; mean ± s.d. over seeds. Paper: {m.paper} (v1, figures 8 and "
            "9), its change in brackets.",
            data=Ablation.accuracies,
            group="split",
            row="ablated",
            columns=(
                Column("", "accuracy"),
                Column(", change", _change),
                Column(", paper", _published),
            ),
            labels={"split": SPLIT_LABELS, "ablated": LABELS},
            head="Reset",
        ),
        Table(
            "How many points more the first ablation costs than the second: mean over seeds, and "
            "its 95 % interval over people.",
            data=Ablation.intervals,
            group="split",
            row="pair",
            columns=(Column("", _bounded),),
            labels={
                "split": SPLIT_LABELS,
                "pair": {f"{a} {b}": f"{LABELS[a]} against {LABELS[b]}" for a, b in _PAIRS},
            },
            head="Reset",
        ),
        Text(
            '<p class="small">The interval says how far other people would move the difference, '
            "not how far another training run would. An interval that holds zero fits with no "
            "difference at all.</p>"
        ),
    ),
    claims=CLAIMS,
)  # fmt: skip
