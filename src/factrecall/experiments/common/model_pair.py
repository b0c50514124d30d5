"""A fine-tuned model beside the weights it started from: what every experiment opens first."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from factrecall.models.loading import load_model, load_tokenizer
from factrecall.parameters.patched_weights import PatchedWeights
from factrecall.parameters.placement import PAIR, Place, choose_place
from factrecall.parameters.space import ParameterSpace
from factrecall.parameters.weights import folder_weights

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def open_pair(
    base: Path | str,
    tuned: Path | str,
    device: torch.device | str = "cpu",
    *,
    held: float = PAIR,
    spare: float = 0.0,
    place: Place | None = None,
) -> tuple[PreTrainedTokenizerBase, PreTrainedModel, PatchedWeights]:
    """Open the folders of θpre and θtask.

    Parameters
    ----------
    base, tuned : path
        The folders.
    device : device
        Of the live model.
    held, spare : float
        What the job keeps there besides (see `placement.choose_place`).
    place : {"device", "host"}, optional
        Where θpre and θtask are kept; else by the room there is.

    Returns
    -------
    tokenizer, model, composition
        The model holds θtask; inside ``with composition:`` it holds what is composed.
    """
    base, tuned = Path(base), Path(tuned)
    model = load_model(tuned, device)
    space = ParameterSpace.of(model)
    if (place or choose_place(model.device, space.size, held, spare)) == "host":
        pre, task = (folder_weights(folder, space) for folder in (base, tuned))
        return load_tokenizer(tuned), model, PatchedWeights(model, pre, task, "host")
    before = {name: parameter.detach() for name, parameter in load_model(base).named_parameters()}
    return load_tokenizer(tuned), model, PatchedWeights(model, before)
