"""The parameter space: one flat index over the named tensors of a model.

Scalar i of a model is the i-th scalar when its parameters are laid end to end in the order of
`named_parameters()`, each row-major, a tied tensor once. Sets of parameters are sets of such
indices; a fingerprint of names, shapes and order guards them against use with another model.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch

from factrecall.runtime.storage import to_json

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class ParameterSpace:
    """Names, shapes and offsets of a model's parameters.

    Attributes
    ----------
    names : tuple of str
        Parameter names in flat order.
    shapes : tuple of tuple of int
        Their shapes.
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, model: nn.Module) -> Self:
        """Describe a model; tied tensors appear once, under their first name."""
        named = list(model.named_parameters())
        return cls(tuple(n for n, _ in named), tuple(tuple(p.shape) for _, p in named))

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> Self:
        """Take the space up from a file's metadata (see `metadata`)."""
        return cls(tuple(metadata["names"]), tuple(tuple(shape) for shape in metadata["shapes"]))

    def metadata(self) -> dict[str, Any]:
        """Return what a file of this space says of it."""
        return {"space": self.fingerprint, "names": self.names, "shapes": self.shapes}

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of scalars of each tensor."""
        return tuple(torch.Size(shape).numel() for shape in self.shapes)

    @property
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
        for name, size in zip(self.names, self.sizes, strict=True):
            yield name, start
            start += size
