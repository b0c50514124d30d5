"""What the paper says of grafted parameters, and whether masks are what it takes them for."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from factrecall.experiments.grafting.measures import KEYS, Grafting, share_of
from factrecall.report.claims import (
    NAMES,
    Claim,
    Quantity,
    by_seed_difference,
    compared,
    listed,
    of_all,
    with_sign,
)
from factrecall.report.published import published_graft
from factrecall.report.style import SPLIT_NAMES
from factrecall.report.tables import MISSING, NO_BREAK

if TYPE_CHECKING:
    import pandas as pd

SOMETHING = 0.5
"""A mask that recovers less says nothing about where recall is."""


def _of(rows: pd.DataFrame, split: str) -> pd.DataFrame:
    return rows[rows["split"] == split]


def _fewer(split: str, m: Grafting) -> Quantity:
    masks = _of(m.masks, split)
    # Where no mask is enough, all parameters are: they recover everything. Where there is nothing
    # to recover, nothing can be said of how many it takes.
    needed = masks["alpha"].where(masks["chosen"].astype(bool), 1.0)
    masks = masks.assign(needed=needed.where(masks["recovery"].notna()))
    found = {seed: -d for seed, d in by_seed_difference(masks, "needed").items()}
    return Quantity(found, _sizes(m, masks))


def _more_in_s(split: str, m: Grafting) -> Quantity:
    rows = _of(m.chosen, split)
    return compared(
        rows, "shared_fraction", after=_at_one_size(m, rows, lambda t, share: with_sign(share))
    )


def _adds_more(split: str, m: Grafting) -> Quantity:
    return compared(_of(m.chosen, split), "gain", unit="points")


def _enriched(split: str, m: Grafting) -> Quantity:
    """Hold the share in S against that of all that may be grafted, for S is larger itself."""
    rows = _of(m.chosen, split).join(m.share_of_all(), on=KEYS)
    rows = rows.assign(times=share_of(rows["shared_fraction"], rows["base"]))
    found = by_seed_difference(rows, "times")
    means = rows.groupby("tuning")[["times", "base"]].mean()
    sides = [
        f"{NAMES[t]} {means['times'][t]:.2f} times" for t in ("mix", "stage") if t in means.index
    ]
    said = f"{', '.join(sides)}; difference by seed {listed(found, _signed)}."
    if not found:
        return Quantity()
    same = _at_one_size(m, rows, lambda t, share: f"{share / means['base'][t]:.2f} times")
    return Quantity(found, said + same)


def _signed(number: float) -> str:
    return f"{number:+.2f}".replace("-", "\N{MINUS SIGN}")


def _finds_recall(split: str, m: Grafting) -> Quantity:
    rows = _of(m.others_of_masks(), split)
    rows = rows[rows["fitted"] >= SOMETHING].dropna(subset=["recovery"])
    # As much as of the people fitted to is all that finding recall could bring back.
    wanted = m.recovery * rows["fitted"].clip(upper=1)
    rows = rows.assign(margin=rows["recovery"] - wanted)
    sides = rows.pivot(index="seed", columns="tuning", values="margin")
    found = {int(str(seed)): of_all(margins) for seed, margins in sides.iterrows()}
    means = rows.groupby("tuning", sort=False)[["recovery", "fitted", "nothing"]].mean()
    said = "; ".join(
        f"{NAMES[str(t)]} {with_sign(row['recovery'])} (of people fitted to "
        f"{with_sign(row['fitted'])}), with nothing grafted {with_sign(row['nothing'])}"
        for t, row in means.iterrows()
    )
    return Quantity(found, f"Of their recall: {said}.")


def _at_one_size(m: Grafting, chosen: pd.DataFrame, write: Callable[[str, float], str]) -> str:
    """Compare the share in S at one α where the chosen masks differ in size, which moves it."""
    if chosen["alpha"].nunique() < 2 or chosen["tuning"].nunique() < 2:
        return ""
    alpha = float(chosen["alpha"].max())
    rows = m.fitted()
    rows = rows[rows["with_shared"].astype(bool) & (rows["split"] == chosen["split"].iloc[0])]
    means = rows[rows["alpha"] == alpha].groupby("tuning")["shared_fraction"].mean()
    sides = [f"{NAMES[t]} {write(t, float(means[t]))}" for t in ("mix", "stage")]
    return (
        f" The masks differ in size; at α = {100 * alpha:g}{NO_BREAK}% both have: "
        f"{', '.join(sides)}."
    )


def _sizes(m: Grafting, masks: pd.DataFrame) -> str:
    said = []
    known = m.known(0)
    known = known[known["split"].isin(masks["split"])]
    for tuning in ("mix", "stage"):
        rows = masks[masks["tuning"] == tuning].sort_values("seed")
        sizes = [_size(*pair) for pair in zip(rows["needed"], rows["chosen"], strict=True)]
        whole = known[known["tuning"] == tuning]["whole"].mean()
        recall = "" if whole != whole else f" (to recall {with_sign(float(whole))})"
        said.append(f"{NAMES[tuning]} {', '.join(sizes)}{recall}")
    return f"α by seed: {'; '.join(said)}."


def _size(needed: float, chosen: bool) -> str:
    if needed != needed:
        return MISSING
    return f"{100 * needed:g}{NO_BREAK}%" if chosen else "none enough"


def _published(split: str, value: str, m: Grafting) -> str:
    values = []
    for tuning in ("mix", "stage"):
        row = published_graft(m.paper, tuning, split)
        if row is None:
            return ""
        values.append(row.accuracy - row.without if value == "gain" else getattr(row, value))
    unit = "points" if value == "gain" else "%"
    mix, stage = (f"{number:g}" if value == "alpha" else f"{number:.1f}" for number in values)
    return f"{NAMES['mix']} {mix}{NO_BREAK}{unit}, {NAMES['stage']} {stage}{NO_BREAK}{unit}"


def _claims(split: str, name: str) -> list[Claim]:
    return [
        Claim(
            f"Mix-tuned models need fewer grafted parameters than Stage-tuned ones ({name}).",
            partial(_fewer, split),
            partial(_published, split, "alpha"),
        ),
        Claim(
            f"More of a Mix-tuned model's chosen mask is in S ({name}).",
            partial(_more_in_s, split),
            partial(_published, split, "shared_fraction"),
        ),
        Claim(
            f"S adds more to the accuracy of a Mix-tuned model's mask ({name}).",
            partial(_adds_more, split),
            partial(_published, split, "gain"),
        ),
        Claim(
            "S is more frequent in a Mix-tuned model's chosen mask even for the size of S: its "
            "share of the mask, over its share of all that may be grafted, is larger "
            f"({name}).",
            partial(_enriched, split),
            is_extension=True,
        ),
    ]


def claims(m: Grafting) -> list[Claim]:
    """Return the claims on grafting."""
    finds = [
        Claim(
            "A mask finds where recall is: the share it recovers of the recall of people it was "
            f"not fitted to is at least {100 * m.recovery:g} % of the share it recovers of those "
            f"it was fitted to, or of 100 % where that is more ({name}).",
            partial(_finds_recall, split),
            is_extension=True,
        )
        for split, name in SPLIT_NAMES.items()
    ]
    return [c for split, name in SPLIT_NAMES.items() for c in _claims(split, name)] + finds
