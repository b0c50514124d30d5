"""What the data on masks say against taking them for where recall is.

Each caveat is said only where a run's own numbers show it, with these numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from factrecall.report.claims import NAMES, with_sign
from factrecall.report.style import SPLIT_NAMES
from factrecall.report.tables import NO_BREAK

if TYPE_CHECKING:
    import pandas as pd

    from factrecall.experiments.grafting.measures import Grafting

MOSTLY = 0.5
"""From which share on something counts as most of it."""

GAINED = 0.1
"""A mask learns that gets so much more of wrong or never taught answers right than no fitting."""

NOTHING = 0.1
"""Up to which share of what fine-tuning added a mask brings back none of it to speak of."""

ABOVE = 1.05
"""From which recovery on more is right than chance would have it around the whole."""


def masks_learn_answers(m: Grafting) -> list[str]:
    """Say where masks recover recall of the people they are fitted to, and not of others."""
    said = [text for split in SPLIT_NAMES if (text := _learnt(m, split))]
    if said:
        said[-1] += (
            " What a mask recovers on the people it is fitted to is then no proof that it found "
            "where recall is: choosing parameters is itself a way to learn answers."
        )
    return said


def smallest_was_enough(m: Grafting) -> str | None:
    """Say where no smaller mask was tried than the one chosen."""
    least = m.fitted()["alpha"].min()
    ends = [
        f"{NAMES[str(tuning)]}, {SPLIT_NAMES[str(split)]}"
        for (split, tuning), rows in m.chosen.groupby(["split", "tuning"], sort=False)
        if (rows["alpha"] <= least).any()
    ]
    if not ends:
        return None
    return (
        f"The smallest size tried, α = {100 * least:g}{NO_BREAK}%, was already enough in some seed "
        f"({'; '.join(ends)}). Smaller masks might be, too."
    )


def _learnt(m: Grafting, split: str) -> str | None:
    """Describe masks that recover recall of the people they are fitted to and not of others."""
    rows = m.others_of_masks()
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
    guessed = _unfitted(m, split)
    for check, words in (
        ("gained", "They get right, of the questions that the fine-tuned model has wrong"),
        ("shuffled", "Fitted to answers exchanged between people, which nobody was ever taught, "
         "masks of this size get right"),
    ):  # fmt: skip
        rows = m.checked(check)
        rows = rows[(rows["split"] == split) & rows["tuning"].isin(learnt.index)]
        shares = rows.groupby("tuning", sort=False)["value"].mean()
        known = guessed.reindex(shares.index)
        shares = shares[shares > known + GAINED]
        if len(shares):
            text += f" {words}: {_each(shares)} (without fitting: {_each(known[shares.index])})."
    return text


def _unfitted(m: Grafting, split: str) -> pd.Series:
    """Return by tuning what is right of all answers with a random mask or none, the larger."""
    import pandas as pd

    parts = [
        rows[rows["split"] == split].groupby("tuning", sort=False)[value].mean().rename(value)
        for rows, value in ((m.checked("random"), "value"), (m.known(0), "before"))
    ]
    return pd.concat(parts, axis=1).max(axis=1)


def _each(means: pd.Series) -> str:
    return ", ".join(f"{NAMES[str(t)]} {with_sign(float(v))}" for t, v in means.items())
