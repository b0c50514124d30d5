"""What the paper says of grafted parameters, and whether masks are what it takes them for."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pandas as pd

from factrecall.experiments.grafting.grafter import WHOLE
from factrecall.report.claim import (
    NAMES,
    NOT_MEASURED,
    Claim,
    compared,
    listed,
    of_all,
    with_sign,
    word,
)
from factrecall.report.measures import SPLIT_NAMES, Measures, by_seed_difference, share_of
from factrecall.report.published import published_graft
from factrecall.report.tables import MISSING, NO_BREAK

SOMETHING = 0.5
"""A mask that recovers less says nothing about where recall is."""


def grafting_claims(measures: Measures, paper: str) -> Iterator[Claim]:
    """Yield the claims on grafting (see `claims.judge_claims`)."""
    masks = measures.masks()
    # Where no mask is enough, all parameters are: they recover everything. Where there is nothing
    # to recover, nothing can be said of how many it takes.
    needed = masks["alpha"].where(masks["chosen"].astype(bool), 1.0)
    masks = masks.assign(
        needed=needed.where(masks["recovery"].notna()),
        gain=masks["accuracy"] - masks["accuracy_without"],
    )
    chosen = masks[masks["chosen"].astype(bool)]
    for split, name in SPLIT_NAMES.items():
        rows = masks[masks["split"] == split]
        needed = by_seed_difference(rows, "needed")
        yield Claim(
            "Grafting",
            f"Mix-tuned models need fewer grafted parameters than Stage-tuned ones ({name}).",
            False,
            word({seed: -d for seed, d in needed.items()}),
            _sizes(measures, rows) if needed else NOT_MEASURED,
            _paper_grafts(paper, split, "alpha"),
        )
        rows = chosen[chosen["split"] == split]
        for value, text in (
            ("shared_fraction", "More of a Mix-tuned model's chosen mask is in S"),
            ("gain", "S adds more to the accuracy of a Mix-tuned model's mask"),
        ):
            found = by_seed_difference(rows, value)
            yield Claim(
                "Grafting",
                f"{text} ({name}).",
                False,
                word(found),
                compared(rows, value, found, unit="%" if value != "gain" else "points")
                + (_at_one_size(measures, rows, _share) if value == "shared_fraction" else ""),
                _paper_grafts(paper, split, value),
            )
        yield _enrichment(measures, rows, name)
    for split, name in SPLIT_NAMES.items():
        yield _others(measures, split, name)


def _enrichment(measures: Measures, chosen: pd.DataFrame, name: str) -> Claim:
    """Hold the share in S against that of all that may be grafted, for S is larger itself."""
    keys = ["tuning", "seed", "split"]
    every = measures.grafting
    every = every[(every["method"] == WHOLE) & every["with_shared"].astype(bool)]
    base = every.set_index(keys)["shared_fraction"].rename("base")
    rows = chosen.join(base, on=keys)
    rows = rows.assign(times=share_of(rows["shared_fraction"], rows["base"]))
    found = by_seed_difference(rows, "times")
    means = rows.groupby("tuning")[["times", "base"]].mean()
    sides = [
        f"{NAMES[t]} {means['times'][t]:.2f} times" for t in ("mix", "stage") if t in means.index
    ]
    return Claim(
        "Grafting",
        "S is more frequent in a Mix-tuned model's chosen mask even for the size of S: its share "
        f"of the mask, over its share of all that may be grafted, is larger ({name}).",
        True,
        word(found),
        f"{', '.join(sides)}; difference by seed {listed(found, _signed)}."
        + _at_one_size(measures, rows, lambda t, share: f"{share / means['base'][t]:.2f} times")
        if found
        else NOT_MEASURED,
        "",
    )


def _share(_: str, share: float) -> str:
    return with_sign(share)


def _signed(number: float) -> str:
    return f"{number:+.2f}".replace("-", "\N{MINUS SIGN}")


def _others(measures: Measures, split: str, name: str) -> Claim:
    rows = measures.others_of_masks()
    rows = rows[(rows["split"] == split) & (rows["fitted"] >= SOMETHING)]
    rows = rows.dropna(subset=["recovery"])
    # As much as of the people fitted to is all that finding recall could bring back.
    wanted = measures.recovery * rows["fitted"].clip(upper=1)
    rows = rows.assign(margin=rows["recovery"] - wanted)
    sides = rows.pivot(index="seed", columns="tuning", values="margin")
    found = {int(str(seed)): of_all(margins) for seed, margins in sides.iterrows()}
    means = rows.groupby("tuning", sort=False)[["recovery", "fitted", "nothing"]].mean()
    said = "; ".join(
        f"{NAMES[str(t)]} {with_sign(row['recovery'])} (of people fitted to "
        f"{with_sign(row['fitted'])}), with nothing grafted {with_sign(row['nothing'])}"
        for t, row in means.iterrows()
    )
    return Claim(
        "Grafting",
        "A mask finds where recall is: the share it recovers of the recall of people it was not "
        f"fitted to is at least {100 * measures.recovery:g} % of the share it recovers of those it "
        f"was fitted to, or of 100 % where that is more ({name}).",
        True,
        word(found),
        f"Of their recall: {said}." if found else NOT_MEASURED,
        "",
    )


def _at_one_size(
    measures: Measures, chosen: pd.DataFrame, write: Callable[[str, float], str]
) -> str:
    """Compare the share in S at one α where the chosen masks differ in size, which moves it."""
    if chosen["alpha"].nunique() < 2 or chosen["tuning"].nunique() < 2:
        return ""
    alpha = float(chosen["alpha"].max())
    rows = measures.fitted()
    rows = rows[rows["with_shared"].astype(bool) & (rows["split"] == chosen["split"].iloc[0])]
    means = rows[rows["alpha"] == alpha].groupby("tuning")["shared_fraction"].mean()
    sides = [f"{NAMES[t]} {write(t, float(means[t]))}" for t in ("mix", "stage")]
    return (
        f" The masks differ in size; at α = {100 * alpha:g}{NO_BREAK}% both have: "
        f"{', '.join(sides)}."
    )


def _sizes(measures: Measures, masks: pd.DataFrame) -> str:
    said = []
    known = measures.known(0)
    known = known[known["split"].isin(masks["split"])]
    for tuning in ("mix", "stage"):
        rows = masks[masks["tuning"] == tuning].sort_values("seed")
        sizes = [_size(*pair) for pair in zip(rows["needed"], rows["chosen"], strict=True)]
        whole = known[known["tuning"] == tuning]["whole"].mean()
        recall = "" if pd.isna(whole) else f" (to recall {with_sign(float(whole))})"
        said.append(f"{NAMES[tuning]} {', '.join(sizes)}{recall}")
    return f"α by seed: {'; '.join(said)}."


def _size(needed: float, chosen: bool) -> str:
    if pd.isna(needed):
        return MISSING
    return f"{100 * needed:g}{NO_BREAK}%" if chosen else "none enough"


def _paper_grafts(paper: str, split: str, value: str) -> str:
    values = []
    for tuning in ("mix", "stage"):
        row = published_graft(paper, tuning, split)
        if row is None:
            return ""
        values.append(row.accuracy - row.without if value == "gain" else getattr(row, value))
    unit = "points" if value == "gain" else "%"
    mix, stage = (f"{number:g}" if value == "alpha" else f"{number:.1f}" for number in values)
    return f"{NAMES['mix']} {mix}{NO_BREAK}{unit}, {NAMES['stage']} {stage}{NO_BREAK}{unit}"
