"""The tables on circuits, with the paper's numbers beside ours."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd

from factrecall.experiments.case_study.data import FORMAT_NAMES, Case
from factrecall.experiments.circuits.measures import RATIOS, CircuitMeasures
from factrecall.experiments.circuits.summary import ENOUGH, SHARES
from factrecall.experiments.circuits.tables import RANKINGS
from factrecall.experiments.shared_parameters.report_tables import Groups
from factrecall.report.published import COLUMNS, CONTINUITY, CONTINUITY_SOURCE, HEADS, TOP_HEADS
from factrecall.report.style import KIND_LABELS, TUNING_LABELS
from factrecall.report.tables import MISSING, NO_BREAK, View, mean_sd, percent
from factrecall.vocabulary import COMPARED

TOP_NODES = 10
"""So many attention nodes are listed."""

_SHOWN = COMPARED[::-1]
"""Mix-tuned models first: the paper looks at no others."""


class _Column(NamedTuple):
    """A measure: how it is read of a kind, tuning and priority, and the paper's, by priority."""

    name: str
    read: Callable[..., dict[int, float]]
    paper: dict[str, str]


def numbers_table(measures: CircuitMeasures, kind: str, paper: str) -> View:
    """Return what the paper reads off its curves, by tuning and priority."""
    shares = _shares(kind, paper)
    columns = [
        _Column(
            f"{_whole(ENOUGH)} needs",
            partial(measures.number, measure="needed", at=ENOUGH),
            _theirs(kind, paper, "needed"),
        )
    ]
    for name, read in (
        ("reached with", measures.reached),
        ("lost without", measures.lost),
        ("of S in", measures.held),
    ):
        columns += [
            _Column(
                f"{name} {_whole(share)}",
                partial(read, share=share),
                _theirs(kind, paper, name, share),
            )
            for share in shares
        ]
    for name, measure in (("mean, forward", "area"), ("mean lost, backward", "area_lost")):
        columns.append(_Column(name, partial(measures.number, measure=measure), {}))
    groups: Groups = []
    for tuning in _SHOWN:
        floor = pd.Series(measures.floor(kind, tuning))
        rows = [
            [p, *(_cell(c.read(kind, tuning, p)) for c in columns)]
            for p in RANKINGS
            if measures.number(kind, tuning, p, "area")
        ]
        if tuning == "mix":
            rows += [
                [f"paper: {p}", *(c.paper.get(p, MISSING) for c in columns)]
                for p in RANKINGS[:2]
                if any(p in c.paper for c in columns)
            ]
        groups.append((f"{TUNING_LABELS[tuning]}, floor {mean_sd(floor)}", rows))
    steps = (
        max(measures.first_step(kind, t, p, d) for t in COMPARED for p in RANKINGS)
        for d in ("forward", "backward")
    )
    drawn = ", of which each is the mean of its random orders" if measures.random else ""
    return View(
        f"Circuits of the {measures.nodes(kind):,} {KIND_LABELS[kind]}, in per cent; mean ± s.d. "
        f"over seeds{drawn}. Floor: completeness with none of them grafted. Rows: by what nodes "
        "are ordered. "
        f"{_whole(ENOUGH)} needs: share of nodes at which completeness first gets there, 0 where "
        "the floor is higher. Reached with, lost without: completeness with the first nodes "
        "only, and what putting them back costs. The last two are means over all shares of nodes. "
        f"The first step takes {next(steps):,} forward, {next(steps):,} backward; of fewer nodes "
        "only what they hold of S is known, which is counted node by node but for random orders. "
        f"Paper: {paper}, "
        f"{_source(kind, paper)}.",
        ["Order", *(c.name for c in columns)],
        groups,
    )


def _shares(kind: str, paper: str) -> list[float]:
    return sorted({*SHARES[kind], *([HEADS[paper].share / 100] if kind == "attention" else [])})


def _theirs(kind: str, paper: str, what: str, share: float = 0.0) -> dict[str, str]:
    """Return the paper's number by priority, all of them bounds."""
    if kind == "attention":
        heads = HEADS[paper]
        said = {
            ("needed", 0.0): {"shared": f"< {heads.share:g}"},
            ("reached with", heads.share): {
                "shared": f"> {heads.reached:g}", "grafted": f"≤ {heads.grafted:g}",
            },
            ("of S in", heads.share): {"shared": f"> {heads.held:g}"},
            ("of S in", float(TOP_HEADS)): {"shared": f"> {heads.top_held:g}"},
            ("lost without", float(TOP_HEADS)): {"shared": f"> {heads.top_lost:g}"},
        }  # fmt: skip
        return said.get((what, round(100 * share, 6)), {})
    if kind == "column" and np.isclose(share, COLUMNS.nodes / COLUMNS.of):
        bounds = {"of S in": COLUMNS.held, "lost without": COLUMNS.lost}
        return {"shared": f"> {bounds[what]:g}"} if what in bounds else {}
    return {}


def _source(kind: str, paper: str) -> str:
    return HEADS[paper].source if kind == "attention" else COLUMNS.source


def _whole(share: float) -> str:
    return f"{100 * share:.2g}{NO_BREAK}%"


def _cell(values: dict[int, float]) -> str:
    series = pd.Series(values, dtype=float)
    some = f" ({series.count()} of {len(series)} seeds)" if 0 < series.count() < len(series) else ""
    return mean_sd(series) + some


