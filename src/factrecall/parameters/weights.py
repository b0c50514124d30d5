"""Weights by name, wherever they are kept: on a device, in main memory, or in a folder's files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from factrecall.models.loading import load_model
from factrecall.parameters.space import ParameterSpace
from factrecall.runtime.lazy_mapping import LazyMapping

_IN_FILES = {"lm_head.weight": "embed_out.weight"}
"""Tensors that the library names otherwise in files: GPT-NeoX's output head."""


class Weights(LazyMapping[str, torch.Tensor]):
    """Weights of a model, moved to its device and dtypes when they are asked for.

    Parameters
    ----------
    kept : mapping of str to tensor
        The weights, where they are kept; never written.
    live : mapping of str to tensor
        The model's parameters.
    """

    def __init__(self, kept: Mapping[str, torch.Tensor], live: Mapping[str, torch.Tensor]) -> None:
        super().__init__(live, lambda n: kept[n].detach().to(live[n].device, live[n].dtype))
        self._kept, self._live = kept, live

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


def _open_folder(folder: Path, names: tuple[str, ...]) -> LazyMapping[str, torch.Tensor]:
    """Open tensors of a model folder's safetensors files as views; KeyError if one is missing."""
    from safetensors import safe_open

    paths = sorted(folder.glob("*.safetensors"))
    index = folder / "model.safetensors.index.json"
    if index.exists():  # other files may lie beside those that it names
        named = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        paths = [folder / name for name in sorted(set(named))]
    files: dict[str, Any] = {}
    for path in paths:
        file: Any = safe_open(path, framework="pt")
        files |= dict.fromkeys(file.keys(), file)
    stored = {name: name if name in files else _IN_FILES[name] for name in names}
    return LazyMapping(names, lambda name: files[stored[name]].get_tensor(stored[name]))


def folder_weights(folder: Path, space: ParameterSpace) -> Mapping[str, torch.Tensor]:
    """Return the weights in a model folder, unread where its files hold them as the model does.

    They are views of the files if these hold every tensor of the space by its name and in its
    shape, a tied one under the first of its names. Else the model is loaded, which is right for any
    folder.

    Raises
    ------
    FactRecallError
        When the folder holds no model that can be opened.
    """
    from safetensors import SafetensorError

    with suppress(OSError, ValueError, KeyError, TypeError, SafetensorError):
        opened = _open_folder(folder, space.names)
        if all(tuple(opened[name].shape) == shape for name, shape in space.shape_of.items()):
            return opened
    return {name: p.detach() for name, p in load_model(folder).named_parameters()}
