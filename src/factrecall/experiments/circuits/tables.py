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
