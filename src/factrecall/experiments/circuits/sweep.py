"""Circuits: a grafted model with some of its nodes put back to θpre, one after the other.

Forward, no node of a kind is grafted at first and nodes are added by priority; backward, all are
and nodes are removed. All else stays grafted (paper, section 4 and equation 7; method, section 8).
A step writes the parameters of its nodes only, and asks from their lowest layer on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

import numpy as np

from factrecall.evaluation.incremental_forward import IncrementalForward
from factrecall.parameters.nodes import Nodes
from factrecall.parameters.patched_weights import PatchedWeights
from factrecall.parameters.sets import ParameterSet

Direction = Literal["forward", "backward"]
DIRECTIONS: tuple[Direction, ...] = ("forward", "backward")

PRIORITIES = ("shared", "grafted", "random")
"""By what nodes are ordered: their shared parameters, their grafted ones, by chance."""

BY = ("shared", "controls")
"""The jobs of a kind of nodes: one has the first priority, one the others, which know nothing of S.
"""

Order = tuple[str, int]
"""A priority and, for random ones, the number of the draw."""


def orders(
    nodes: Nodes, counted: Mapping[str, ParameterSet], draws: int, rng: np.random.Generator
) -> dict[Order, np.ndarray]:
    """Order nodes by the parameters they have in sets, and by chance.

    Parameters
    ----------
    nodes : Nodes
        Of one kind.
    counted : mapping of str to ParameterSet
        The sets, by priority.
    draws : int
        How many random orders.
    rng : Generator
        Draws them. Nodes that are alike by a count follow each other at random too: any rule by
        place would put low layers first.

    Returns
    -------
    dict of (str, int) to ndarray of int64, shape (nodes,)
        The first node is that of the first step.
    """
    weight = nodes.table["weight"].to_numpy()
    found: dict[Order, np.ndarray] = {}
    for priority, chosen in counted.items():
        score = nodes.counts(chosen) * weight
        found[priority, 0] = np.lexsort((rng.permutation(len(nodes)), -score))
    for draw in range(draws):
        found["random", draw] = rng.permutation(len(nodes))
    return found


class Circuit:
    """A grafted model, some of whose nodes hold θpre.

    Parameters
    ----------
    weights : PatchedWeights
        Of the model, inside its block.
    asked : IncrementalForward
        The model and its questions, inside its block.
    nodes : Nodes
        The kind of nodes that is intervened on.
    grafted : ParameterSet
        γ: everything the model holds of θtask.
    """

    def __init__(
        self,
        weights: PatchedWeights,
        asked: IncrementalForward,
        nodes: Nodes,
        grafted: ParameterSet,
    ) -> None:
        self.weights, self.asked, self.nodes, self.grafted = weights, asked, nodes, grafted
        self.inside = grafted & nodes.everything()
        self._members = list(nodes.members(self.inside))
        self.current: Sweep | None = None
        self._layers = {name: nodes.space.place(name)[0] for name, _, _ in self._members}

    def sweep(self, order: np.ndarray, direction: Direction) -> Sweep:
        """Begin a sweep; one that was begun before ends."""
        self.current = Sweep(self, order, direction)
        return self.current

    def steps(self, order: np.ndarray) -> Iterator[tuple[str, int, np.ndarray, np.ndarray]]:
        """Yield, of each tensor, its parameters by when their node's turn comes.

        Yields
        ------
        tensor, layer, local, turn
            The two arrays sorted by `turn`, the node's place in the order.
        """
        turn = np.empty(len(order), dtype=np.int64)
        turn[order] = np.arange(len(order))
        for name, local, node in self._members:
            turns = turn[node]
            sorting = np.argsort(turns, kind="stable")
            yield name, self._layers[name], local[sorting], turns[sorting]


class Sweep:
    """Interventions on the first nodes of an order, on ever more or on any number of them.

    Parameters
    ----------
    circuit : Circuit
        The model.
    order : ndarray of int64, shape (nodes,)
        From `orders`.
    direction : {"forward", "backward"}
        Whether nodes are added to none or removed from all.

    Attributes
    ----------
    nodes : int
        How many there are.
    """

    def __init__(self, circuit: Circuit, order: np.ndarray, direction: Direction) -> None:
        self.nodes = len(order)
        self._circuit, self._adds = circuit, direction == "forward"
        self._tensors = list(circuit.steps(order))
        start = circuit.grafted - circuit.inside if self._adds else circuit.grafted
        circuit.weights.set(start)
        self._done = 0
        self._right: np.ndarray | None = None
        self.forget()

    def forget(self) -> None:
        """Ask next as if nothing had been asked before, as a sweep does at first."""
        self._circuit.asked.forget()
        self._right = None

    @property
    def passes(self) -> float:
        """How many whole passes all that was asked since the last `forget` is worth."""
        return self._circuit.asked.passes

    def at(self, nodes: int) -> np.ndarray:
        """Ask everything with the first `nodes` intervened on; bool, shape (answers,)."""
        if self._circuit.current is not self:
            raise RuntimeError("another sweep has begun: the model no longer holds what this left")
        first, last = sorted((self._done, nodes))
        changed = [] if self._right is not None else [0]  # what was held before is not known
        for name, layer, local, turn in self._tensors:
            begin, end = np.searchsorted(turn, (first, last))
            if begin < end:
                task = self._adds == (nodes > self._done)
                self._circuit.weights.toggle(name, local[begin:end], task)
                changed.append(layer)
        self._done = nodes
        if self._right is None or changed:
            self._right = self._circuit.asked.right(min(changed))
        return self._right
