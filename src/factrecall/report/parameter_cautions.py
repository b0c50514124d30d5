"""What the data on shared parameters say against the paper's reading of them.

Each caution is said only where a run's own numbers show it, with these numbers.
"""

from __future__ import annotations

import math

import pandas as pd

from factrecall.report.claim import NAMES, with_sign
from factrecall.report.measures import SPLIT_NAMES, Measures
from factrecall.report.tables import NO_BREAK, percent

MOSTLY = 0.5
"""From which share on something counts as most of it."""

GAINED = 0.1
"""Share of answers that were wrong or never taught from which on a mask counts as learning."""


def shared_cautions(measures: Measures) -> list[str]:
    """Say where the tensors that fine-tuning moves account for most of the overlap."""
    rows = measures.at_k()
    rows = rows[(rows["set"] == "S") & (rows["influence"] == measures.influence)]
    means = rows.groupby("tuning", sort=False)[["ratio", "null"]].mean()
    mostly = means[means["null"] > MOSTLY * means["ratio"]]
    if mostly.empty:
        return []
    said = "; ".join(
        f"{NAMES[str(t)]} {with_sign(row['null'])} of k, where {with_sign(row['ratio'])} are shared"
        for t, row in mostly.iterrows()
    )
    return [
        "Most of the overlap is a matter of tensors, not of single parameters: both tasks move the "
        "same tensors, and rankings permuted within each tensor overlap nearly as much "
        f"({said}). |S|/k should be held against these, not against the dotted line of chance."
    ]


def ablation_cautions(measures: Measures) -> list[str]:
    """Say where other parameters of the same tensors cost most of what S costs."""
    rows = measures.ablated()
    rows = rows[(rows["split"] == "qa_out") & (rows["tuning"] == "mix")]
    lost = rows.groupby("ablated")["drop"].mean()
    ours, theirs = float(lost.get("shared", 0)), float(lost.get("random_by_tensor", math.nan))
    if not ours > 0 or not theirs > MOSTLY * ours:
        return []
    return [
        f"In Mix-tuned models S costs {percent(ours)} points of QA out, and as many random "
        f"parameters of the same tensors {percent(theirs)}. Most of the loss comes with the "
        "tensors S lies in, whichever of their parameters are put back."
    ]


def grafting_cautions(measures: Measures) -> list[str]:
    """Say where masks learn answers, and where no smaller mask was tried."""
    said = [text for split in SPLIT_NAMES if (text := _learnt(measures, split))]
    if said:
        said[-1] += (
            " What a mask recovers on the people it is fitted to is then no proof that it found "
            "where recall is: choosing parameters is itself a way to learn answers."
        )
    masks = measures.masks()
    masks = masks[masks["chosen"].astype(bool)]
    least = measures.fitted()["alpha"].min()
    ends = [
        f"{NAMES[str(tuning)]}, {SPLIT_NAMES[str(split)]}"
        for (split, tuning), rows in masks.groupby(["split", "tuning"], sort=False)
        if (rows["alpha"] <= least).any()
    ]
    if ends:
        said.append(
            f"The smallest size tried, α = {100 * least:g}{NO_BREAK}%, was already enough in some "
            f"seed ({'; '.join(ends)}). Smaller masks might be, too."
        )
    return said


def _learnt(measures: Measures, split: str) -> str | None:
    """Describe masks that recover recall of the people they are fitted to and of nobody else."""
    others = measures.others_of_masks()
    others = others[others["split"] == split]
    closed = others.groupby("tuning", sort=False)["closed"].mean()
    learnt = [str(tuning) for tuning, share in closed.items() if share < MOSTLY]
    masks = measures.masks()
    masks = masks[(masks["split"] == split) & masks["tuning"].isin(learnt)]
    fitted = masks.groupby("tuning", sort=False)["recovery"].mean()
    # A mask that recovers nothing at all has learnt nothing either.
    if not len(fitted) or fitted.max() < MOSTLY:
        return None
    others = others.assign(nothing=others["before"] / others["whole"])
    back = others.groupby("tuning", sort=False)[["recovery", "nothing"]].mean()
    text = (
        f"On {SPLIT_NAMES[split]} masks recover recall of the people they are fitted to "
        f"({_each(fitted)}), not of others ({_each(back['recovery'][learnt])}; with nothing "
        f"grafted {_each(back['nothing'][learnt])})."
    )
    if fitted.max() > 1:
        text += " More than 100 % cannot be recovered: the rest is learnt."
    for check, words in (
        ("gained", "They get right, of the questions that the fine-tuned model has wrong"),
        ("shuffled", "Fitted to answers exchanged between people, which nobody was ever taught, "
         "masks of this size get right"),
    ):  # fmt: skip
        rows = measures.checked(check)
        shares = rows[(rows["split"] == split) & rows["tuning"].isin(learnt)]
        means = shares.groupby("tuning", sort=False)["value"].mean()
        if len(means) and means.max() > GAINED:
            text += f" {words}: {_each(means)}."
    return text


def _each(means: pd.Series) -> str:
    return ", ".join(f"{NAMES[str(t)]} {with_sign(float(v))}" for t, v in means.items())
