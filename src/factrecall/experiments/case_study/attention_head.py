"""One attention head: its attention pattern, its output, and the logit lens of the output."""

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
def eager_attention(model: PreTrainedModel) -> Iterator[None]:
    """Make a model return its attention weights, which its fast kernels do not."""
    usual = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(usual)


def run_head(
    model: PreTrainedModel, tokens: torch.Tensor, layer: int, head: int
) -> tuple[np.ndarray, torch.Tensor]:
    """Run a prompt and return what one head does.

    Parameters
    ----------
    model : PreTrainedModel
        Inside `eager_attention`.
    tokens : int64 tensor, shape (length,)
        The prompt.
    layer, head : int
        Which head.

    Returns
    -------
    pattern : float32 ndarray, shape (length, length)
        How much each token (first axis) attends to each.
    output : tensor, shape (width,)
        What the head adds to the attention output at the last token, before any norm behind the
        attention (OLMo 2, Gemma 2).
    """
    spec = architecture_of(model.config)
    project = spec.output_of(spec.layers_of(model)[layer])
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
        bias = project(alone.view(1, -1))  # of no head
        alone[head] = heads[head]
        output = project(alone.view(1, -1)) - bias
    return result.attentions[layer][0, head].float().cpu().numpy(), output[0]


def logit_lens(
    model: PreTrainedModel, state: torch.Tensor, top: int, also: list[int]
) -> pd.DataFrame:
    """Apply the last norm and the output head to a state.

    Parameters
    ----------
    model : PreTrainedModel
        Its norm and output head are applied.
    state : tensor, shape (width,)
        Of the residual stream, or a part of it.
    top : int
        How many of the likeliest tokens are returned.
    also : list of int
        Tokens that are returned whatever their rank.

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
    tokens = list(dict.fromkeys([*order[:top].tolist(), *also]))
    table = pd.DataFrame({"id": tokens, "rank": rank[tokens], "logit": logits[tokens]})
    return table.sort_values("rank", ignore_index=True)
