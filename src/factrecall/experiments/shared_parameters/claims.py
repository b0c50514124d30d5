"""What the paper says of shared parameters, held claim by claim against this run.

Each claim becomes one difference a seed, positive where the run is as the claim says, and, where
the tables have intervals over people, bounds of its mean. One rule turns those into a verdict, the
same as for the headline. Claims of our own, which the paper does not test, are marked so.
"""

from __future__ import annotations

from collections.abc import Iterator

from factrecall.experiments.grafting.claims import grafting_claims
from factrecall.report.claim import NOT_MEASURED, Claim, compared, word
from factrecall.report.measures import Measures, by_seed_difference
from factrecall.report.published import RATIOS


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
