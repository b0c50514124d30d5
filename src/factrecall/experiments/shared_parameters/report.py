"""Shared parameters in the report: how many two tasks share at every k, and in which tensors.

The module is long because a section is declared in one place: its figures, tables, claims and
captions.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

from factrecall.experiments.shared_parameters.top_tensors import TOP, Gathering, read_gatherings
from factrecall.report.claims import (
    NAMES,
    Claim,
    Quantity,
    by_seed_difference,
    compared,
    with_sign,
)
from factrecall.report.marks import Heat, Lines, Reference
from factrecall.report.plots import Axis, Figure, Panel
from factrecall.report.published import RATIOS
from factrecall.report.section import Caveats, Section, Source, Text
from factrecall.report.style import LINES, TUNING_LABELS
from factrecall.report.tables import MISSING, Column, Table, View, percent
from factrecall.runtime.errors import FactRecallError
from factrecall.vocabulary import COMPARED, TUNINGS

if TYPE_CHECKING:
    import pandas as pd

MOSTLY = 0.5
"""From which share on something counts as most of it."""

INFLUENCES = {
    "absolute": "Absolute: Σ |lr·g|",
    "magnitude": "Magnitude: |Σ lr·g|",
    "signed": "Signed: Σ lr·g",
}
SETS = {"S_I": "S I: BIO in, QA in", "S_II": "S II: BIO out, QA in", "S": "S: either"}
_SHORT = (
    ("self_attn.", ""),
    ("mlp.dense_h_to_4h", "MLP up"),
    ("mlp.dense_4h_to_h", "MLP down"),
    ("mlp.", ""),
    ("attention.query_key_value", "query, key, value"),
    ("attention.dense", "attention out"),
    ("post_attention_layernorm", "norm before MLP"),
    ("input_layernorm", "norm at input"),
    ("model.", ""),
    ("gpt_neox.", ""),
    (".bias", ": bias"),
)
"""What a kind of tensor is called in a figure: what tells it from the others of its model."""


class Shared(Source):
    """One model's shared parameters."""

    @cached_property
    def selection(self) -> tuple[int, str]:
        """The k and the influence that S was selected by; 0 and nothing where none was.

        Raises
        ------
        FactRecallError
            When the table does not say.
        """
        rows = self.rows("shared")
        if "selected" not in rows:
            raise FactRecallError(
                str(self.files["shared"]),
                "it does not say at which k the shared parameters were selected: an earlier "
                "version of factrecall made it",
                "run the workflow again; it will be made anew",
            )
        rows = rows[rows["selected"].astype(bool)]
        return (int(rows["k"].iloc[0]), str(rows["influence"].iloc[0])) if len(rows) else (0, "")

    @property
    def k(self) -> int:
        """How many parameters of each ranking were taken."""
        return self.selection[0]

    @property
    def influence(self) -> str:
        """The influence that S was ranked by."""
        return self.selection[1]

    def curve(self) -> pd.DataFrame:
        """Return |S(k)|/k of all influences."""
        rows = self.rows("shared")
        return rows[rows["set"] == "S"]

    def curve_of_study(self) -> pd.DataFrame:
        """Return |S(k)|/k of the study's influence."""
        rows = self.curve()
        return rows[rows["influence"] == self.influence]

    def at_k(self) -> pd.DataFrame:
        """Return all sets and influences at the study's k."""
        rows = self.rows("shared")
        return rows[rows["k"] == self.k]

    def tensors(self) -> pd.DataFrame:
        """Return the members of S by tensor."""
        rows = self.rows("shared_locations")
        return rows[rows["set"] == "S"]

    @property
    def parameters(self) -> int:
        """How many parameters the model has; 0 if that is not known."""
        rows = self.tensors()
        return int(rows.drop_duplicates("tensor")["parameters"].sum())

    def kinds(self) -> pd.DataFrame:
        """Return the share in S by layer and kind of tensor, the mean over seeds."""
        rows = self.tensors()
        shares = rows.assign(share=rows["shared"] / rows["parameters"])
        return shares.groupby(["tuning", "layer", "kind"], sort=False)["share"].mean().reset_index()

    def size_of_s(self) -> pd.DataFrame:
        """Return the share of all parameters that is in S: columns tuning, seed, share."""
        sums = self.tensors().groupby(["tuning", "seed"], sort=False)[["shared", "parameters"]]
        sums = sums.sum()
        return (sums["shared"] / sums["parameters"]).rename("share").reset_index()

    def sizes(self) -> str:
        """Say how much of all parameters is in S."""
        means = self.size_of_s().groupby("tuning", sort=False)["share"].mean()
        each = (f"{with_sign(float(s))} ({TUNING_LABELS[str(t)]})" for t, s in means.items())
        return " and ".join(each) or "not measured"

    def gatherings(self) -> dict[str, list[Gathering]]:
        """Return where traced gradients gathered, by tuning, for the runs that were traced."""
        found = {
            tuning: read_gatherings(path, self.settings["influence"])[1]
            for (tuning, _), path in self.runs("trace").items()
        }
        return found


