"""Shared parameters in the report: how many two tasks share at every k, and in which tensors.

The module is long because a section is declared in one place: its claims, figures and captions.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from factrecall.report.ledger import Claim
from factrecall.report.marks import Heat, Lines, Reference
from factrecall.report.observations import mix_minus_stage, observe, where
from factrecall.report.plots import Axis, Figure, Panel
from factrecall.report.published import RATIOS
from factrecall.report.section import Section, Source
from factrecall.report.style import LINES, TUNING_LABELS
from factrecall.report.tables import Column, Table, percent
from factrecall.vocabulary import COMPARED

if TYPE_CHECKING:
    import pandas as pd

MOSTLY = 0.5
"""From which share on something counts as most of it."""

SMALL, FEW = 1e5 / 3.2e9, 100
"""Small k: below this share of all parameters, as in the paper, but at least so many."""

PART = 0.02
"""The share of all parameters that the paper's S is less than."""

INFLUENCES = {
    "absolute": "Absolute: Σ |lr·g|",
    "magnitude": "Magnitude: |Σ lr·g|",
    "signed": "Signed: Σ lr·g",
    "adam": "AdamW’s steps: |Σ lr·h/√v|",
}
SETS = {"S_I": "S I: BIO in, QA in", "S_II": "S II: BIO out, QA in", "S": "S: either"}
_SHORT = {
    "self_attn.": "", "mlp.dense_h_to_4h": "MLP up", "mlp.dense_4h_to_h": "MLP down", "mlp.": "",
    "attention.query_key_value": "query, key, value", "attention.dense": "attention out",
    "post_attention_layernorm": "norm before MLP", "input_layernorm": "norm at input",
    "model.": "", "gpt_neox.": "", ".bias": ": bias",
}  # fmt: skip
"""What a kind of tensor is called in a figure: what tells it from the others of its model."""


class Shared(Source):
    """One model's shared parameters."""

    @property
    def k(self) -> int:
        """How many parameters of each ranking were taken; 0 where nothing was selected.

        It is a share of all, so that replicates of other sizes differ: the most of any.
        """
        return max(map(int, where(self.rows("shared"), selected=True)["k"]), default=0)

    def curve(self) -> pd.DataFrame:
        """Return |S(k)|/k of all influences."""
        return where(self.rows("shared"), set="S")

    def at_k(self) -> pd.DataFrame:
        """Return all sets and influences at the k of each run."""
        rows, run = self.rows("shared"), ["tuning", "seed", "k"]
        return rows.merge(where(rows, selected=True)[run].drop_duplicates(), on=run)

    def at_s(self) -> pd.DataFrame:
        """Return |S(k)|/k of the study's k and influence: of what S is."""
        return where(self.curve(), selected=True)

    def decades(self, share: float) -> dict[str, pd.DataFrame]:
        """Return |S(k)|/k at k = 10, 100 … up to a share of all parameters."""
        rows = where(self.curve(), influence=self.settings["influence"])
        ks = [10**power for power in range(1, 20) if 10**power <= share * self.parameters]
        return {f"k = {k:,}": where(rows, k=k) for k in ks if k in set(rows["k"])}

    def tensors(self) -> pd.DataFrame:
        """Return the members of S by tensor."""
        return where(self.rows("shared_locations"), set="S")

    @property
    def parameters(self) -> int:
        """How many parameters the model has; 0 if that is not known."""
        return int(self.tensors().drop_duplicates("tensor")["parameters"].sum())

    def kinds(self) -> pd.DataFrame:
        """Return the share in S by layer and kind of tensor, the mean over seeds."""
        rows = self.tensors()
        shares = rows.assign(share=rows["shared"] / rows["parameters"])
        return shares.groupby(["tuning", "layer", "kind"], sort=False)["share"].mean().reset_index()

    def size_of_s(self) -> pd.DataFrame:
        """Return the share of all parameters that is in S: columns tuning, seed, share."""
        sums = self.tensors().groupby(["tuning", "seed"], sort=False)[["shared", "parameters"]]
        return sums.sum().eval("share = shared / parameters").reset_index()


# --- claims -----------------------------------------------------------------------------------


def larger(rows: pd.DataFrame) -> pd.DataFrame:
    """Return Mix-tuned minus Stage-tuned |S|/k, relative to the smaller of both.

    Unlike a change from Stage-tuned models, it turns where labels are exchanged.
    """
    sides = rows.pivot(index="seed", columns="tuning", values="ratio")
    sides = sides.reindex(columns=list(COMPARED))
    change = (sides["mix"] - sides["stage"]) / sides.min(axis=1).replace(0, math.nan)
    return change.rename("value").dropna().reset_index()


def _too_few(m: Shared) -> str | None:
    k = SMALL * m.parameters
    said = f"the paper’s k < 100,000 is, as a share of all parameters, k < {k:,.0f} here: too few"
    return said if k < FEW else None


def _cannot_fail(m: Shared) -> str | None:
    share = m.k / max(m.parameters, 1)
    return f"S cannot be more than k, {percent(share)} % of all" if share <= PART else None


