"""What the data on shared parameters say against the paper's reading of them.

Each caution is said only where a run's own numbers show it, with these numbers.
"""

from __future__ import annotations

import pandas as pd

from factrecall.report.claim import NAMES, with_sign
from factrecall.report.measures import SPLIT_NAMES, Measures
from factrecall.report.tables import NO_BREAK

MOSTLY = 0.5
"""From which share on something counts as most of it."""

GAINED = 0.1
"""A mask learns that gets so much more of wrong or never taught answers right than no fitting."""

NOTHING = 0.1
"""Up to which share of what fine-tuning added a mask brings back none of it to speak of."""

ABOVE = 1.05
"""From which recovery on more is right than chance would have it around the whole."""


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
        "same tensors, and rankings permuted within each tensor overlap more than half as much "
        f"({said}). |S|/k should be held against these, not against the dotted line of chance."
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
    """Describe masks that recover recall of the people they are fitted to and not of others."""
    rows = measures.others_of_masks()
    columns = ["fitted", "fitted_closed", "recovery", "nothing", "closed"]
    means = rows[rows["split"] == split].groupby("tuning", sort=False)[columns].mean()
    # A mask that brings nothing back has learnt nothing either.
    own = means["fitted_closed"].clip(upper=1)
    learnt = means[(own >= MOSTLY) & (means["closed"] < MOSTLY * own)]
    if learnt.empty:
        return None
    none = learnt["closed"] < NOTHING
    others = [
        f"{words} ({_each(part['recovery'])}; with nothing grafted {_each(part['nothing'])})"
        for words, part in (
            ("not of others", learnt[none]),
            ("far less of others\N{RIGHT SINGLE QUOTATION MARK}", learnt[~none]),
        )
        if len(part)
    ]
    text = (
        f"On {SPLIT_NAMES[split]} masks recover recall of the people they are fitted to "
        f"({_each(learnt['fitted'])}), {', '.join(others)}."
    )
    if learnt["fitted"].max() > ABOVE:
        text += " More than 100 % cannot be recovered: the rest is learnt."
    guessed = _unfitted(measures, split)
    for check, words in (
        ("gained", "They get right, of the questions that the fine-tuned model has wrong"),
        ("shuffled", "Fitted to answers exchanged between people, which nobody was ever taught, "
         "masks of this size get right"),
    ):  # fmt: skip
        rows = measures.checked(check)
        rows = rows[(rows["split"] == split) & rows["tuning"].isin(learnt.index)]
        shares = rows.groupby("tuning", sort=False)["value"].mean()
        known = guessed.reindex(shares.index)
        shares = shares[shares > known + GAINED]
        if len(shares):
            text += f" {words}: {_each(shares)} (without fitting: {_each(known[shares.index])})."
    return text


def _unfitted(measures: Measures, split: str) -> pd.Series:
    """Return by tuning what is right of all answers with a random mask or none, the larger."""
    parts = [
        rows[rows["split"] == split].groupby("tuning", sort=False)[value].mean().rename(value)
        for rows, value in ((measures.checked("random"), "value"), (measures.known(0), "before"))
    ]
    return pd.concat(parts, axis=1).max(axis=1)


def _each(means: pd.Series) -> str:
    return ", ".join(f"{NAMES[str(t)]} {with_sign(float(v))}" for t, v in means.items())