# --- claims -----------------------------------------------------------------------------------


def _more_at_k(m: Shared) -> Quantity:
    rows = m.curve_of_study()
    return compared(rows[rows["k"] == m.k], "ratio")


def _more_at_every_k(m: Shared) -> Quantity:
    rows = m.curve_of_study()
    by_k = {int(str(k)): by_seed_difference(part, "ratio") for k, part in rows.groupby("k")}
    # A seed that is behind anywhere shows the opposite of "at every k".
    least = {s: min(d[s] for d in by_k.values() if s in d) for s in by_k.get(m.k, {})}
    behind = [f"{k:,}" for k, found in by_k.items() if any(d <= 0 for d in found.values())]
    said = f"Not in every seed at k = {', '.join(behind)}." if behind else "So in every seed."
    return Quantity(least, said)


def _more_above_permuted(m: Shared) -> Quantity:
    rows = m.curve_of_study()
    rows = rows[rows["k"] == m.k]
    excess = rows.assign(excess=rows["ratio"] - rows["null"])
    return compared(excess, "excess", "Above the permuted rankings: ")


CLAIMS = (
    Claim(
        "Mixed training shares more parameters than two-stage training: |S|/k is larger at "
        "shared.k.",
        _more_at_k,
        lambda m: f"{RATIOS[m.paper]:g} times as large" if m.paper in RATIOS else "",
    ),
    Claim(
        "|S|/k is larger in mixed training at every k that was looked at.",
        _more_at_every_k,
        "at every k",
    ),
    Claim(
        "The tensors alone do not account for it: in mixed training |S|/k is also further above "
        "that of rankings permuted within each tensor.",
        _more_above_permuted,
        is_extension=True,
    ),
)

# --- caveats, tables, figures -----------------------------------------------------------------


def tensors_account_for_most(m: Shared) -> str | None:
    """Say where the tensors that fine-tuning moves account for most of the overlap."""
    rows = m.curve_of_study()
    means = rows[rows["k"] == m.k].groupby("tuning", sort=False)[["ratio", "null"]].mean()
    mostly = means[means["null"] > MOSTLY * means["ratio"]]
    if mostly.empty:
        return None
    said = "; ".join(
        f"{NAMES[str(t)]} {with_sign(row['null'])} of k, where {with_sign(row['ratio'])} are shared"
        for t, row in mostly.iterrows()
    )
    return (
        "Most of the overlap is a matter of tensors, not of single parameters: both tasks move the "
        "same tensors, and rankings permuted within each tensor overlap more than half as much "
        f"({said}). |S|/k should be held against these, not against the dotted line of chance."
    )


def _mean(column: str) -> Callable[[pd.DataFrame, Any, dict[str, Any]], str]:
    return lambda rows, m, key: percent(float(rows[column].mean()))


def _mix_over_stage(rows: pd.DataFrame, m: Shared, key: dict[str, Any]) -> str:
    means = rows.groupby("tuning")["ratio"].mean()
    if not set(COMPARED) <= set(means.index) or not means["stage"]:
        return MISSING
    return f"{means['mix'] / means['stage']:.2f}"


def _caption(m: Shared) -> str:
    said = f"; the paper: {RATIOS[m.paper]:g} for {m.paper}" if m.paper in RATIOS else ""
    return (
        f"Shared parameters in per cent of k = {m.k:,}: mean ± s.d. over seeds. Permuted: the same "
        "for rankings permuted within each tensor. Chance: for random rankings. Mix / Stage: ratio "
        f"of the means{said}. S was selected by the influence “{m.influence}”."
    )


def gatherings_view(m: Shared) -> View:
    """Return, by tuning and task, how many gradients were traced and where they gathered."""
    groups: list[tuple[str | None, list[list[str]]]] = [
        (TUNING_LABELS[tuning], [[g.task, f"{g.gradients:,}", _kinds(g)] for g in tasks])
        for tuning, tasks in m.gatherings().items()
    ]
    return View(
        "Gradients added up by task, and the kinds of tensor (all layers together) that hold most "
        "of the most influenced parameters.",
        ["Task", "gradients", "where the top parameters are"],
        groups,
    )


def _kinds(found: Gathering) -> str:
    return "; ".join(
        f"{kind} {100 * share:.0f}\N{NO-BREAK SPACE}% (chance {100 * chance:.0f}"
        "\N{NO-BREAK SPACE}%)"
        for kind, share, chance in found.kinds
    )


