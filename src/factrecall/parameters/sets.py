"""Sets of parameters, as sorted flat indices into a parameter space.

A set holds its members or, as a complement, all others, so that "all but these" costs no more than
"these". No array is as long as the space. Sets of different spaces do not mix.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from factrecall.parameters.sorted_sets import (
    intersection,
    is_member,
    sample_sorted,
    skip,
    symmetric_difference,
    union,
)
from factrecall.parameters.space import ParameterSpace
from factrecall.runtime.errors import DamagedFile, FactRecallError
from factrecall.runtime.lazy_mapping import LazyMapping
from factrecall.runtime.safetensors_writer import open_tensors, write_tensors


@dataclass(frozen=True, eq=False)
class ParameterSet:
    """A set of scalar parameters of one space.

    Attributes
    ----------
    index : ndarray of uint32 or uint64, shape (count,)
        Flat indices, ascending, each once.
    complement : bool
        Whether the set is everything but `index`.
    """

    space: ParameterSpace
    index: np.ndarray
    complement: bool = False

    @classmethod
    def of(cls, space: ParameterSpace, indices: np.ndarray) -> Self:
        """Make a set of flat indices in any order; ValueError if one is not of the space."""
        index = np.unique(np.asarray(indices))
        if len(index) and not 0 <= int(index[0]) <= int(index[-1]) < space.size:
            raise ValueError(f"indices from {index[0]} to {index[-1]} in a space of {space.size}")
        return cls(space, index.astype(space.index_dtype))

    @classmethod
    def empty(cls, space: ParameterSpace) -> Self:
        """Return the empty set; ``~empty`` is everything."""
        return cls(space, np.empty(0, dtype=space.index_dtype))

    @classmethod
    def tensors(cls, space: ParameterSpace, names: list[str]) -> Self:
        """Return the set of all scalars of some tensors."""
        parts = [
            np.arange(start, start + size, dtype=space.index_dtype)
            for (name, start), size in zip(space.offsets(), space.sizes, strict=True)
            if name in names
        ]
        return cls(space, np.concatenate(parts)) if parts else cls.empty(space)

    def __len__(self) -> int:
        return self.space.size - len(self.index) if self.complement else len(self.index)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ParameterSet):
            return NotImplemented
        self._check(other)
        if self.complement == other.complement:
            return np.array_equal(self.index, other.index)
        # One is stored by its members and one by what it lacks: equal sets have nothing apart.
        return len(self ^ other) == 0

    __hash__ = None  # type: ignore[assignment]  # arrays are no keys

    def __invert__(self) -> Self:
        return type(self)(self.space, self.index, not self.complement)

    def __and__(self, other: Self) -> Self:
        self._check(other)
        if self.complement and other.complement:
            return ~(~self | ~other)
        if other.complement:
            return type(self)(self.space, self.index[~is_member(self.index, other.index)])
        if self.complement:
            return other & self
        return type(self)(self.space, intersection(self.index, other.index))

    def __or__(self, other: Self) -> Self:
        self._check(other)
        if self.complement or other.complement:
            return ~(~self & ~other)
        return type(self)(self.space, union(self.index, other.index))

    def __sub__(self, other: Self) -> Self:
        return self & ~other

    def __xor__(self, other: Self) -> Self:
        self._check(other)
        differs = symmetric_difference(self.index, other.index)
        return type(self)(self.space, differs, self.complement != other.complement)

    def __repr__(self) -> str:
        return f"ParameterSet({len(self):,} of {self.space.size:,})"

    def by_tensor(self) -> Iterator[tuple[str, np.ndarray]]:
        """Yield each tensor's name and, counted from its first scalar, its part of `index`."""
        parts = pairwise(self.space.cuts(self.index))
        for (name, first), (start, end) in zip(self.space.offsets(), parts, strict=True):
            yield name, self.index[start:end] - np.uint64(first).astype(self.index.dtype)

    def counts(self) -> dict[str, int]:
        """Return how many scalars of each tensor are in the set."""
        return {name: self._count(name, local) for name, local in self.by_tensor()}

    def _count(self, name: str, local: np.ndarray) -> int:
        return self.space.size_of[name] - len(local) if self.complement else len(local)

    def sample(self, size: int, rng: np.random.Generator) -> Self:
        """Draw `size` members uniformly; ValueError if the set is smaller."""
        if size > len(self):
            raise ValueError(f"{size} of {len(self)} parameters cannot be drawn")
        return type(self)(self.space, self._drawn(len(self), size, self.index, rng))

    def sample_by_tensor(self, sizes: Mapping[str, int], rng: np.random.Generator) -> Self:
        """Draw, of every tensor, a given number of members (see `sample`)."""
        parts = [np.empty(0, dtype=self.index.dtype)]
        for (name, local), (_, start) in zip(self.by_tensor(), self.space.offsets(), strict=True):
            size, whole = sizes.get(name, 0), self._count(name, local)
            if size > whole:
                raise ValueError(f"{size} of {whole} parameters of {name} cannot be drawn")
            drawn = self._drawn(whole, size, local, rng)
            parts.append(drawn + np.uint64(start).astype(drawn.dtype))
        return type(self)(self.space, np.concatenate(parts))

    def _drawn(
        self, whole: int, size: int, index: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """Draw among all members; `index` are those stored, or those left out."""
        drawn = sample_sorted(whole, size, rng)
        return skip(drawn, index).astype(index.dtype) if self.complement else index[drawn]

    def _check(self, other: ParameterSet) -> None:
        if self.space != other.space:
            raise different_spaces("these sets", self.space.fingerprint, other.space.fingerprint)


def different_spaces(where: str, one: str, other: str) -> FactRecallError:
    """Return the error for parameters of two different models."""
    return FactRecallError(
        where,
        f"they are of different parameter spaces ({one} and {other}): names, shapes or order of "
        "the model's tensors differ",
        "use files that were made with one and the same model; to make them anew, delete them "
        "and run the workflow again",
    )


def write_sets(
    path: Path, sets: Mapping[str, ParameterSet], metadata: Mapping[str, Any] | None = None
) -> None:
    """Write sets of one space as safetensors, one index array each."""
    space = next(iter(sets.values())).space
    for one in sets.values():
        if one.space != space:
            raise different_spaces(str(path), space.fingerprint, one.space.fingerprint)
    complements = [name for name, one in sets.items() if one.complement]
    tensors = {name: torch.from_numpy(one.index) for name, one in sets.items()}
    said = {**(metadata or {}), **space.metadata(), "inverted": complements}
    write_tensors(path, tensors, said)


def read_set(path: Path, name: str, space: ParameterSpace) -> ParameterSet:
    """Read one set of a file, and nothing of the others (see `read_sets`)."""
    sets = open_sets(path, space)
    if name not in sets:
        why = f"it holds no set {name!r} (but: {', '.join(sets)})"
        raise DamagedFile(path, why, "name the file that holds it")
    return sets[name]


def read_sets(path: Path | str, space: ParameterSpace | None = None) -> dict[str, ParameterSet]:
    """Read all sets of a file (see `open_sets`)."""
    return dict(open_sets(Path(path), space))


def open_sets(path: Path, space: ParameterSpace | None = None) -> Mapping[str, ParameterSet]:
    """Open a file of sets; each is read when it is asked for.

    Parameters
    ----------
    path : Path
        From `write_sets`.
    space : ParameterSpace, optional
        The space they have to be of.

    Raises
    ------
    FactRecallError
        When the file is missing, damaged or of another parameter space.
    """
    tensors = open_tensors(path, ("names", "shapes", "inverted"))
    found = ParameterSpace.from_metadata(tensors.metadata)
    if space is not None and space != found:
        raise different_spaces(str(path), found.fingerprint, space.fingerprint)
    complements = tensors.metadata["inverted"]
    return LazyMapping(
        tensors, lambda name: ParameterSet(found, tensors[name].numpy(), name in complements)
    )
