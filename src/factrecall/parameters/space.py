"""The parameter space: one flat index over all parameters of a model.

Parameters are counted in the order of ``model.named_parameters()``, each tensor row-major and a
tied one once. Sets of parameters are sets of such indices; a fingerprint of names, shapes and order
guards them against use with another model.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from factrecall.runtime.storage import to_json

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class ParameterSpace:
    """Names and shapes of a model's tensors, in flat order."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, model: nn.Module) -> Self:
        """Describe a model; tied tensors appear once, under their first name."""
        named = list(model.named_parameters())
        return cls(tuple(n for n, _ in named), tuple(tuple(p.shape) for _, p in named))

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> Self:
        """Return the space that a file's metadata describe (see `metadata`)."""
        return cls(tuple(metadata["names"]), tuple(tuple(shape) for shape in metadata["shapes"]))

    def metadata(self) -> dict[str, Any]:
        """Return the metadata of files of this space."""
        return {"space": self.fingerprint, "names": self.names, "shapes": self.shapes}

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Number of scalars of each tensor."""
        return tuple(map(math.prod, self.shapes))

    @cached_property
    def size_of(self) -> dict[str, int]:
        """Number of scalars by tensor."""
        return dict(zip(self.names, self.sizes, strict=True))

    @cached_property
    def shape_of(self) -> dict[str, tuple[int, ...]]:
        """Shape by tensor."""
        return dict(zip(self.names, self.shapes, strict=True))

    @cached_property
    def size(self) -> int:
        """n, the number of scalar parameters."""
        return sum(self.sizes)

    @property
    def fingerprint(self) -> str:
        """Hash of names, shapes and order (16 hex digits)."""
        text = to_json([[n, list(s)] for n, s in zip(self.names, self.shapes, strict=True)])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def index_dtype(self) -> np.dtype:
        """uint32, or uint64 where 32 bits do not reach."""
        return np.dtype(np.uint32 if self.size <= 2**32 else np.uint64)

    @staticmethod
    def place(name: str) -> tuple[int, str]:
        """Return a tensor's layer (-1 outside the layers) and its kind, its name in the layer."""
        if found := re.search(r"\.(\d+)\.", name):
            return int(found[1]), name[found.end() :].removesuffix(".weight")
        return -1, name.removesuffix(".weight")

    def offsets(self) -> Iterator[tuple[str, int]]:
        """Yield each tensor's name and the flat index of its first scalar."""
        start = 0
        for name, size in self.size_of.items():
            yield name, start
            start += size

    def cuts(self, index: np.ndarray) -> np.ndarray:
        """Return where tensors begin and end in ascending flat indices; int64, (tensors + 1,)."""
        ends = np.cumsum((0, *self.sizes), dtype=np.uint64).astype(index.dtype)
        cuts = np.searchsorted(index, ends)
        cuts[-1] = len(index)  # 2³² itself is no uint32
        return cuts
