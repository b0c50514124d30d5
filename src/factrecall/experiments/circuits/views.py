"""The tables of circuits, with the paper's numbers beside ours."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from factrecall.experiments.circuits.claims import whole
from factrecall.experiments.circuits.tables import ENOUGH, RANKINGS, RATIOS, SHARES
from factrecall.report.published import COLUMNS, CONTINUITY, CONTINUITY_SOURCE, HEADS, TOP_HEADS
from factrecall.report.style import KIND_LABELS, TUNING_LABELS
from factrecall.report.tables import MISSING, NO_BREAK, View, mean_sd, percent
from factrecall.vocabulary import COMPARED

if TYPE_CHECKING:
    from factrecall.experiments.circuits.measures import Circuits

TOP_NODES = 10
"""How many attention nodes are listed."""

_SHOWN = COMPARED[::-1]
"""Mix-tuned models first: the paper's circuits are of no others."""

Bounds = dict[tuple[str, float], dict[str, str]]
"""The paper's numbers, by column and share: by ranking."""


def numbers(kind: str, m: Circuits) -> View:
    """Return the quantities of the paper's claims by tuning and ranking; empty without the kind."""
    if kind not in m.kinds:
        return View("", [], [])
    bounds, source = _published(kind, m.paper)
    heads = {HEADS[m.paper].share / 100} if kind == "attention" else set()
    shares = sorted({*SHARES[kind], *heads})
    columns: list[tuple[str, Callable[..., dict[int, float]], dict[str, str]]] = [
        (f"{whole(ENOUGH)} needs", partial(m.number, measure="needed", at=ENOUGH),
         bounds.get(("needed", ENOUGH), {})),
        *((f"{name} {100 * share:.2g}{NO_BREAK}%", partial(read, share=share),
           bounds.get((name, round(share, 8)), {}))
          for name, read in (("reached with", m.reached), ("lost without", m.lost),
                             ("of S in", m.held))
          for share in shares),
        ("mean, forward", partial(m.number, measure="area"), {}),
        ("mean lost, backward", partial(m.number, measure="area_lost"), {}),
    ]  # fmt: skip
    groups: list[tuple[str | None, list[list[str]]]] = []
    for tuning in _SHOWN:
        rows = [
            [ranking, *(_cell(read(kind, tuning, ranking)) for _, read, _ in columns)]
            for ranking in RANKINGS
            if m.number(kind, tuning, ranking, "area")
        ]
        for ranking in RANKINGS[:2] if tuning == "mix" else ():
            cells = [theirs.get(ranking, MISSING) for _, _, theirs in columns]
            if set(cells) != {MISSING}:
                rows.append([f"paper: {ranking}", *cells])
        groups.append((f"{TUNING_LABELS[tuning]}, floor {_cell(m.floor(kind, tuning))}", rows))
    forward, backward = (
        max(m.first_step(kind, t, r, d) for t in COMPARED for r in RANKINGS)
        for d in ("forward", "backward")
    )
    drawn = ", of which each is the mean of its random orders" if m.random else ""
    caption = (
        f"Circuits of the {m.nodes(kind):,} {KIND_LABELS[kind]}, in per cent; mean ± s.d. over "
        f"seeds{drawn}. Rows: how nodes are ranked. Floor: completeness with none of them grafted. "
        f"{whole(ENOUGH)} needs: share of nodes at which completeness first gets there, 0 where "
        "the floor is higher. Reached with, lost without: completeness with the first nodes only, "
        "and what resetting them costs. The last two are means over all shares of nodes. The first "
        f"step takes {forward:,} forward, {backward:,} backward; of fewer nodes only what they "
        "hold of S is known, which is counted node by node but for random orders. "
        f"Paper: {m.paper}, {source}."
    )
    return View(caption, ["Ranking", *(name for name, _, _ in columns)], groups)


def _published(kind: str, paper: str) -> tuple[Bounds, str]:
    if kind == "attention":
        heads, top = HEADS[paper], TOP_HEADS / 100
        share = heads.share / 100
        return {
            ("needed", ENOUGH): {"shared": f"< {heads.share:g}"},
            ("reached with", share): {
                "shared": f"> {heads.reached:g}", "grafted": f"≤ {heads.grafted:g}",
            },
            ("of S in", share): {"shared": f"> {heads.held:g}"},
            ("of S in", top): {"shared": f"> {heads.top_held:g}"},
            ("lost without", top): {"shared": f"> {heads.top_lost:g}"},
        }, heads.source  # fmt: skip
    share = round(COLUMNS.nodes / COLUMNS.of, 8)
    said = {
        ("of S in", share): {"shared": f"> {COLUMNS.held:g}"},
        ("lost without", share): {"shared": f"> {COLUMNS.lost:g}"},
    }
    return said if kind == "column" else {}, COLUMNS.source


