"""The revised abstract's claims on what answers depend on, and our check by patching."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from factrecall.experiments.attribution.tables import RESTORED
from factrecall.experiments.common.estimates import (
    MINUS,
    SPLIT,
    TOGETHER,
    Estimate,
    chosen,
    single,
    together,
)
from factrecall.report.claims import NAMES, Claim, Quantity, listed, minus, with_sign
from factrecall.report.section import Source
from factrecall.report.tables import points
from factrecall.vocabulary import COMPARED

if TYPE_CHECKING:
    import pandas as pd

ANCHORS = ("subject", "relation")
"""The parts that mixed training is said to anchor facts to."""

CONTEXT = ("attribute", "other")
"""What else a biography has: attributes stated before, and all other wording."""

ABSTRACT = "so in the abstract of version 2; no number"

ROLES = {
    "subject": "name, pronouns",
    "relation": "wording of\nthe relation",
    "another relation": "… of\nanother relation",
    "attribute": "attributes\nstated before",
    "other": "all other wording",
    "start": "start token",
}
"""Roles in the order in which they are shown; the third is a counterfactual only."""

MOSTLY = 0.5
START = 0.2
"""The share of attribution from which the start token, which holds no fact, is worth a word."""


class Attributions(Source):
    """One model's attributions and patches."""

    def attributions(self, **keys: Any) -> pd.DataFrame:
        """Return the attributions of facts out over all relations; no tokens have no share."""
        rows = chosen(self.rows("attribution"), relation="all", split=SPLIT, **keys)
        there = rows["tokens"] > 0
        shares = ("share", "share_low", "share_high")
        return rows.assign(**{column: rows[column].where(there) for column in shares})

    def drawn(self) -> pd.DataFrame:
        """Return the attributions of both tunings."""
        rows = self.attributions()
        return rows[rows["tuning"].isin(COMPARED)]

    def patches(self, **keys: Any) -> pd.DataFrame:
        """Return the patches of facts out."""
        return chosen(self.rows("patching"), split=SPLIT, **keys)

    def gains(self) -> pd.DataFrame:
        """Return the gains of both tunings, all seeds together."""
        rows = self.patches(seed=TOGETHER)
        return rows[rows["tuning"].isin(COMPARED) & (rows["source_fact"] != RESTORED)]

    @property
    def middle(self) -> int | None:
        """The middle one of the patched layers, the lower of two; None if none was patched."""
        layers = sorted({int(layer) for layer in self.rows("patching")["layer"]})
        return layers[(len(layers) - 1) // 2] if layers else None

    def at_last_token(self, **keys: Any) -> pd.DataFrame:
        """Return the patches of questions with the states of statements at the last token."""
        return self.patches(source="bio", target="qa", position="last", **keys)


def _summed(rows: pd.DataFrame, roles: tuple[str, ...]) -> pd.DataFrame:
    """Add up roles, and their bounds, which is rough: the sum's mostly lie between them."""
    rows = rows[rows["role"].isin(roles)]
    columns = ["share", "share_low", "share_high"]
    return rows.groupby("seed", as_index=False)[columns].sum(min_count=len(roles))


def _depends(roles: tuple[str, ...], sign: int, m: Attributions) -> Quantity:
    """Compare the share of some parts in Mix-tuned and Stage-tuned models."""
    rows = m.attributions(format="bio")
    sides = {t: _summed(chosen(rows, tuning=t), roles) for t in COMPARED[::-1]}
    found = minus(*(single(side, "share") for side in sides.values()))
    difference = together(_summed(chosen(rows, tuning="mix - stage"), roles), "share")
    shares = {t: with_sign(together(side, "share").value) for t, side in sides.items()}
    each = ", ".join(f"{NAMES[t]} {share.replace('-', MINUS)}" for t, share in shares.items())
    said = f"Facts out: {each}; difference by seed {listed(found, points)} points."
    interval = difference.interval
    if interval:
        said += difference.sentence()[:-1] + ", a rough one: the bounds of the roles added up."
        interval = interval if sign > 0 else (-interval[1], -interval[0])
    return Quantity({seed: sign * value for seed, value in found.items()}, said, interval)


def _restores(m: Attributions) -> Quantity:
    """Judge two gains at once: another's state may do harm, and nothing is above harm."""
    judged = m.at_last_token(tuning="stage", layer=m.middle)
    own, beyond = (single(judged, "gain", source_fact=f) for f in ("same", RESTORED))
    margins = {seed: min(own[seed], beyond[seed]) for seed in own if seed in beyond}
    gains = [together(judged, "gain", source_fact=f) for f in ("same", RESTORED)]
    interval = None
    if all(gain.known for gain in gains):
        interval = (min(gain.low for gain in gains), min(gain.high for gain in gains))
    rows = m.at_last_token(tuning="stage", seed=TOGETHER).sort_values("layer")
    layers = (
        ", ".join(f"{row.layer}: {points(float(str(row.gain)))}"
                  for row in chosen(rows, source_fact=f).itertuples())
        for f in ("same", RESTORED)
    )  # fmt: skip
    return Quantity(
        margins,
        f"Facts out, after layer {m.middle}, gained by the fact's own state, points by seed "
        f"{listed(own, points)}{_between(gains[0])}; what this is above another's, by seed "
        f"{listed(beyond, points)}{_between(gains[1])}. By layer, all seeds, gained: "
        f"{next(layers)}; above another's: {next(layers)}.",
        interval,
    )


def _between(found: Estimate) -> str:
    return f";{found.sentence()[:-1]}" if found.known else ""


CLAIMS = (
    Claim(
        "Mix-tuned models rely on a statement's subject and relation: these have a larger share "
        "of the attribution than in Stage-tuned ones.",
        partial(_depends, ANCHORS, 1),
        ABSTRACT,
    ),
    Claim(
        "Stage-tuned models rely on the whole context of a statement: attributes stated before and "
        "all other wording have a larger share than in Mix-tuned ones.",
        partial(_depends, CONTEXT, -1),
        ABSTRACT,
    ),
    Claim(
        "Stage-tuned models know what they do not recall: patched after the middle one of the "
        "patched layers at the last token of the question, the state of the fact's statement makes "
        "them answer rightly more often than no patch does, and than the state of another person's "
        "fact.",
        _restores,
        is_extension=True,
    ),
)


def start_token(m: Attributions) -> str | None:
    """Say how much is attributed to the start token."""
    share = chosen(m.drawn(), role="start", seed=TOGETHER)["share"].abs().max()
    if not share > START:
        return None
    return (
        "The start token, which holds nothing of the fact, has up to "
        f"{with_sign(float(share))} of the attribution. That share does not tell what the answer "
        "depends on."
    )


def few_replaced(m: Attributions) -> str | None:
    """Say which parts could be replaced in few facts."""
    rows = chosen(m.drawn(), seed=TOGETHER)
    part = rows["replaced"] / rows["facts"].where(rows["facts"] > 0)
    short = rows[(part < MOSTLY) & rows["logit_drop"].notna()].drop_duplicates(["format", "role"])
    each = "; ".join(
        f"{ROLES[row.role]}, {'statements' if row.format == 'bio' else 'questions'} "
        f"({row.replaced} of {row.facts})"
        for row in short.itertuples()
    )
    each = each.replace("\n", " ")
    return (
        f"Some parts could be replaced in fewer than half of the facts: {each}." if each else None
    )


def few_statements_known(m: Attributions) -> list[str]:
    """Say where a model does not know the statements whose states are patched."""
    rows = m.patches(seed=TOGETHER, target="bio", source_fact="same")
    means = {t: chosen(rows, tuning=t)["unpatched"].mean() for t in COMPARED}
    return [
        f"The {NAMES[t]} model continues only {with_sign(float(mean))} of these biographies "
        "rightly. The states of statements that it does not know cannot restore answers."
        for t, mean in means.items()
        if mean < MOSTLY
    ]
