"""Nodes: the heads and neurons of a model, as lines (rows or columns) of its tensors.

An attention node is one head's slice of one projection. An MLP node of kind `column` is one column
of one matrix; of kind `unit` a hidden unit, which is a row of the matrices into the MLP and a
column of the one out of it (paper, section 4.1 and appendix A.6; docs/method.md, circuits).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from factrecall.models.architectures import PROJECTIONS, ArchitectureSpec, architecture_of, heads_of
from factrecall.parameters.sets import ParameterSet
from factrecall.parameters.space import ParameterSpace
from factrecall.vocabulary import NodeKind

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Nodes:
    """All nodes of one kind.

    Attributes
    ----------
    table : DataFrame
        A row a node: ``layer``, ``projection`` (Q, K, V, O; gate, up, down; unit), ``head`` (the
        number of the head, column or unit) and ``weight``, which counts are multiplied by where
        projections have fewer heads (paper, appendix A.7).
    lines : mapping of str to (int, ndarray of int64)
        For each tensor the axis along which it is cut, and the node of each line.
    """

    space: ParameterSpace
    table: pd.DataFrame
    lines: Mapping[str, tuple[int, np.ndarray]]

    @classmethod
    def of(cls, model: PreTrainedModel, kind: NodeKind) -> Nodes:
        """Find the nodes of a model; FactRecallError if its architecture is not known."""
        builder = _Builder(model)
        (builder.attention if kind == "attention" else getattr(builder, kind))()
        return cls(builder.space, pd.DataFrame(builder.rows), builder.lines)

    def __len__(self) -> int:
        return len(self.table)

    def members(self, chosen: ParameterSet) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        """Yield, of each tensor of the kind, its name, the parameters in a set, and their nodes.

        Parameters, counted from the tensor's first, and nodes are int64 arrays of one length. The
        set must not be a complement.
        """
        if chosen.complement:
            raise ValueError("the members of a complement are not listed")
        for name, local in chosen.by_tensor():
            if name in self.lines:
                axis, nodes = self.lines[name]
                place = np.unravel_index(local.astype(np.int64), self.space.shape_of[name])[axis]
                yield name, local.astype(np.int64), nodes[place]

    def counts(self, chosen: ParameterSet) -> np.ndarray:
        """Return how many parameters of each node are in a set, int64 of shape (nodes,)."""
        total = np.zeros(len(self), dtype=np.int64)
        for _, _, node in self.members(chosen):
            total += np.bincount(node, minlength=len(self))
        return total

    def sizes(self) -> np.ndarray:
        """Return how many parameters each node has, int64 of shape (nodes,)."""
        total = np.zeros(len(self), dtype=np.int64)
        for name, (_, nodes) in self.lines.items():
            total += np.bincount(nodes, minlength=len(self)) * (
                self.space.size_of[name] // len(nodes)
            )
        return total

    def everything(self) -> ParameterSet:
        """Return the set of all parameters of the kind."""
        return ParameterSet.tensors(self.space, list(self.lines))


class _Builder:
    """Numbers nodes layer by layer; see `Nodes`."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.anatomy: ArchitectureSpec = architecture_of(model.config)
        self.heads = heads_of(model.config)
        self.space = ParameterSpace.of(model)
        self.shapes = self.space.shape_of
        self.depth = len(self.anatomy.layers_of(model))
        self.rows: list[dict[str, object]] = []
        self.lines: dict[str, tuple[int, np.ndarray]] = {}
        self.outputs, self.inputs = (1, 0) if self.anatomy.transposed else (0, 1)

    def attention(self) -> None:
        for layer in range(self.depth):
            nodes = {
                p: self._number(layer, p, self.heads[p], self.heads["Q"] / self.heads[p])
                for p in PROJECTIONS
            }
            names = {p: self._name(layer, self.anatomy.attention[p]) for p in PROJECTIONS}
            if self.anatomy.fused == "no":
                for p in "QKV":
                    self._cut(names[p], self.outputs, nodes[p], bias=True)
            elif self.anatomy.fused == "heads":
                self._cut(names["Q"], self.outputs, np.stack([nodes[p] for p in "QKV"], 1), True)
            else:
                self._cut(names["Q"], self.outputs, np.concatenate([nodes[p] for p in "QKV"]), True)
            self._cut(names["O"], self.inputs, nodes["O"])
            for p, module in self.anatomy.scales.items():
                self._cut(self._name(layer, module), 0, nodes[p])

    def column(self) -> None:
        for layer in range(self.depth):
            for matrix, module in self.anatomy.mlp.items():
                name = self._name(layer, module)
                width = self.shapes[f"{name}.weight"][self.inputs]
                self._cut(name, self.inputs, self._number(layer, matrix, width))

    def unit(self) -> None:
        for layer in range(self.depth):
            down = self._name(layer, self.anatomy.mlp["down"])
            width = self.shapes[f"{down}.weight"][self.inputs]
            nodes = self._number(layer, "unit", width)
            for matrix, module in self.anatomy.mlp.items():
                out = matrix == "down"
                axis = self.inputs if out else self.outputs
                self._cut(self._name(layer, module), axis, nodes, bias=not out)

    def _name(self, layer: int, module: str) -> str:
        return f"{self.anatomy.layers}.{layer}.{module}"

    def _number(self, layer: int, projection: str, count: int, weight: float = 1.0) -> np.ndarray:
        first = len(self.rows)
        self.rows += [
            {"layer": layer, "projection": projection, "head": head, "weight": weight}
            for head in range(count)
        ]
        return np.arange(first, first + count)

    def _cut(self, module: str, axis: int, nodes: np.ndarray, bias: bool = False) -> None:
        length = self.shapes[f"{module}.weight"][axis]
        lines = np.repeat(nodes.ravel(), length // nodes.size)
        self.lines[f"{module}.weight"] = axis, lines
        if bias and f"{module}.bias" in self.shapes:
            self.lines[f"{module}.bias"] = 0, lines
