"""What one attention head does: where it looks, and what its output says as logits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from factrecall.models.architectures import architecture_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@contextmanager
def telling(model: PreTrainedModel) -> Iterator[None]:
    """Let a model tell its attention weights, which its fast kernels do not."""
    usual = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(usual)


def look(
    model: PreTrainedModel, tokens: torch.Tensor, layer: int, head: int
) -> tuple[np.ndarray, torch.Tensor]:
    """Run a prompt and watch one head.

    Parameters
    ----------
    model : PreTrainedModel
        Inside `telling`.
    tokens : int64 tensor, shape (length,)
        The prompt.
    layer, head : int
        Which head.

    Returns
    -------
    weights : float32 ndarray, shape (length, length)
        How much each token (first axis) attends to each.
    output : tensor, shape (width,)
        What the head adds to the attention output at the last token; a norm that a model puts
        behind its attention, as OLMo 2 and Gemma 2 do, is not applied.
    """
    anatomy = architecture_of(model.config)
    project = anatomy.output_of(anatomy.layers_of(model)[layer])
    taken: list[torch.Tensor] = []
    handle = project.register_forward_pre_hook(lambda _, inputs: taken.append(inputs[0]))
    try:
        with torch.inference_mode():
            result = model(input_ids=tokens[None], output_attentions=True, use_cache=False)
    finally:
        handle.remove()
    heads = taken[0][0, -1].view(model.config.num_attention_heads, -1)
    alone = torch.zeros_like(heads)
    with torch.inference_mode():
        nothing = project(alone.view(1, -1))  # the bias, which is no head's
        alone[head] = heads[head]
        output = project(alone.view(1, -1)) - nothing
    return result.attentions[layer][0, head].float().cpu().numpy(), output[0]


def lens(model: PreTrainedModel, state: torch.Tensor, kept: int, also: list[int]) -> pd.DataFrame:
    """Read a state through the last norm and the output head (the logit lens).

    Parameters
    ----------
    model : PreTrainedModel
        Whose norm and output head.
    state : tensor, shape (width,)
        What is read.
    kept : int
        How many of the likeliest tokens are wanted.
    also : list of int
        Tokens that are wanted whatever their rank.

    Returns
    -------
    DataFrame
        Columns id, rank (from 1) and logit, by rank.
    """
    with torch.inference_mode():
        normed = architecture_of(model.config).norm_of(model)(state[None])
        logits = model.get_output_embeddings()(normed)[0].float().cpu()
    order = logits.argsort(descending=True, stable=True)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(1, len(order) + 1)
    wanted = list(dict.fromkeys([*order[:kept].tolist(), *also]))
    table = pd.DataFrame({"id": wanted, "rank": rank[wanted], "logit": logits[wanted]})
    return table.sort_values("rank", ignore_index=True)
