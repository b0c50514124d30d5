"""What the paper says of shared parameters, held claim by claim against this run.

Each claim becomes one difference a seed, positive where the run is as the claim says, and, where
the tables have intervals over people, bounds of its mean. One rule turns those into a verdict, the
same as for the headline. Claims of our own, which the paper does not test, are marked so.
"""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from factrecall.experiments.grafting.claims import grafting_claims
from factrecall.report.claim import NAMES, NOT_MEASURED, Claim, Interval, compared, listed, word
from factrecall.report.measures import COMPARED, Measures, by_seed_difference, share_of
from factrecall.report.published import RATIOS, published, published_ablation
from factrecall.report.tables import percent, points

NEGLIGIBLE = 0.02
"""Points of accuracy that a random ablation may cost and count as nothing."""


def judge_claims(measures: Measures, paper: str) -> list[Claim]:
    """Hold every claim against one model's measures.

    Parameters
    ----------
    measures : Measures
        Of one model.
    paper : str
        The paper's model to compare with (see `published.counterpart`).
    """
    return [
        *_shared(measures, paper),
        *_ablation(measures, paper),
        *grafting_claims(measures, paper),
    ]


# --- shared parameters ------------------------------------------------------------------------


def _shared(measures: Measures, paper: str) -> Iterator[Claim]:
    every = measures.shared
    every = every[(every["set"] == "S") & (every["influence"] == measures.influence)]
    rows = every[every["k"] == measures.k]
    found = by_seed_difference(rows, "ratio")
    yield Claim(
        "Shared parameters",
        "Mixed training shares more parameters than two-stage training: |S|/k is larger at "
        "shared.k.",
        False,
        word(found),
        compared(rows, "ratio", found),
        f"{RATIOS[paper]:g} times as large" if paper in RATIOS else "",
    )
    by_k = {int(str(k)): by_seed_difference(part, "ratio") for k, part in every.groupby("k")}
    # A seed that is behind anywhere shows the opposite of "at every k".
    least = {s: min(by_k[k][s] for k in by_k if s in by_k[k]) for s in found}
    behind = [f"{k:,}" for k, by_seed in by_k.items() if any(d <= 0 for d in by_seed.values())]
    said = f"Not in every seed at k = {', '.join(behind)}." if behind else "So in every seed."
    yield Claim(
        "Shared parameters",
        "|S|/k is larger in mixed training at every k that was looked at.",
        False,
        word(least),
        said if least else NOT_MEASURED,
        "at every k",
    )
    excess = rows.assign(excess=rows["ratio"] - rows["null"])
    more = by_seed_difference(excess, "excess")
    yield Claim(
        "Shared parameters",
        "The tensors alone do not account for it: in mixed training |S|/k is also further above "
        "that of rankings permuted within each tensor.",
        True,
        word(more),
        compared(excess, "excess", more, before="Above the permuted rankings: "),
        "",
    )


# --- ablation ---------------------------------------------------------------------------------


def _ablation(measures: Measures, paper: str) -> Iterator[Claim]:
    rows = measures.ablated()
    out = rows[rows["split"] == "qa_out"]
    lost = out[out["ablated"] == "shared"]
    found = by_seed_difference(lost, "drop")
    bounds = [_interval(measures, t, "qa_out", "shared", "none") for t in COMPARED]
    stage, mix = bounds
    # Bounds of two intervals set as far apart as they allow: wider than that of the difference.
    interval = bounded = None
    if stage and mix:
        interval = (mix[0] - stage[1], mix[1] - stage[0])
        bounded = f" 95 % intervals of the two: {_between(mix)} and {_between(stage)}."
    yield Claim(
        "Ablation",
        "Putting back S costs Mix-tuned models more recall of unseen questions (QA out) than "
        "Stage-tuned ones.",
        False,
        word(found, interval),
        compared(lost, "drop", found, before="Lost: ", unit="points") + (bounded or ""),
        _paper_drops(paper),
    )
    before = out[out["ablated"] == "none"].set_index(["tuning", "seed"])["accuracy"]
    whole = before.reindex(pd.MultiIndex.from_frame(lost[["tuning", "seed"]])).to_numpy()
    part = lost.assign(part=share_of(lost["drop"], pd.Series(whole, index=lost.index)))
    shares = by_seed_difference(part, "part")
    yield Claim(
        "Ablation",
        "It also costs them the larger share of what they recalled on QA out.",
        True,
        word(shares),
        compared(part, "part", shares, before="Lost of what was recalled: "),
        "",
    )
    for control, described in _CONTROLS.items():
        yield _control(measures, out, control, described)
    yield _random(measures, rows, paper)