def _long(data: pd.DataFrame, m: Shared) -> pd.DataFrame:
    """Return a row for each point of the lines of both tunings."""
    columns = {"ratio": "shared", "null": "permuted within tensors"}
    keys = ["influence", "tuning", "seed", "k"]
    long = data.melt(keys, list(columns), "line", "share")
    return long.assign(line=long["line"].map(columns))


def _chance(panel: Panel) -> None:
    """Draw what random rankings would share, which is the same for all tunings."""
    rows = panel.measures.curve()
    chance = rows[rows["influence"] == panel.key["influence"]].groupby("k")["chance"].first()
    (line,) = panel.axes.plot(chance.index, 100 * chance, **LINES["random"])
    panel.legend["random rankings"] = line


def _cells(data: pd.DataFrame, m: Shared) -> pd.DataFrame:
    where = (data["layer"] < 0).map({False: "layers", True: "outside"})
    return data.assign(where=where, kind=data["kind"].map(short_kind))


def short_kind(kind: str) -> str:
    """Shorten a kind of tensor to what tells it from the others of both architectures."""
    for long, short in _SHORT:
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


def _kinds_alt(m: Shared) -> str:
    rows = m.tensors()
    sums = rows.groupby(["tuning", "tensor"], sort=False)[["shared", "parameters"]].sum()
    shares = (sums["shared"] / sums["parameters"]).rename("share").reset_index()
    said = []
    for tuning, tensors in shares.groupby("tuning", sort=False):
        most = tensors.nlargest(3, "share")
        named = (f"{r.tensor} {percent(r.share)}" for r in most.itertuples())
        said.append(f"{TUNING_LABELS[str(tuning)]}: {', '.join(named)}")
    return f"Heat map of the share of each tensor in S, in per cent. Most: {'; '.join(said)}."


SECTION = Section(
    name="shared",
    title="Shared parameters",
    read=Shared,
    tables=("shared", "shared_locations"),
    files=lambda study, model: {
        f"trace/{t}/{s}": f"traces/{model}/{t}/seed{s}.safetensors"
        for t in TUNINGS
        for s in study.training.seeds[:1]
    },
    settings=lambda study, model: {"influence": study.shared.influence},
    body=(
        Text(
            "<p>While a model was fine-tuned, the gradients of a few people’s biographies and "
            "questions were added up, parameter by parameter. The table shows where the "
            f"{TOP:,} parameters are that each task influenced most (first seed). In brackets the "
            "share of all parameters in tensors of that kind, which is what chance would give.</p>",
            when=lambda m: bool(m.gatherings()),
        ),
        Table("", data=gatherings_view, wide=True),
        Text(
            "<p>Parameters are ranked by how much the gradients of a task moved them: statements "
            "(BIO) and questions (QA). S holds those among the first k of both, of the same people "
            "(S I) or of statements about some people and questions about others (S II). Here k is "
            "{{ '{:,}'.format(m.k) }}, and S is {{ m.sizes() }} of all parameters.</p>"
        ),
        Caveats(tensors_account_for_most),
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
            + (" (used here)" if key["influence"] == m.influence else ""),
            height=1.75,
            x=Axis("k: parameters taken from each ranking", scale="log", write="{:,.0f}".format),
            y=Axis("shared, in per cent of k", percent=("share",), limits=(0, 100),
                   ticks=range(0, 101, 25), grid=True),
            annotate=_chance,
            alt="Curves of |S(k)|/k against k for three readings of influence; the table below "
            "holds the numbers at the k of this study.",
            caption="<b>How much is shared.</b> |S(k)|/k in per cent, for three readings of a "
            "task’s influence on a parameter; the paper does not say which of them it ranked. "
            "Thick lines are means over seeds, thin ones seeds. Random rankings "
            "would give the dotted line. Dashed lines are the same rankings permuted "
            "within each tensor: what is below them comes from both tasks moving the same tensors, "
            "what is above from the same places inside tensors, be they rows of the embedding, "
            "neurons or single parameters. In the paper mixed training is above two-stage training "
            "at every k.",
        ),
        Table(
            _caption,
            data=Shared.at_k,
            group="influence",
            row="set",
            columns=(Column("", "ratio"), Column(", permuted", _mean("null"))),
            last=(Column("chance", _mean("chance")), Column("Mix / Stage", _mix_over_stage)),
            labels={"influence": INFLUENCES, "set": SETS},
            head="Set",
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
            alt=_kinds_alt,
            caption="<b>Where S is.</b> Each cell is a tensor: the share of its parameters that is "
            "in S, mean over seeds; layers run from left to right. Were S spread evenly, every "
            "cell would hold the share in the title. Colours follow a root, so that small shares "
            "can be told from none. A dark cell of a small tensor holds few parameters: read it as "
            "how much of the tensor, not as how much of S.",
        ),
    ),
    claims=CLAIMS,
)  # fmt: skip
