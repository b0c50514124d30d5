"""What the paper says of grafted parameters, and whether masks are what it takes them for."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from factrecall.report.claim import NAMES, NOT_MEASURED, Claim, compared, with_sign, word
from factrecall.report.measures import SPLIT_NAMES, Measures, by_seed_difference
from factrecall.report.published import published_graft
from factrecall.report.tables import NO_BREAK


def grafting_claims(measures: Measures, paper: str) -> Iterator[Claim]:
    """Yield the claims on grafting (see `claims.judge_claims`)."""
    masks = measures.masks()
    # Where no mask is enough, all parameters are: they recover everything.
    masks = masks.assign(
        needed=masks["alpha"].where(masks["chosen"].astype(bool), 1.0),
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
            _sizes(rows) if needed else NOT_MEASURED,
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
                + (_at_one_size(measures, rows) if value == "shared_fraction" else ""),
                _paper_grafts(paper, split, value),
            )
    for split, name in SPLIT_NAMES.items():
        yield _others(measures, split, name)


def _others(measures: Measures, split: str, name: str) -> Claim:
    rows = measures.others_of_masks()
    rows = rows[rows["split"] == split].dropna(subset=["recovery"])
    wanted = measures.recovery
    sides = rows.pivot(index="seed", columns="tuning", values="recovery") - wanted
    # A seed shows it if all tunings do, and the opposite if none does.
    found = {
        int(str(seed)): float(margins.min() if margins.min() >= 0 else min(margins.max(), 0.0))
        for seed, margins in sides.iterrows()
    }
    rows = rows.assign(nothing=rows["before"] / rows["whole"])
    means = rows.groupby("tuning", sort=False)[["recovery", "nothing"]].mean()
    said = "; ".join(
        f"{NAMES[str(t)]} {with_sign(row['recovery'])}, with nothing grafted "
        f"{with_sign(row['nothing'])}"
        for t, row in means.iterrows()
    )
    return Claim(
        "Grafting",
        f"A mask finds where recall is: it also recovers {100 * wanted:g} % of the recall of "
        f"people it was not fitted to ({name}).",
        True,
        word(found),
        f"Of their recall: {said}." if found else NOT_MEASURED,
        "",
    )


def _at_one_size(measures: Measures, chosen: pd.DataFrame) -> str:
    """Compare the share in S at one α where the chosen masks differ in size, which moves it."""
    if chosen["alpha"].nunique() < 2 or chosen["tuning"].nunique() < 2:
        return ""
    alpha = float(chosen["alpha"].max())
    rows = measures.fitted()
    rows = rows[rows["with_shared"].astype(bool) & (rows["split"] == chosen["split"].iloc[0])]
    means = rows[rows["alpha"] == alpha].groupby("tuning")["shared_fraction"].mean()
    sides = [f"{NAMES[t]} {with_sign(float(means[t]))}" for t in ("mix", "stage")]
    return (
        f" The masks differ in size; at α = {100 * alpha:g}{NO_BREAK}% both have: "
        f"{', '.join(sides)}."
    )


def _sizes(masks: pd.DataFrame) -> str:
    said = []
    for tuning in ("mix", "stage"):
        rows = masks[masks["tuning"] == tuning].sort_values("seed")
        sizes = [
            f"{100 * alpha:g}{NO_BREAK}%" if chosen else "none enough"
            for alpha, chosen in zip(rows["alpha"], rows["chosen"], strict=True)
        ]
        before = (rows["accuracy"] / rows["recovery"]).mean()
        said.append(f"{NAMES[tuning]} {', '.join(sizes)} (to recall {with_sign(before)})")
    return f"α by seed: {'; '.join(said)}."


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