_CONTROLS = {
    "random": "as many random parameters",
    "random_by_tensor": "as many random parameters of the same tensors",
    "most_moved": "as many of those that fine-tuning moved most",
}


def _control(measures: Measures, out: pd.DataFrame, control: str, described: str) -> Claim:
    mix = out[out["tuning"] == "mix"].pivot(index="seed", columns="ablated", values="accuracy")
    mix = mix.reindex(columns=["shared", control])
    found = {int(str(s)): float(d) for s, d in (mix[control] - mix["shared"]).dropna().items()}
    interval = _interval(measures, "mix", "qa_out", "shared", control)
    said = f"By seed {listed(found, points)} points" if found else NOT_MEASURED
    if found and interval:
        said += f"; 95 % interval {_between(interval)}"
    return Claim(
        "Ablation",
        f"Putting back S costs Mix-tuned models more on QA out than putting back {described}.",
        control != "random",
        word(found, interval),
        said.removesuffix(".") + ".",
        "",
    )


def _random(measures: Measures, rows: pd.DataFrame, paper: str) -> Claim:
    lost = rows[rows["ablated"] == "random"]
    most = lost.assign(size=lost["drop"].abs()).groupby("seed")["size"].max()
    found = {int(str(seed)): NEGLIGIBLE - float(size) for seed, size in most.items()}
    pairs = {(t, s) for t, s in zip(lost["tuning"], lost["split"], strict=True)}
    bounds = [_interval(measures, t, s, "random", "none") for t, s in sorted(pairs)]
    known = [b for b in bounds if b]
    interval = None
    if known:
        nearest = [0.0 if low <= 0 <= high else min(abs(low), abs(high)) for low, high in known]
        furthest = [max(abs(low), abs(high)) for low, high in known]
        interval = (NEGLIGIBLE - max(furthest), NEGLIGIBLE - max(nearest))
    theirs = [
        abs(before - after)
        for tuning in COMPARED
        for split in ("bio", "qa_in", "qa_out")
        if (before := published(paper, tuning, split)) is not None
        and (after := published_ablation(paper, tuning, "random", split)) is not None
    ]
    return Claim(
        "Ablation",
        "Putting back as many random parameters changes accuracy by less than "
        f"{100 * NEGLIGIBLE:g} points on every split.",
        False,
        word(found, interval),
        f"Largest change by seed: {listed(most.to_dict(), percent)} points."
        if found
        else NOT_MEASURED,
        f"at most {max(theirs):.1f} points" if theirs else "",
    )


def _interval(
    measures: Measures, tuning: str, split: str, ablated: str, against: str
) -> Interval | None:
    rows = measures.intervals
    keys = {"tuning": tuning, "split": split, "ablated": ablated, "against": against}
    for column, wanted in keys.items():
        rows = rows[rows[column] == wanted]
    return None if rows.empty else (float(rows["low"].iloc[0]), float(rows["high"].iloc[0]))


def _between(interval: Interval) -> str:
    return f"{points(interval[0])} to {points(interval[1])}"


def _paper_drops(paper: str) -> str:
    drops = []
    for tuning in ("mix", "stage"):
        before = published_ablation(paper, tuning, "none", "qa_out")
        after = published_ablation(paper, tuning, "shared", "qa_out")
        if before is None or after is None:
            return ""
        drops.append(before - after)
    return f"{NAMES['mix']} {drops[0]:.1f} points, {NAMES['stage']} {drops[1]:.1f} points"
