"""Claims on what answers depend on: the revised abstract's, and our own check by patching."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from factrecall.report.ledger import SMALLEST, Claim
from factrecall.report.observations import estimated, minus, observe, where
from factrecall.report.section import Source
from factrecall.report.style import TUNING_LABELS
from factrecall.report.tables import percent
from factrecall.vocabulary import COMPARED

if TYPE_CHECKING:
    import pandas as pd

SPLIT = "out"
"""Whose facts are judged: no question on them was ever trained on."""

ANCHORS = ("subject", "relation")
"""The parts that mixed training is said to read a statement off."""

CONTEXT = ("attribute", "other")
"""What else a biography has: attributes stated before, and all other wording."""

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

_FACT = ["tuning", "seed", "individual", "relation"]


class Attributions(Source):
    """One model's attributions and patches."""

    def attributions(self, **keys: Any) -> pd.DataFrame:
        """Return the roles in the prompts of facts out; without tokens they have no share."""
        rows = where(self.per_run("attribution"), split=SPLIT)
        fact = [rows[key] for key in (*_FACT, "format")]
        whole = rows["attribution"].abs().groupby(fact).transform("sum")
        share = rows["attribution"] / whole.where(whole > 0)
        rows = rows.assign(
            share=share.where(rows["tokens"] > 0),
            logit_drop=rows["logit"] - rows["replaced_logit"],
            replaced=rows["replaced_logit"].notna(),
        )
        return where(rows, **keys)

    def by_role(self) -> pd.DataFrame:
        """Return means of shares and lost logits, of each seed and of all together."""
        cell, rows = ["tuning", "format", "role"], self.attributions()
        counts = rows.groupby(cell)["replaced"].agg(facts="size", replaced="sum")
        return estimated(rows, cell, "share", "logit_drop").join(counts, on=cell)

    def patches(self, **keys: Any) -> pd.DataFrame:
        """Return the patches of facts out."""
        rows = where(self.per_run("patching"), split=SPLIT, **keys)
        return rows.assign(gain=rows["right"].astype(float) - rows["unpatched"])

    def gains(self) -> pd.DataFrame:
        """Return the gains of accuracy by place of the patch, of each seed and all together."""
        cell = ["tuning", "source", "target", "layer", "position", "source_fact"]
        return estimated(self.patches(), cell, "gain")

    @property
    def middle(self) -> int | None:
        """The middle one of the patched layers, the lower of two; None if none was patched."""
        layers = sorted({int(layer) for layer in self.per_run("patching")["layer"]})
        return layers[(len(layers) - 1) // 2] if layers else None

    def restored(self, **keys: Any) -> pd.DataFrame:
        """Return whether questions that are answered wrongly are answered rightly with a patch.

        A row a fact and layer, patched at the last token: `own` with the state of the fact's
        statement, `another` with that of another person's fact; `value` is the difference.
        """
        rows = self.patches(source="bio", target="qa", position="last", unpatched=False, **keys)
        sides = rows.pivot(index=[*_FACT, "layer"], columns="source_fact", values="right")
        sides = sides.reindex(columns=["same", "other"]).dropna().astype(float)
        sides.columns = ["own", "another"]
        return sides.assign(value=sides["own"] - sides["another"]).reset_index()


def _share(roles: tuple[str, ...], tunings: tuple[str, str]) -> Callable[[Attributions], Any]:
    """Return what compares the share of parts of statements between two tunings, by person."""

    def observed(m: Attributions) -> pd.DataFrame:
        rows = m.attributions(format="bio")
        rows = rows[rows["role"].isin(roles)].dropna(subset=["share"])
        sums = rows.groupby(_FACT, as_index=False)["share"].sum()
        return minus(*(observe(sums, "share", tuning=tuning) for tuning in tunings))

    return observed


def restored_in_stage(m: Attributions) -> pd.DataFrame:
    """Observe what a fact's own state restores beyond another's, in Stage-tuned models."""
    return observe(m.restored(layer=m.middle), "value", tuning="stage")


def more_restored_in_stage(m: Attributions) -> pd.DataFrame:
    """Compare that with Mix-tuned models, on facts that neither of both recalls."""
    rows = m.restored(layer=m.middle)
    fact = ["seed", "individual", "relation"]
    rows = rows[rows.groupby(fact)["tuning"].transform("nunique") == len(COMPARED)]
    return minus(*(observe(rows, "value", tuning=tuning) for tuning in COMPARED))


CLAIMS = (
    Claim(
        id="attribution.mix-reads-subject-and-relation",
        text="In statements, subject and relation have a larger share of the answer's attribution "
        "in Mix-tuned than in Stage-tuned models.",
        observe=_share(ANCHORS, ("mix", "stage")),
        **SMALLEST,
        source="abstract of version 2",
        quote="stated, no number printed",
        compares_tunings=True,
    ),
    Claim(
        id="attribution.stage-reads-context",
        text="In statements, attributes stated before and wording other than subject and relation "
        "have a larger share of the answer's attribution in Stage-tuned than in Mix-tuned models.",
        observe=_share(CONTEXT, ("stage", "mix")),
        **SMALLEST,
        source="abstract of version 2",
        quote="stated, no number printed",
        compares_tunings=True,
    ),
    Claim(
        id="attribution.stage-knows-more-than-it-recalls",
        text="In Stage-tuned models, patching in the state of the fact's own statement corrects "
        "more wrongly answered questions than patching in that of another person's statement.",
        observe=restored_in_stage,
        **SMALLEST,
    ),
    Claim(
        id="attribution.stage-knows-more-than-mix",
        text="Among questions that both models answer wrongly, patching in the fact's own "
        "statement, net of another person's, corrects more in Stage-tuned than in Mix-tuned "
        "models.",
        observe=more_restored_in_stage,
        **SMALLEST,
        compares_tunings=True,
    ),
)


def start_token(m: Attributions) -> str | None:
    """Say how much is attributed to the start token."""
    rows = m.attributions(role="start")
    share = rows.groupby(["tuning", "format"])["share"].mean().abs().max()
    if not share > START:
        return None
    return (
        f"The start token, which holds nothing of the fact, has up to {percent(float(share))} % of "
        "the attribution. That share does not tell what the answer depends on."
    )


def few_statements_known(m: Attributions) -> list[str]:
    """Say where a model does not know the statements whose states are patched."""
    known = m.patches(target="bio", source_fact="same").groupby("tuning")["unpatched"].mean()
    return [
        f"The {TUNING_LABELS[tuning]} model continues only {percent(float(mean))} % of these "
        "biographies rightly. States of statements that it does not know cannot restore answers."
        for tuning, mean in known.items()
        if mean < MOSTLY
    ]