def _by_tuning(rows: pd.DataFrame, value: str) -> dict[str, pd.DataFrame]:
    return {TUNING_LABELS[t]: observe(rows, value, tuning=t) for t in COMPARED}


_PAPER = "v1, section 3.1 and figure 2"
_OF_K: dict[str, Any] = {"bound": 0.01, "why": "One hundredth of k."}
_RELATIVE: dict[str, Any] = {
    "bound": 0.02, "unit": "%",
    "why": "A relative change of 2 % is about one hundredth of k if half of k is shared.",
    "compares_tunings": True,
}  # fmt: skip

CLAIMS = (
    Claim(
        id="shared.mix-shares-more",
        text="S is larger in mixed than in two-stage training, at the same k.",
        observe=lambda m: larger(m.at_s()),
        published=lambda m: RATIOS[m.paper] - 1 if m.paper in RATIOS else None,
        source="v1, section 3.1 and appendix A.4.1", **_RELATIVE,
    ),
    Claim(
        id="shared.at-every-k",
        text="S is larger in mixed than in two-stage training at every k: 10, 100, 1,000 and so "
        "on.",
        observe=lambda m: {k: mix_minus_stage(rows, "ratio") for k, rows in m.decades(1).items()},
        quote="at every k from 10 to 100,000,000", compares_tunings=True, source=_PAPER, **_OF_K,
    ),
    Claim(
        id="shared.small-k",
        text=f"At every small k, up to {100 * SMALL:.2g} % of all parameters, more than 60 % of "
        "the k are shared in mixed training.",
        observe=lambda m: {
            k: observe(rows, "ratio", tuning="mix") for k, rows in m.decades(SMALL).items()
        },
        unmeasurable=_too_few, quote="over 60 % of k", source=_PAPER, bound=0.6,
        why="The share that the paper reports for k below 100,000 (of 3.2 billion parameters).",
    ),
    Claim(
        id="shared.small-part",
        text=f"S is less than {100 * PART:g} % of all parameters, in Stage-tuned and in Mix-tuned "
        "models.",
        observe=lambda m: _by_tuning(m.size_of_s(), "share"),
        unmeasurable=_cannot_fail, quote="fewer than 2 % of all parameters", source=_PAPER,
        bound=PART, comparison="less",
        why="The limit that the paper reports for k of 3 % of all parameters.",
    ),
    Claim(
        id="shared.every-reading",
        text="At the same k, S is larger in mixed than in two-stage training for each of four "
        "influences: absolute, magnitude, signed and adam.",
        observe=lambda m: {i: larger(where(m.at_k(), set="S", influence=i)) for i in INFLUENCES},
        **_RELATIVE,
    ),
    Claim(
        id="shared.beyond-tensors",
        text="|S|/k exceeds its expectation under rankings permuted within each tensor by more in "
        "mixed than in two-stage training.",
        observe=lambda m: mix_minus_stage(m.at_s().eval("e = ratio - null"), "e"),
        compares_tunings=True, **_OF_K,
    ),
)  # fmt: skip

# --- how far to trust them --------------------------------------------------------------------


def tensors_account_for_most(m: Shared) -> list[str]:
    """Say where the tensors that both tasks rank highly account for most of the overlap."""
    means = m.at_s().groupby("tuning", sort=False)[["ratio", "null"]].mean()
    return [
        f"{TUNING_LABELS[str(tuning)]}: of the {percent(ratio)} % of k that are shared, "
        f"{percent(null)} come of both tasks ranking the same tensors highly."
        for tuning, ratio, null in means.itertuples()
        if null > MOSTLY * ratio
    ]


def one_tensor_holds_much(m: Shared) -> list[str]:
    """Say how much of S is in its top tensor, where that is a good part of it."""
    sums = m.tensors().groupby(["tuning", "tensor"], sort=False)[["shared", "parameters"]].sum()
    sums["part"] = sums["shared"] / sums.groupby("tuning")["shared"].transform("sum").clip(lower=1)
    top = sums.sort_values("part", ascending=False).groupby("tuning", sort=False).head(1)
    return [
        f"{TUNING_LABELS[tuning]}: one tensor, {tensor}, holds {percent(part)} % of S; "
        f"{percent(shared / parameters)} % of its parameters are in S."
        for (tuning, tensor), shared, parameters, part in top.itertuples()
        if part > MOSTLY / 2
    ]


# --- tables and figures -----------------------------------------------------------------------


def _long(data: pd.DataFrame, m: Shared) -> pd.DataFrame:
    """Return a row for each point of the lines of both tunings."""
    columns = {"ratio": "shared", "null": "permuted within tensors"}
    keys = ["influence", "tuning", "seed", "k"]
    long = data.melt(keys, list(columns), "line", "share")
    return long.assign(line=long["line"].map(columns))


