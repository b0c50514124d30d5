"""A fine-tuned model beside the weights it started from: what every experiment opens first."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from factrecall.models.load import load_model, load_tokenizer
from factrecall.parameters.compose import Composition

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def open_pair(
    base: Path, tuned: Path, device: torch.device
) -> tuple[PreTrainedTokenizerBase, PreTrainedModel, Composition]:
    """Open the folders of θpre and θtask.

    Returns
    -------
    tokenizer, model, composition
        The model holds θtask; inside ``with composition:`` it holds what is composed.
    """
    model = load_model(tuned, device)
    pre = {name: parameter.detach() for name, parameter in load_model(base).named_parameters()}
    return load_tokenizer(tuned), model, Composition(model, pre)
