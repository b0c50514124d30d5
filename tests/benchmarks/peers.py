"""Interventions on heads written with other libraries, and plain batches to ask them with.

A user of either peer holds a step's weights by writing the heads that differ, which both leave to
PyTorch, and runs the model on padded batches; here on the batch size that suits the peer best.
"""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from factrecall.models.forward import Encoded

Best = Callable[[torch.Tensor], torch.Tensor]
"""From tokens to the most likely next ones, both (rows, length)."""

Step = Callable[[int], np.ndarray]
"""Asks everything with so many nodes grafted."""

PEERS = {
    "nnsight": ("nnsight", "nnsight"),
    "TransformerLens": ("transformer_lens", "transformer-lens"),
}
"""Module and distribution of each."""


class Padded:
    """Texts in plain batches, in their given order or by length; logits at all positions."""

    def __init__(self, texts: Sequence[Encoded], size: int, by_length: bool = False) -> None:
        order = list(range(len(texts)))
        if by_length:
            order.sort(key=lambda i: len(texts[i].tokens))
        self.texts, self.batches = texts, []
        for begin in range(0, len(order), size):
            group = order[begin : begin + size]
            tokens = torch.zeros(len(group), max(len(texts[i].tokens) for i in group)).long()
            for row, i in enumerate(group):
                tokens[row, : len(texts[i].tokens)] = torch.from_numpy(texts[i].tokens)
            self.batches.append((group, tokens))

    def said(self, best: Best) -> list[torch.Tensor]:
        """Return the most likely token at each position of each text's answer."""
        found: dict[int, torch.Tensor] = {}
        with torch.inference_mode():
            for group, tokens in self.batches:
                likely = best(tokens)
                for row, i in enumerate(group):
                    ((start, end),) = self.texts[i].answers
                    found[i] = likely[row, start - 1 : end - 1]
        return [found[i] for i in range(len(self.texts))]

    def right(self, best: Best, gold: Sequence[torch.Tensor]) -> np.ndarray:
        """Compare what is said with gold answers."""
        return np.array([torch.equal(s, g) for s, g in zip(self.said(best), gold, strict=True)])


def sweep(
    peer: str,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    heads: pd.DataFrame,
    ends: Sequence[Mapping[str, torch.Tensor]],
    texts: Sequence[Encoded],
    gold: Sequence[torch.Tensor],
) -> Step:
    """Write a sweep in a peer.

    Parameters
    ----------
    peer : str
        One of ``PEERS``.
    model : PreTrainedModel
        A Llama; it is copied.
    tokenizer : PreTrainedTokenizerFast
        Its tokenizer.
    heads : DataFrame
        Layer, projection and head of each step.
    ends : two mappings of str to tensor
        All weights before the first step and after the last.
    texts, gold
        What is asked, and the right answers.
    """
    model = copy.deepcopy(model)
    model.load_state_dict(ends[0])
    best, live = {"nnsight": _nnsight, "TransformerLens": _transformer_lens}[peer](model, tokenizer)
    size = model.config.head_dim
    named = list(heads[["layer", "projection", "head"]].itertuples(index=False, name=None))
    places = [(live(*head), *(_line(w, size, *head) for w in ends)) for head in named]
    done = 0

    def hold(count: int) -> None:
        nonlocal done
        with torch.no_grad():
            for place, before, after in places[min(done, count) : max(done, count)]:
                place.copy_(after if count > done else before)
        done = count

    def seconds(padded: Padded) -> float:
        padded.said(best)
        begin = time.process_time()
        padded.said(best)
        return time.process_time() - begin

    padded = min((Padded(texts, size, by_length=True) for size in (32, 64, 128)), key=seconds)

    def step(count: int) -> np.ndarray:
        hold(count)
        return padded.right(best, gold)

    return step


def _line(
    weights: Mapping[str, torch.Tensor], size: int, layer: int, projection: str, head: int
) -> torch.Tensor:
    """Return one head's slice of a projection, a view."""
    weight = weights[f"model.layers.{layer}.self_attn.{projection.lower()}_proj.weight"]
    part = slice(size * head, size * (head + 1))
    return weight[:, part] if projection == "O" else weight[part]


def _nnsight(model: PreTrainedModel, _: PreTrainedTokenizerFast) -> tuple[Best, Any]:
    from nnsight import NNsight  # type: ignore[import-not-found]

    wrapped = NNsight(model)

    def best(tokens: torch.Tensor) -> torch.Tensor:
        with wrapped.trace(input_ids=tokens):
            likely: torch.Tensor = wrapped.output.logits.argmax(-1).save()
        return likely

    live = dict(model.named_parameters())
    return best, lambda *head: _line(live, model.config.head_dim, *head)


def _transformer_lens(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> tuple[Best, Any]:
    from transformer_lens.model_bridge import TransformerBridge  # type: ignore[import-not-found]

    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        bridge = TransformerBridge.boot_transformers(folder, device="cpu").eval()

    def best(tokens: torch.Tensor) -> torch.Tensor:
        likely: torch.Tensor = bridge(tokens).argmax(-1)
        return likely

    def live(layer: int, projection: str, head: int) -> torch.Tensor:
        weight: torch.Tensor = getattr(bridge.blocks[layer].attn, f"W_{projection}")[head]
        return weight.T  # (inputs, outputs) of a head in TransformerLens

    return best, live
