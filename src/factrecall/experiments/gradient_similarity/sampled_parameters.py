"""The parameters whose gradients are compared, and inner products of gradients over them.

The parameters of a model fall into cells: those of one layer (or outside the layers) that are in
the same of some named sets. Where a model is too large for all of its gradients, an equal number of
parameters is drawn uniformly from each cell, and their inner product is multiplied by the cell's
size over that number. So estimated, inner products over groups of cells are unbiased.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from factrecall.parameters.sets import ParameterSet
from factrecall.parameters.sorted_sets import sample_sorted


@dataclass(frozen=True)
class _Columns:
    """The columns of one tensor's sampled parameters: ordered by membership, then by index.

    `place` is its layer, or the number of layers if it is outside of them; `first` its first
    column; `counts` how many columns each membership has; `where` each column's scalar, counted
    from the tensor's first (None: all of them in order).
    """

    place: int
    first: int
    counts: tuple[int, ...]
    where: torch.Tensor | None


@dataclass(frozen=True)
class Products:
    """Inner products of gradients by cell, extrapolated to whole cells.

    `statements` and `questions` are squared norms, (places, memberships, facts); `between` is of
    shape (places, memberships, statements, questions).
    """

    statements: np.ndarray
    questions: np.ndarray
    between: np.ndarray

    def cosines(self, group: np.ndarray) -> np.ndarray:
        """Return the cosines over a group of cells; NaN where a gradient is zero.

        The group is of shape (places, memberships), the cosines of shape (statements, questions).
        """
        statements, questions, between = (
            np.asarray(part[group].sum(0))
            for part in (self.statements, self.questions, self.between)
        )
        return ratio(between, np.sqrt(statements)[:, None] * np.sqrt(questions))


class SampledParameters:
    """The sampled parameters of a model: `count` columns of rows that `take` fills.

    Parameters
    ----------
    sets : mapping of str to ParameterSet
        One or more, of one space; they may overlap.
    most : int, optional
        Parameters drawn from a cell at most; None: all.
    rng : Generator
        Draws them.
    device : torch.device
        Of the gradients.
    """

    def __init__(
        self,
        sets: Mapping[str, ParameterSet],
        most: int | None,
        rng: np.random.Generator,
        device: torch.device,
    ) -> None:
        cells = _memberships(sets)
        space = next(iter(sets.values())).space
        layers = [space.place(name)[0] for name in space.names]
        self.layers = max(layers, default=-1) + 1
        places = [layer if layer >= 0 else self.layers for layer in layers]
        self._within = {name: np.array([name in names for names in cells]) for name in sets}
        self._scale = np.zeros((self.layers + 1, len(cells)))
        chosen: list[dict[str, np.ndarray]] = []
        for membership, members in enumerate(cells.values()):
            sizes = np.array(list(members.counts().values()), dtype=np.int64)
            wanted = _spread(sizes, np.array(places), most, rng)
            for place in range(self.layers + 1):
                here = np.equal(places, place)
                if drawn := wanted[here].sum():
                    self._scale[place, membership] = sizes[here].sum() / drawn
            by_name = dict(zip(space.names, wanted.tolist(), strict=True))
            chosen.append(dict(members.sample_by_tensor(by_name, rng).by_tensor()))
        self._columns: list[_Columns] = []
        self.count = 0
        for name, size, place in zip(space.names, space.sizes, places, strict=True):
            parts = [by_name[name].astype(np.int64) for by_name in chosen]
            counts = tuple(map(len, parts))
            whole = size in counts  # all in one cell, none left out
            where = None if whole else torch.from_numpy(np.concatenate(parts)).to(device)
            self._columns.append(_Columns(place, self.count, counts, where))
            self.count += sum(counts)

    def groups(self) -> dict[str, np.ndarray]:
        """Return the groups of cells by name, each a bool array of shape (places, memberships).

        These are "all", the sets, "layer 0" and so on, and "embeddings": all outside the layers.
        """
        place, membership = np.indices(self._scale.shape)
        return {
            "all": place >= 0,
            **{name: within[membership] for name, within in self._within.items()},
            **{f"layer {layer}": place == layer for layer in range(self.layers)},
            "embeddings": place == self.layers,
        }

    def take(self, gradients: Iterable[torch.Tensor], row: torch.Tensor) -> None:
        """Write the sampled parameters of a gradient, in the order of the space, into a row."""
        for gradient, columns in zip(gradients, self._columns, strict=True):
            part = row[columns.first : columns.first + sum(columns.counts)]
            if columns.where is None:
                part.copy_(gradient.reshape(-1))
            else:
                torch.index_select(gradient.reshape(-1), 0, columns.where, out=part)

    def products(self, statements: torch.Tensor, questions: torch.Tensor) -> Products:
        """Return the inner products of all pairs of rows that `take` filled.

        Within a tensor's part of a cell they are computed in the rows' precision, and added up in
        float64.
        """
        shape = (*self._scale.shape, len(statements))
        squares = np.zeros((2, *shape))
        between = np.zeros((*shape, len(questions)))
        for columns in self._columns:
            start = columns.first
            for membership, count in enumerate(columns.counts):
                if count:
                    cell = columns.place, membership
                    rows = [part[:, start : start + count] for part in (statements, questions)]
                    between[cell] += (rows[0] @ rows[1].T).double().cpu().numpy()
                    for kind, part in enumerate(rows):
                        norm = torch.linalg.vector_norm(part, dim=1)
                        squares[kind][cell] += norm.double().square().cpu().numpy()
                start += count
        scale = self._scale[..., None]
        return Products(squares[0] * scale, squares[1] * scale, between * scale[..., None])


def _memberships(sets: Mapping[str, ParameterSet]) -> dict[tuple[str, ...], ParameterSet]:
    """Return the parameters by the names of all sets that they are in; no empty ones."""
    nothing = ParameterSet.empty(next(iter(sets.values())).space)
    found: dict[tuple[str, ...], ParameterSet] = {(): ~nothing}
    for name, members in sets.items():
        split = {}
        for names, part in found.items():
            split[names] = part - members
            split[*names, name] = part & members
        found = {names: part for names, part in split.items() if len(part)}
    return found


def _spread(
    sizes: np.ndarray, places: np.ndarray, most: int | None, rng: np.random.Generator
) -> np.ndarray:
    """Return how many of each tensor's members are drawn; uniform within each place."""
    wanted = sizes.copy()
    for place in np.unique(places):
        here = np.flatnonzero(places == place)
        ends = np.cumsum(sizes[here])
        if most is not None and most < ends[-1]:
            drawn = np.searchsorted(ends, sample_sorted(int(ends[-1]), most, rng), side="right")
            wanted[here] = np.bincount(drawn, minlength=len(here))
    return wanted


def ratio(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Divide; NaN where the count is zero."""
    result = np.full(sums.shape, np.nan)
    np.divide(sums, counts, out=result, where=counts > 0)
    return result
