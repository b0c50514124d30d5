"""Weights by name, wherever they are kept: on a device, in main memory, or in a folder's files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from factrecall.models.loading import load_model
from factrecall.parameters.space import ParameterSpace

_IN_FILES = {"lm_head.weight": "embed_out.weight"}
"""What the library calls some of a model's tensors in files: GPT-NeoX's output head."""


class Weights(Mapping[str, torch.Tensor]):
    """Weights of a live model's space, on its device and in its dtypes when they are asked for.

    Parameters
    ----------
    kept : mapping of str to tensor
        The weights, where they are kept; never written.
    live : mapping of str to tensor
        The model's parameters.
    """

    def __init__(self, kept: Mapping[str, torch.Tensor], live: Mapping[str, torch.Tensor]) -> None:
        self._kept, self._live = kept, live

    def __getitem__(self, name: str) -> torch.Tensor:
        live = self._live[name]
        return self._kept[name].detach().to(live.device, live.dtype)

    def __iter__(self) -> Iterator[str]:
        return iter(self._live)

    def __len__(self) -> int:
        return len(self._live)

    def write(self, name: str) -> None:
        """Write a whole tensor into the model."""
        self._live[name].copy_(self._kept[name])

    def write_at(self, name: str, where: np.ndarray) -> None:
        """Write some scalars of a tensor into the model; nothing else of it is fetched."""
        kept, live = self._kept[name].view(-1), self._live[name].view(-1)
        index = torch.from_numpy(where.astype(np.int64))
        here = index.to(live.device)
        chosen = kept[here if kept.device == live.device else index.to(kept.device)]
        live[here] = chosen.to(live.device, live.dtype)


class _Folder(Mapping[str, torch.Tensor]):
    """The tensors of a model folder's safetensors files, as they are there; views of the files."""

    def __init__(self, folder: Path) -> None:
        from safetensors import safe_open

        paths = sorted(folder.glob("*.safetensors"))
        index = folder / "model.safetensors.index.json"
        if index.exists():  # other files may lie beside those that it names
            named = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
            paths = [folder / name for name in sorted(set(named))]
        self._files: dict[str, Any] = {}
        for path in paths:
            file: Any = safe_open(path, framework="pt")
            self._files |= dict.fromkeys(file.keys(), file)

    def __getitem__(self, name: str) -> torch.Tensor:
        if name not in self._files:
            name = _IN_FILES.get(name, name)
        tensor: torch.Tensor = self._files[name].get_tensor(name)
        return tensor

    def __contains__(self, name: object) -> bool:
        return name in self._files or _IN_FILES.get(str(name)) in self._files

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def folder_weights(folder: Path, space: ParameterSpace) -> Mapping[str, torch.Tensor]:
    """Return the weights in a model folder without reading them, where that can be done.

    They are views of its files if these hold every tensor of a space by its name and in its shape,
    a tied one under the first of its names. Else the model is loaded, which is right for any folder
    and says what is wrong with it.

    Parameters
    ----------
    folder : Path
        Of safetensors, in one file or in several with an index.
    space : ParameterSpace
        Of the model that the weights are for.

    Raises
    ------
    FactRecallError
        When the folder holds no model that can be opened.
    """
    from safetensors import SafetensorError

    with suppress(OSError, ValueError, KeyError, TypeError, SafetensorError):
        opened = _Folder(folder)
        if all(tuple(opened[n].shape) == s for n, s in zip(space.names, space.shapes, strict=True)):
            return opened
    return {name: p.detach() for name, p in load_model(folder).named_parameters()}