def _cell(values: dict[int, float]) -> str:
    import pandas as pd

    series = pd.Series(values, dtype=float)
    some = f" ({series.count()} of {len(series)} seeds)" if 0 < series.count() < len(series) else ""
    return mean_sd(series) + some


def top_heads(m: Circuits) -> View:
    """Return the attention nodes with most of S in Mix-tuned models, means over seeds."""
    node = ["layer", "projection", "head"]
    places = m.places()
    places = places[places["tuning"] == "mix"].set_index(node)
    shared, grafted = (places[places["chosen"] == chosen] for chosen in ("shared", "grafted"))
    weights = m.rows("heads").drop_duplicates(node).set_index(node)["weight"]
    order = (shared["count"] * weights.reindex(shared.index)).sort_values(
        ascending=False, kind="stable"
    )
    rows = [
        [
            f"layer {key[0]}, {key[1]} {key[2]}",
            *(
                cell
                for side in (shared.loc[key], grafted.loc[key])
                for cell in (f"{side['count']:,.0f}", percent(side["part"]), side["ranks"])
            ),
        ]
        for key in order.index[:TOP_NODES]
    ]
    return View(
        "Attention nodes with most shared parameters in Mix-tuned models, layers and heads counted "
        "from 0: mean number of parameters in S and in γ, their share of all in attention in per "
        "cent, and the node's rank in each seed. Numbers of K and V nodes are multiplied by query "
        "heads over their own before they are ranked, not where they are printed.",
        ["Node", "in S", "% of S", "ranks", "in γ", "% of γ", "ranks"],
        [(None, rows)],
    )


def continuity(m: Circuits) -> View:
    """Return the ratios of the paper's table 4, with those of shuffled outcomes."""
    groups: list[tuple[str | None, list[list[str]]]] = []
    for kind in m.kinds:
        rows = []
        for tuning in _SHOWN:
            real, chance = (m.continuity(kind, tuning, shuffled) for shuffled in (False, True))
            for label, found in (
                (TUNING_LABELS[tuning], real),
                (f"{NO_BREAK}{NO_BREAK}only later right", real[real["first"] > 0]),
                (f"{NO_BREAK}{NO_BREAK}shuffled", chance),
            ):
                means = found.groupby("seed")[list(RATIOS)].mean()
                count = found.groupby("seed").size().mean() if len(found) else 0
                rows.append([label, f"{count:.0f}", *(mean_sd(means[name]) for name in RATIOS)])
        if kind == m.lasting:
            theirs = (f"{value:.1f}" for value in CONTINUITY[m.paper])
            rows.append([f"paper, Mix-tuned {m.paper}", MISSING, *theirs])
        groups.append((f"Grafting {KIND_LABELS[kind]}", rows))
    return View(
        "Continuity of attributes that are right at any step, in per cent; mean ± s.d. over seeds. "
        "Of the steps from the first to the last right one: overall, those that are right; "
        "longest, the most of them in a row. Retained: attributes right at the last step. "
        "Attributes: how many, mean over seeds. Only later right: those that are wrong at the "
        "first step. Shuffled: of outcomes shuffled between people. "
        f"Paper: {CONTINUITY_SOURCE}.",
        ["Model", "attributes", *RATIOS],
        groups,
    )


def grids(m: Circuits) -> View:
    """Return how finely sweeps were evaluated; no rows where every step was."""
    rows = m.rows("sweeps")
    groups: list[tuple[str | None, list[list[str]]]] = []
    for kind in m.kinds if (rows["evaluated"] <= rows["steps"]).any() else ():
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
        "How finely sweeps were evaluated: steps there are, steps evaluated and, of these, steps "
        "held out to test the lines between the others, all as means over seeds and rankings; and "
        "the largest error of a tested step, in points of accuracy.",
        ["Sweeps", "steps", "evaluated", "held out", "worst, points"],
        groups,
    )
