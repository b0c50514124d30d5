"""A sweep: one grafted model evaluated with ever more of its nodes intervened on.

Forward, no node of a kind is grafted at first and nodes are grafted in the order of a ranking;
backward, all are and nodes are reset to θpre. Everything else stays grafted (paper, section 4 and
equation 7; docs/method.md). A step writes only the parameters of the nodes that change, and the
forward pass begins at their lowest layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from factrecall.evaluation.incremental_forward import IncrementalForward
from factrecall.experiments.circuits.tables import Direction
from factrecall.parameters.nodes import Nodes
from factrecall.parameters.patched_weights import PatchedWeights
from factrecall.parameters.sets import ParameterSet

Ranking = tuple[str, int]
"""One of ``RANKINGS`` and the number of the random order."""


def rank_nodes(
    nodes: Nodes, counted: Mapping[str, ParameterSet], random_orders: int, rng: np.random.Generator
) -> dict[Ranking, np.ndarray]:
    """Order nodes by the parameters they have in sets, and at random.

    Parameters
    ----------
    nodes : Nodes
        Of one kind.
    counted : mapping of str to ParameterSet
        The sets, by ranking.
    random_orders : int
        How many random orders.
    rng : Generator
        Draws them, and the order of nodes with equal counts: a rule by place would put low layers
        first.

    Returns
    -------
    dict of (str, int) to ndarray of int64, shape (nodes,)
        The first node is intervened on first.
    """
    weight = nodes.table["weight"].to_numpy()
    found: dict[Ranking, np.ndarray] = {}
    for name, chosen in counted.items():
        score = nodes.counts(chosen) * weight
        found[name, 0] = np.lexsort((rng.permutation(len(nodes)), -score))
    for number in range(random_orders):
        found["random", number] = rng.permutation(len(nodes))
    return found


class Circuit:
    """A grafted model, some of whose nodes are reset to θpre.

    Parameters
    ----------
    weights : PatchedWeights
        Of the model, inside its block.
    incremental : IncrementalForward
        The model and its questions, inside its block.
    nodes : Nodes
        The kind of nodes that is intervened on.
    grafted : ParameterSet
        γ: the parameters that hold θtask.
    """

    def __init__(
        self,
        weights: PatchedWeights,
        incremental: IncrementalForward,
        nodes: Nodes,
        grafted: ParameterSet,
    ) -> None:
        self.weights, self.incremental = weights, incremental
        self.nodes, self.grafted = nodes, grafted
        self.inside = grafted & nodes.everything()
        self._members = list(nodes.members(self.inside))
        self._layers = {name: nodes.space.place(name)[0] for name, _, _ in self._members}
        self.current: Sweep | None = None

    def sweep(self, order: np.ndarray, direction: Direction) -> Sweep:
        """Begin a sweep; the one before it ends."""
        self.current = Sweep(self, order, direction)
        return self.current

    def by_position(self, order: np.ndarray) -> Iterator[tuple[str, int, np.ndarray, np.ndarray]]:
        """Yield, of each tensor, its parameters sorted by the position of their node in an order.

        Yields
        ------
        tensor, layer, local, position
            The arrays have one length.
        """
        position = np.empty(len(order), dtype=np.int64)
        position[order] = np.arange(len(order))
        for name, local, node in self._members:
            positions = position[node]
            sorting = np.argsort(positions, kind="stable")
            yield name, self._layers[name], local[sorting], positions[sorting]


class Sweep:
    """Interventions on the first nodes of an order, any number of them at a time.

    Parameters
    ----------
    circuit : Circuit
        The model.
    order : ndarray of int64, shape (nodes,)
        From `rank_nodes`.
    direction : {"forward", "backward"}
        Whether nodes are grafted or reset to θpre.

    Attributes
    ----------
    nodes : int
        How many there are.
    """

    def __init__(self, circuit: Circuit, order: np.ndarray, direction: Direction) -> None:
        self.nodes = len(order)
        self._circuit, self._grafts = circuit, direction == "forward"
        self._tensors = list(circuit.by_position(order))
        start = circuit.grafted - circuit.inside if self._grafts else circuit.grafted
        circuit.weights.set(start)
        self._intervened = 0
        self._right: np.ndarray | None = None
        self.forget()

    def forget(self) -> None:
        """Drop everything cached: the next step is evaluated like the first of a sweep."""
        self._circuit.incremental.forget()
        self._right = None

    @property
    def passes(self) -> float:
        """The cost of all steps since the last `forget`, in whole forward passes."""
        return self._circuit.incremental.passes

    def at(self, nodes: int) -> np.ndarray:
        """Evaluate with the first `nodes` intervened on; bool, shape (answers,)."""
        if self._circuit.current is not self:
            raise RuntimeError("another sweep has begun and has changed the model's weights")
        first, last = sorted((self._intervened, nodes))
        changed = [] if self._right is not None else [0]  # nothing is cached: a whole pass
        for name, layer, local, position in self._tensors:
            begin, end = np.searchsorted(position, (first, last))
            if begin < end:
                task = self._grafts == (nodes > self._intervened)
                self._circuit.weights.toggle(name, local[begin:end], task)
                changed.append(layer)
        self._intervened = nodes
        if self._right is None or changed:
            self._right = self._circuit.incremental.right(min(changed))
        return self._right
