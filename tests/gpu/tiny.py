"""Tiny models and naive ways, for any device."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch

from factrecall.models.forward import Encoded
from factrecall.training.batches import IGNORED, Example, batch_indices
from factrecall.training.optimisers import learning_rate
from tests import synthetic

if TYPE_CHECKING:
    from transformers import PreTrainedModel

VOCABULARY = 512
PEOPLE = 16


@dataclass(frozen=True)
class Tiny:
    """A tiny model of an architecture with random weights, and others near it."""

    architecture: str
    device: torch.device
    shard: float = 0.02
    """Of the random weights; the more, the more attention does."""

    @cached_property
    def model(self) -> PreTrainedModel:
        shape = synthetic.TINY[self.architecture]
        # The same numbers on all devices.
        return synthetic.build(shape, "cpu", initializer_range=self.shard).to(self.device)

    def fresh(self) -> PreTrainedModel:
        """Return a copy to train."""
        return copy.deepcopy(self.model)

    def nearby(self) -> dict[str, torch.Tensor]:
        """Return other weights, a fifth of a standard deviation away."""
        draws = torch.Generator().manual_seed(1)
        found = {}
        for name, p in self.model.named_parameters():
            noise = torch.randn(p.shape, generator=draws).to(p)
            found[name] = p.detach() + 0.2 * noise * (p.detach().std() if p.ndim > 1 else 0.1)
        return found


def naive_training(
    model: PreTrainedModel, data: Sequence[Example], recipe: synthetic.Recipe, seed: int
) -> list[float]:
    """Train example by example in float32; return the loss of each update."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed}, {"params": others, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(
        groups, betas=recipe.betas, weight_decay=recipe.weight_decay, fused=False, foreach=False
    )
    losses = []
    for update in range(recipe.updates):
        batch = [data[i] for i in batch_indices(len(data), recipe.batch_size, update, seed)]
        targets = sum(int((e.targets != IGNORED).sum()) for e in batch)
        total = 0.0
        for example in batch:
            loss = naive_loss(model, example) / targets
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip or 1e9)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(recipe, update)  # type: ignore[arg-type]
        optimiser.step()
        optimiser.zero_grad()
        losses.append(total)
    return losses


def naive_loss(model: PreTrainedModel, example: Example) -> torch.Tensor:
    """Return the sum of an example's losses, from all of its logits."""
    device = next(model.parameters()).device
    logits = model(input_ids=torch.from_numpy(example.tokens)[None].to(device)).logits[0]
    targets = torch.from_numpy(example.targets).to(device)
    return torch.nn.functional.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum")


def naive_right(model: PreTrainedModel, texts: Sequence[Encoded]) -> np.ndarray:
    """Decide each text's answer by itself, from all of its logits."""
    device = next(model.parameters()).device
    right = []
    with torch.inference_mode():
        for text in texts:
            tokens = torch.from_numpy(text.tokens).to(device)
            best = model(input_ids=tokens[None]).logits[0].argmax(-1)
            right += [bool((best[a - 1 : b - 1] == tokens[a:b]).all()) for a, b in text.answers]
    return np.array(right)


def half_right(model: PreTrainedModel, texts: Sequence[Encoded]) -> list[Encoded]:
    """Let every second text have the answer that the model gives, token by token."""
    device = next(model.parameters()).device
    found = []
    for number, text in enumerate(texts):
        tokens = text.tokens.copy()
        for place in range(*text.answers[0]) if number % 2 == 0 else ():
            with torch.inference_mode():
                said = model(input_ids=torch.from_numpy(tokens[:place])[None].to(device))
            tokens[place] = int(said.logits[0, -1].argmax())
        found.append(Encoded(tokens, text.answers))
    return found
