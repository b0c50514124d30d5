"""The sections on shared parameters, ablation and grafting, and all claims: what templates show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from factrecall.experiments.shared_parameters.caveats import (
    grafting_cautions,
    shared_cautions,
)
from factrecall.experiments.shared_parameters.claims import judge_claims
from factrecall.experiments.shared_parameters.report_tables import (
    checks_table,
    grafting_table,
    shared_table,
)
from factrecall.report.claim import Claim
from factrecall.report.claims import Judged
from factrecall.report.measures import Measures
from factrecall.report.published import graft_source
from factrecall.report.style import TUNING_LABELS
from factrecall.report.tables import NO_BREAK, View, percent

PARTIALS = (
    "macros.html.j2",
    "claims.html.j2",
    "shared.html.j2",
    "section.html.j2",
    "grafting.html.j2",
)
"""Parts of the page's template. Named here, they count when it is asked what code a report is."""


@dataclass(frozen=True)
class Parameters:
    """What the page shows of one model's shared parameters.

    Attributes
    ----------
    claims : list of (str, list of Judged)
        By section.
    tally : str
        How many of the paper's claims hold, in words.
    cautions : dict of str to list of str
        By section: shared, grafting.
    tables : dict of str to Table
        By what they are of.
    k, size : str
        shared.k as a count, and the share of all parameters that is in S.
    recovery : str
        What a chosen mask recovers.
    source : str
        Where the paper's masks are read from.
    optimiser : str
        How masks were fitted.
    """

    claims: list[tuple[str, list[Claim | Judged]]]
    tally: str
    cautions: dict[str, list[str]]
    tables: dict[str, View]
    k: str
    size: str
    recovery: str
    source: str
    optimiser: str


def parameters(
    study: Mapping[str, Any], measures: Measures, further: Iterable[Claim | Judged], paper: str
) -> Parameters:
    """Judge one model's shared parameters.

    Parameters
    ----------
    study : mapping
        The resolved configuration.
    measures : Measures
        Of one model.
    further : iterable of Judged
        Claims on what these parameters do, listed and counted with those on themselves.
    paper : str
        The paper's model to compare with.
    """
    claims = [*judge_claims(measures, paper), *further]
    sections: dict[str, list[Claim | Judged]] = {}
    for claim in claims:
        sections.setdefault(claim.section, []).append(claim)
    return Parameters(
        claims=list(sections.items()),
        tally=_tally(claims),
        cautions={
            "shared": shared_cautions(measures),
            "grafting": grafting_cautions(measures),
        },
        tables={
            "shared": shared_table(measures, paper),
            "grafting": grafting_table(measures, paper),
            "checks": checks_table(measures),
        },
        k=f"{measures.k:,}",
        size=_sizes(measures),
        recovery=f"{100 * measures.recovery:g}{NO_BREAK}%",
        source=graft_source(paper),
        optimiser=study["grafting"]["optimiser"]["method"],
    )


def _tally(claims: list[Claim | Judged]) -> str:
    theirs = Counter(claim.verdict for claim in claims if not claim.is_extension)
    said = [
        f"{theirs['holds']} hold",
        f"{theirs['does not hold']} do not",
        f"{theirs['inconclusive']} are inconclusive",
    ]
    own = Counter(claim.verdict for claim in claims if claim.is_extension)
    return (
        f"Of {theirs.total()} further claims of the paper on shared parameters, circuits and "
        f"representations {', '.join(said)}; of {own.total()} checks added here "
        f"{own['holds']} hold."
    )


def _sizes(measures: Measures) -> str:
    means = measures.size_of_s().groupby("tuning", sort=False)["share"].mean()
    return " and ".join(
        f"{percent(float(share))}{NO_BREAK}% ({TUNING_LABELS[str(tuning)]})"
        for tuning, share in means.items()
    )
