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
    "order": "list<int32>",
}
"""A row a sweep: the last step, how many steps were evaluated, how many of these tested the curve
between the others, the largest error of such a step, and the nodes in the order of the ranking."""

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

QUANTITIES = ("completeness", "shared_fraction", "grafted_fraction")

MLP = ("column", "unit")
"""The kinds of nodes of the MLP."""

RATIOS = ("overall", "longest", "retained")
"""What is measured of continuity (see `circuits.continuity`)."""

PEOPLE = 4
"""How many people the figure of continuity shows: the first with an attribute ever right."""

ENOUGH = 0.8
"""The completeness that the paper's sufficient circuits reach (section 4.1)."""

SHARES = {
    "attention": (0.1, 0.6, 0.8),  # the paper's top 10 %, and its 60 % (Llama) and 80 % (Pythia)
    "column": (320 / 401_408, 0.1),  # its 320 columns, of Llama-3.2-3B's
    "unit": (0.1,),
}
"""Shares of nodes at which curves are read."""