def heads_table(measures: CircuitMeasures) -> View:
    """Return the attention nodes with most of S in Mix-tuned models, means over seeds."""
    places = measures.places()
    node = ["layer", "projection", "head"]
    sides = {
        chosen: rows.set_index(node)
        for chosen, rows in places[places["tuning"] == "mix"].groupby("chosen")
    }
    rows: list[list[str]] = []
    if sides:
        weights = measures.heads.drop_duplicates(node).set_index(node)["weight"]
        shared, grafted = sides["shared"], sides["grafted"]
        order = (shared["count"] * weights.reindex(shared.index)).sort_values(
            ascending=False, kind="stable"
        )
        for key in order.index[:TOP_NODES]:
            layer, projection, head = key
            one, other = shared.loc[key], grafted.loc[key]
            rows.append(
                [
                    f"layer {layer}, {projection} {head}",
                    f"{one['count']:,.0f}", percent(one["part"]), one["ranks"],
                    f"{other['count']:,.0f}", percent(other["part"]), other["ranks"],
                ]
            )  # fmt: skip
    return View(
        "Attention nodes with most shared parameters in Mix-tuned models, layers and heads counted "
        "from 0: mean number of parameters in S and in γ, their share of all in attention in per "
        "cent, and the node's rank in each seed. Numbers of K and V nodes are multiplied by query "
        "heads over their own before they are ranked, not where they are printed.",
        ["Node", "in S", "% of S", "ranks", "in γ", "% of γ", "ranks"],
        [(None, rows)],
    )


def continuity_table(measures: CircuitMeasures, paper: str) -> View:
    """Return the ratios of the paper's table 4, with those of exchanged outcomes."""
    groups: Groups = []
    for kind in measures.kinds:
        rows = []
        for tuning in _SHOWN:
            real, chance = (measures.continuous(kind, tuning, s) for s in (False, True))
            late = real[real["first"] > 0]
            for label, found in (
                (TUNING_LABELS[tuning], real),
                (f"{NO_BREAK}{NO_BREAK}only later right", late),
                (f"{NO_BREAK}{NO_BREAK}exchanged", chance),
            ):
                means = found.groupby("seed")[list(RATIOS)].mean()
                count = found.groupby("seed").size().mean() if len(found) else 0
                rows.append([label, f"{count:.0f}", *(mean_sd(means[name]) for name in RATIOS)])
        if kind == measures.lasting:
            said = (f"{value:.1f}" for value in CONTINUITY[paper])
            rows.append([f"paper, Mix-tuned {paper}", MISSING, *said])
        groups.append((f"Adding {KIND_LABELS[kind]}", rows))
    return View(
        "Continuity of attributes that are right at any step, in per cent; mean ± s.d. over seeds. "
        "Of the steps from the first to the last right one: overall, those that are right; "
        "longest, the most of them in a row. Retained: attributes right at the last step. "
        "Attributes: how many, mean over seeds; only later right: those of them that are wrong at "
        "the first step; exchanged: of outcomes exchanged between people. "
        f"Paper: {CONTINUITY_SOURCE}.",
        ["Model", "attributes", *RATIOS],
        groups,
    )


def sweeps_table(measures: CircuitMeasures) -> View | None:
    """Return how closely sweeps were asked, if any step was left out."""
    rows = measures.sweeps
    if not (rows["evaluated"] <= rows["steps"]).any():
        return None
    groups: Groups = []
    for kind in measures.kinds:
        found = rows[rows["kind"] == kind].groupby(["tuning", "direction"], sort=False)
        cells = [
            [
                f"{TUNING_LABELS[str(tuning)]}, {direction}",
                f"{part['steps'].max() + 1:,}",
                f"{part['evaluated'].mean():,.0f}",
                f"{part['held_out'].mean():.0f}",
                percent(float(part["worst"].max())),
            ]
            for (tuning, direction), part in found
        ]
        groups.append((KIND_LABELS[kind], cells))
    return View(
        "How closely sweeps were asked: steps there are, steps asked and, of these, steps held out "
        "to test the lines between the others, all as means over seeds and orders; and how far the "
        "worst of the tested ones was off its line, in points of accuracy.",
        ["Sweeps", "steps", "evaluated", "held out", "worst, points"],
        groups,
    )


def lens_table(case: Case) -> View:
    """Return the likeliest tokens that the head's output says, by format and tuning."""
    columns = [(form, tuning) for tuning in _SHOWN for form in FORMAT_NAMES]
    lists = {
        key: case.logits[(case.logits["format"] == key[0]) & (case.logits["tuning"] == key[1])]
        for key in columns
    }
    # Tokens whose rank was asked for stand below, whatever it is.
    plain = {k: t.drop_duplicates("rank").reset_index(drop=True) for k, t in lists.items()}
    top = max((int((t["rank"] == t.index + 1).sum()) for t in plain.values()), default=0)
    rows = [
        [str(rank), *(_said(plain[key][plain[key]["rank"] == rank]) for key in columns)]
        for rank in range(1, top + 1)
    ]
    marked = [
        [name, *(_ranks(plain[key][plain[key]["role"] == role]) for key in columns)]
        for role, name in (("answer", "the answer’s first token"), ("subject", "the name’s tokens"))
    ]
    return View(
        "What the head’s output at the last token says as logits: the likeliest tokens, and the "
        "ranks of those that matter.",
        ["Rank", *(f"{TUNING_LABELS[t]}, {FORMAT_NAMES[f]}" for f, t in columns)],
        [(None, rows), ("Rank of", marked)],
    )


def _said(rows: pd.DataFrame) -> str:
    return MISSING if rows.empty else str(rows["text"].iloc[0]) or "(blank)"


def _ranks(rows: pd.DataFrame) -> str:
    said = (f"{row.text} {row.rank:,}" for row in rows.itertuples())
    return ", ".join(said) or MISSING