def _chance(panel: Panel) -> None:
    """Draw what random rankings would share, the mean over runs: they hardly differ."""
    rows = where(panel.measures.curve(), influence=panel.key["influence"])
    chance = rows.groupby("k")["chance"].mean()
    (line,) = panel.axes.plot(chance.index, 100 * chance, **LINES["random"])
    panel.legend["random rankings"] = line


def _cells(data: pd.DataFrame, m: Shared) -> pd.DataFrame:
    place = (data["layer"] < 0).map({False: "layers", True: "outside"})
    return data.assign(where=place, kind=data["kind"].map(short_kind))


def short_kind(kind: str) -> str:
    """Shorten a kind of tensor to what tells it from the others of both architectures."""
    for long, short in _SHORT.items():
        kind = kind.replace(long, short)
    return kind


def _no_layers(panel: Panel) -> None:
    if panel.key["where"] == "outside":
        panel.axes.set_xticks([])
    else:
        panel.axes.set_xlabel("layer")


def _where(key: dict[str, Any], m: Shared) -> str:
    if key["where"] == "outside":
        return "outside the layers"
    whole = m.size_of_s().groupby("tuning")["share"].mean()
    return f"{TUNING_LABELS[key['tuning']]}\n{100 * whole[key['tuning']]:.2f} % of all"


SECTION = Section(
    name="shared",
    title="Shared parameters",
    question="Do statements and questions have their largest summed gradients on the same "
    "parameters, and more so in mixed training?",
    read=Shared,
    reads=("shared", "shared_locations"),
    settings=lambda study, model: {"influence": study.shared.influence},
    claims=CLAIMS,
    trust=(tensors_account_for_most, one_tensor_holds_much),
    figures=(
        Figure(
            "shared",
            data=Shared.curve,
            schema={"influence": "string", "tuning": "string", "seed": "int32", "k": "int64",
                    "ratio": "float64", "chance": "float64", "null": "float64"},
            prepare=_long,
            row="influence",
            layers=(
                Lines("k", "share", style="line", units="seed"),
                Reference(lambda panel: panel.measures.k or None, "marked",
                          lambda panel: f"k of this study: {panel.measures.k:,}", axis="x"),
            ),
            labels={
                "influence": INFLUENCES,
                "line": {x: x for x in ("shared", "permuted within tensors")},
            },
            titles=lambda key, m: INFLUENCES[key["influence"]]
            + (" (used here)" if key["influence"] == m.settings["influence"] else ""),
            height=1.25,
            x=Axis("k: parameters taken from each ranking", scale="log", write="{:,.0f}".format),
            y=Axis("shared, in per cent of k", percent=("share",), limits=(0, 100),
                   ticks=range(0, 101, 25), grid=True),
            annotate=_chance,
            caption="<b>How much is shared.</b> |S(k)|/k in per cent, for each reading of "
            "influence; thick lines are means over seeds. Dashed: the ranking of questions "
            "permuted within each tensor, so that what is above it comes from places inside "
            "tensors.",
        ),
        Figure(
            "shared_places",
            data=Shared.kinds,
            schema={"tuning": "string", "layer": "int32", "kind": "string", "share": "float64"},
            prepare=_cells,
            row="where",
            col="tuning",
            layers=(
                Heat("share", "kind", "layer", power=0.4, numbers=4, write=".1f",
                     bar="of a tensor’s parameters in S (%)"),
            ),
            labels={"where": {"layers": "", "outside": ""}},
            titles=_where,
            height=lambda rows: 0.2 * rows["kind"].nunique() + 0.45,
            x=Axis(percent=("share",)),
            share_x=False,
            share_y="row",
            annotate=_no_layers,
            caption="<b>Where S is.</b> Each cell is a tensor: the share of its parameters that is "
            "in S, mean over seeds. Were S spread evenly, every cell would hold the share in the "
            "title. A dark cell of a small tensor holds few parameters.",
        ),
    ),
    tables=(
        Table(
            lambda m: f"|S|/k in per cent at k = {m.k:,}: mean ± s.d. over seeds. Permuted: the "
            "ranking of questions permuted within each tensor; chance: drawn from all parameters.",
            data=Shared.at_k,
            group="influence",
            row="set",
            columns=(Column("", "ratio"), Column(", permuted", "null")),
            last=(Column("chance", "chance"),),
            labels={"influence": INFLUENCES, "set": SETS},
            head="Set",
        ),
    ),
    method="<p>While a model is fine-tuned, the gradients of a few people’s biographies and "
    "questions are added up, parameter by parameter, and each task’s parameters are ranked by "
    "these sums. S holds those among the first k of both, of the same people (S I) or of "
    "statements about some people and questions about others (S II). k, {{ '{:,}'.format(m.k) }}, "
    "is the size of each ranking’s top; |S| is a share of it. S is not what both tasks moved most: "
    "AdamW’s steps are not proportional to gradients.</p><p>Differences in per cent are relative "
    "to the smaller of both. There are no people: intervals are over training runs alone. The "
    "reading of influence was chosen for sharing most and for what resetting its S cost.</p>",
)  # fmt: skip
