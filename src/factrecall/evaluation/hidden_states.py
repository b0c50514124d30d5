"""Hidden states: the residual stream between attention and MLP.

A state is the layer's input plus the output of attention's output projection (and of the norm
behind it, which some architectures have), in sequential and parallel blocks alike. The MLP of the
last wanted layer and all that follows it, the output head included, are not computed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import torch

from factrecall.models.architectures import architecture_of

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

    from factrecall.evaluation.batching import Answers, Batch

NORMS = dict.fromkeys(("gemma2", "olmo2"), "post_attention_layernorm")
"""The norm between attention and the residual stream, in architectures that have one; elsewhere
a module of this name stands before the MLP."""


def hidden_states(
    model: PreTrainedModel,
    answers: Answers,
    layers: Sequence[int],
    watch: Callable[[int], None] = lambda done: None,
) -> torch.Tensor:
    """Return the residual stream after attention and before the MLP.

    Parameters
    ----------
    model : PreTrainedModel
        In evaluation mode.
    answers : Answers
        Of one token each; the state is that of the token before, which predicts it.
    layers : sequence of int
        Ascending.
    watch : callable
        Called with the number of texts done so far.

    Returns
    -------
    tensor, shape (layers, answers, width)
        On the CPU, in the model's precision.
    """
    found = torch.empty(len(layers), answers.count, model.config.hidden_size, dtype=model.dtype)
    done = 0
    for batch in answers.batches:
        found[:, batch.answer] = _states(model, batch, layers).cpu()
        done += batch.texts
        watch(done)
    return found


class _Enough(Exception):
    """The last wanted state is there."""


def _states(model: PreTrainedModel, batch: Batch, layers: Sequence[int]) -> torch.Tensor:
    """Run one batch; shape (layers, answers of the batch, width)."""
    spec, norm = architecture_of(model.config), NORMS.get(model.config.model_type)
    modules = spec.layers_of(model)
    entering: dict[int, torch.Tensor] = {}
    states: list[torch.Tensor] = []

    def enters(layer: int) -> Callable[..., None]:
        def hook(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            entering[layer] = inputs[0][batch.where]

        return hook

    def adds(layer: int) -> Callable[..., None]:
        def hook(_: nn.Module, __: Any, added: torch.Tensor) -> None:
            # In its last layer a batch computes it at the wanted tokens only.
            at = added if added.dim() == 2 else added[batch.where]
            states.append(entering.pop(layer) + at)
            if layer == layers[-1]:
                raise _Enough

        return hook

    with ExitStack() as hooks, torch.inference_mode():
        for layer in layers:
            module = modules[layer]
            last = attrgetter(norm)(module) if norm else spec.output_of(module)
            hooks.callback(module.register_forward_pre_hook(enters(layer)).remove)
            hooks.callback(last.register_forward_hook(adds(layer)).remove)
        with suppress(_Enough):
            batch.logits(model)
    return torch.stack(states)
