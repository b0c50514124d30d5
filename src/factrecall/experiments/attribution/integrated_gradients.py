"""Integrated gradients of the logit of an answer's first token, over the tokens of its prompt.

They share out what the prompt adds to the logit (Sundararajan et al., 2017, "Axiomatic attribution
for deep networks"). The path begins at the mean of all input embeddings, at every position: it
stands for no token and no role. Zero, the other common baseline, lies far from all embeddings,
where a norm's gradient is without bound, so that a few points of the path say little.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from factrecall.evaluation.batching import Batch
from factrecall.experiments.attribution.tokenised_prompts import TokenisedPrompt, batches
from factrecall.runtime.progress import Watch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

BATCH_TOKENS = 2048
"""Largest padded size of a batch on the path: its passes keep what their gradients need."""


class IntegratedGradients(NamedTuple):
    """Attributions to each prompt's tokens, float64, and the differences that they add up to."""

    tokens: list[np.ndarray]
    totals: np.ndarray


def integrated_gradients(
    model: PreTrainedModel,
    prompts: Sequence[TokenisedPrompt],
    steps: int,
    max_eval_tokens: int,
    watch: Watch = lambda done: None,
) -> IntegratedGradients:
    """Attribute the logits of answers' first tokens to the tokens of their prompts.

    `steps` are points of the path, those of Gauss-Legendre quadrature.
    """
    from captum.attr import IntegratedGradients as Path  # slow to import

    embed: Any = model.get_input_embeddings()
    with torch.no_grad():  # by the module's call: some modules scale the rows of their matrix
        begin = embed(torch.arange(embed.num_embeddings, device=model.device)).mean(0)
    tokens, totals = [np.empty(0)] * len(prompts), np.empty(len(prompts))
    done = 0
    size = min(max_eval_tokens, BATCH_TOKENS)
    for members, batch in batches(model, [one.with_first_token() for one in prompts], size):
        with torch.no_grad():
            embedded = embed(batch.tokens)
        with _frozen(model):
            found, gaps = Path(_logits_of_embeddings(model, batch)).attribute(
                embedded,
                begin.expand_as(embedded),
                target=batch.gold,
                n_steps=steps,
                method="gausslegendre",
                internal_batch_size=len(members),  # a pass a point, as large as a batch may be
                return_convergence_delta=True,
            )
        weights = found.detach().double().sum(-1).cpu().numpy()
        totals[members] = weights.sum(1) - gaps.detach().double().cpu().numpy()
        for i, row in zip(members, weights, strict=True):
            tokens[i] = row[: len(prompts[i].roles)]
        done += len(members)
        watch(done)
    return IntegratedGradients(tokens, totals)


@contextmanager
def _frozen(model: PreTrainedModel) -> Iterator[None]:
    """Turn off the gradients of parameters, for which passes would have to keep more."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)


def _logits_of_embeddings(
    model: PreTrainedModel, batch: Batch
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a batch's logits as a function of its input embeddings."""

    def logits(embedded: torch.Tensor) -> torch.Tensor:
        handle = model.get_input_embeddings().register_forward_hook(lambda *_: embedded)
        try:
            return batch.logits(model)
        finally:
            handle.remove()

    return logits
