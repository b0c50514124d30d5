"""What the revised abstract says of what facts are read from, and our check by patching."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from factrecall.experiments.representations.measures import (
    RESTORED,
    SPLIT,
    Found,
    Represented,
    chosen,
    minus,
    single,
    together,
)
from factrecall.report.claim import (
    NAMES,
    NOT_MEASURED,
    Claim,
    Interval,
    Section,
    listed,
    with_sign,
    word,
)
from factrecall.report.tables import points
from factrecall.vocabulary import COMPARED

ANCHORS = ("subject", "relation")
"""What mixed training is said to read a fact off."""

CONTEXT = ("attribute", "other")
"""What else a biography has: attributes told before, and all other wording."""

ABSTRACT = "so in the abstract of version 2; no number"

_SECTION: Section = "What facts are read from"

_MINUS = "\N{MINUS SIGN}"


def reading_claims(measures: Represented) -> Iterator[Claim]:
    """Yield the claims on attribution and patching.

    Parameters
    ----------
    measures : Represented
        Of one model.
    """
    yield _read(
        measures,
        ANCHORS,
        "Mix-tuned models read a fact that is told off its subject and relation: these have a "
        "larger share of the attribution than in Stage-tuned ones.",
        1,
    )
    yield _read(
        measures,
        CONTEXT,
        "Stage-tuned models read it off the whole context: attributes told before and all other "
        "wording have a larger share than in Mix-tuned ones.",
        -1,
    )
    yield _patched(measures)


def _read(measures: Represented, roles: tuple[str, ...], text: str, sign: int) -> Claim:
    rows = chosen(measures.signature, format="bio", relation="all", split=SPLIT)
    sides = {t: _summed(chosen(rows, tuning=t), roles) for t in COMPARED}
    found = minus(*(single(sides[t], "share") for t in ("mix", "stage")))
    difference = together(_summed(chosen(rows, tuning="mix - stage"), roles), "share")
    said = NOT_MEASURED
    interval: Interval | None = None
    if found:
        shares = {t: with_sign(together(sides[t], "share").value) for t in COMPARED[::-1]}
        each = ", ".join(f"{NAMES[t]} {share.replace('-', _MINUS)}" for t, share in shares.items())
        said = f"Facts out: {each}; difference by seed {listed(found, points)} points."
    if difference.known:
        low, high = difference.low, difference.high
        interval = (low, high) if sign > 0 else (-high, -low)
        said += (
            f" 95 % interval {points(low)} to {points(high)}, a rough one: the bounds of the roles "
            "added up."
        )
    margins = {seed: sign * value for seed, value in found.items()}
    return Claim(_SECTION, text, False, word(margins, interval), said, ABSTRACT)


def _summed(rows: pd.DataFrame, roles: tuple[str, ...]) -> pd.DataFrame:
    """Add up roles, and their bounds, which is rough: the sum's mostly lie between them."""
    rows = rows[rows["role"].isin(roles)]
    columns = ["share", "share_low", "share_high"]
    return rows.groupby("seed", as_index=False)[columns].sum(min_count=len(roles))


def _patched(measures: Represented) -> Claim:
    """Judge two gains at once: another's state may do harm, and nothing is above harm."""
    rows = chosen(
        measures.patching, source="bio", target="qa", position="last", split=SPLIT, tuning="stage"
    )
    judged = rows[rows["layer"] == measures.middle] if measures.middle is not None else rows[:0]
    own, beyond = (
        single(chosen(judged, source_fact=donor), "gain") for donor in ("same", RESTORED)
    )
    margins = {seed: min(own[seed], beyond[seed]) for seed in own if seed in beyond}
    gains = [together(chosen(judged, source_fact=donor), "gain") for donor in ("same", RESTORED)]
    interval: Interval | None = None
    if all(gain.known for gain in gains):
        interval = (min(gain.low for gain in gains), min(gain.high for gain in gains))
    said = NOT_MEASURED
    if margins:
        said = (
            "Facts out, gained by the fact's own state, points by seed "
            f"{listed(own, points)}{_between(gains[0])}; what this is above another's, by seed "
            f"{listed(beyond, points)}{_between(gains[1])}. By layer, all seeds, gained: "
            f"{_by_layer(chosen(rows, source_fact='same'))}; above another's: "
            f"{_by_layer(chosen(rows, source_fact=RESTORED))}."
        )
    where = "" if measures.middle is None else f" ({measures.middle})"
    return Claim(
        _SECTION,
        "Stage-tuned models know what they do not recall: put behind the middle one of the layers "
        f"looked at{where} at the last token of the question, the state of the same fact told "
        "makes them answer rightly more often than no patch does, and than the state of another "
        "person's fact.",
        True,
        word(margins, interval),
        said,
        "",
    )


def _between(found: Found) -> str:
    if not found.known:
        return ""
    return f"; 95 % interval {points(found.low)} to {points(found.high)}"


def _by_layer(rows: pd.DataFrame) -> str:
    rows = rows[rows["seed"] < 0].sort_values("layer")
    return ", ".join(f"{row.layer}: {points(float(str(row.gain)))}" for row in rows.itertuples())
