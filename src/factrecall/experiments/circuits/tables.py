"""Names and tables of interventions, as one job writes them."""

from __future__ import annotations

from typing import Literal

Direction = Literal["forward", "backward"]
DIRECTIONS: tuple[Direction, ...] = ("forward", "backward")
"""Forward grafts nodes, from none to all; backward resets them to θpre, from none to all."""

RANKINGS = ("shared", "grafted", "random")
"""How nodes are ranked: by their parameters in S, by those in γ, at random."""

BY = ("shared", "baseline")
"""Jobs of a kind of nodes: one for the first ranking, one for the others, which do not read S."""

SWEEP = {"direction": "string", "ranking": "string", "random_order": "int32"}
"""Columns that identify a sweep; `random_order` numbers the random rankings and is 0 for others."""

STEPS = {**SWEEP, "step": "int32", "nodes": "int32", "right": "list<int32>"}
"""A row an evaluated step: the first `nodes` of the ranking are intervened on, and the questions
`right` (numbers in the table of questions) are then answered correctly."""

CURVES = {
    **SWEEP,
    "steps": "int32",
    "evaluated": "int32",
    "held_out": "int32",
    "worst": "float64",
    "objective": "string",
    "held_out_recovery": "float64",
    "order": "list<int32>",
}
"""A row a sweep: the last step, how many steps were evaluated, how many of these tested the curve
between the others, the largest error of such a step; what the grafted model's mask was fitted to,
and its recovery on held-out people; and the nodes in the order of the ranking."""

QUESTIONS = {"question": "int32", "individual": "int32", "relation": "string", "grafted": "bool"}
"""A row a question; `grafted` says whether the whole grafted model is right."""

NODES = {
    "node": "int32",
    "layer": "int32",
    "projection": "string",
    "head": "int32",
    "weight": "float64",
    "size": "int64",
    "members": "int64",
    "rank": "int32",
}
"""A row a node: how many parameters it has in all and in the set that ranks it (S or γ), and its
rank. Counts are multiplied by `weight` before they are ranked; ties share the best rank."""

CURVE = {
    "kind": "string",
    "tuning": "string",
    "direction": "string",
    "ranking": "string",
    "quantity": "string",
    "nodes": "int32",
    "share": "float64",
    "mean": "float64",
    "low": "float64",
    "high": "float64",
}
"""Data of the figures of sweeps: condensed over seeds and random orders, from `low` to `high`."""

MLP = ("column", "unit")
"""The kinds of nodes of the MLP."""

PEOPLE = 4
"""How many people the figure of continuity shows: the first with an attribute ever right."""

EARLY = 20 / 49
"""The paper's steps 1 to 20 of a forward sweep over Llama's MLP, as a share of the nodes."""

FIRST_COLUMNS = 320 / 401_408
"""The share that the paper's 320 columns are of Llama's."""

ALMOST_ALL = 0.8
"""Who needs almost all nodes has not enough with this share of them."""

NOTHING, WHOLE = (0.0, 0.0), (0.0, 1.0)
"""Where a curve begins, and all of it."""

_MLP = (NOTHING, (ALMOST_ALL, ALMOST_ALL), (0.0, EARLY), WHOLE)

READ = {
    # The paper's top 10 % of the heads, and its 60 % (Llama) and 80 % (Pythia).
    "attention": (NOTHING, (0.1, 0.1), (0.6, 0.6), (0.8, 0.8), WHOLE),
    "column": (*_MLP, (FIRST_COLUMNS, FIRST_COLUMNS)),
    "unit": _MLP,
}
"""Where curves are read: from a share of the nodes to another, or at one."""
