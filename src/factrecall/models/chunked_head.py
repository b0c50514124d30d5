"""Chunked output head: the loss at chosen positions, with few logits in memory at a time.

With a vocabulary of 128,000 tokens the logits of a pass would take more memory than all before
them. Gradients are computed chunk by chunk in the forward pass, since the sum behind scales all of
them alike: logits are never computed twice, as with checkpointing. (PyTorch's own
`linear_cross_entropy` does the like from 2.12 on.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from factrecall.models.architectures import ARCHITECTURES
from factrecall.models.forward import logits_at
from factrecall.models.passes import LOGITS

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def loss_at(
    model: PreTrainedModel,
    tokens: torch.Tensor,
    where: torch.Tensor,
    targets: torch.Tensor,
    **more: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the cross-entropy at chosen positions, summed, and each by itself.

    Parameters
    ----------
    model, tokens, where, **more
        See `logits_at`.
    targets : int64 tensor, shape (chosen positions,)

    Returns
    -------
    scalar tensor
        The sum, with its graph.
    tensor, shape (chosen positions,)
        The losses, without graph; in float32, or float64 for such models.
    """
    head = model.get_output_embeddings()
    chunk = max(1, LOGITS // head.weight.shape[0])
    if len(targets) <= chunk or not _plain(model, head):
        logits = logits_at(model, tokens, where, **more)
        # A half-precision soft-max loses small differences; float64 models keep theirs.
        logits = logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits
        losses = functional.cross_entropy(logits, targets, reduction="none")
        return losses.sum(), losses.detach()
    each: list[torch.Tensor] = []
    apply: Callable[..., tuple[torch.Tensor, torch.Tensor]] = _Chunked.apply

    def loss(hidden: torch.Tensor) -> torch.Tensor:
        total, losses = apply(hidden, head.weight, targets, chunk)
        each.append(losses)
        return total

    # Inside the model, so that hooks on modules and parameters see a usual pass.
    head.forward = loss
    try:
        total = logits_at(model, tokens, where, **more)
    finally:
        del head.forward
    return total, each[0]


def _plain(model: PreTrainedModel, head: nn.Module) -> bool:
    """Say whether logits are a product of states and a matrix, and nothing else."""
    spec = ARCHITECTURES.get(model.config.model_type)
    known = spec is not None and not spec.capped
    return known and isinstance(head, nn.Linear) and head.bias is None


class _Chunked(torch.autograd.Function):
    """Sum of the cross-entropies of states times a matrix; the losses beside it."""

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, chunk: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute losses and, for a slope of 1 of their sum, gradients."""
        device = hidden.device.type
        inner = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        states, matrix = hidden.to(inner or hidden.dtype), weight.to(inner or weight.dtype)
        wide = torch.promote_types(matrix.dtype, torch.float32)
        by_states = torch.empty_like(states) if ctx.needs_input_grad[0] else None
        by_matrix = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        losses = torch.empty(len(targets), dtype=wide, device=hidden.device)
        with torch.autocast(device, enabled=False):
            for start in range(0, len(targets), chunk):
                part = slice(start, start + chunk)
                logs = torch.log_softmax(states[part] @ matrix.T, -1, dtype=wide)
                gold = targets[part, None]
                found = logs.gather(1, gold)
                losses[part] = -found[:, 0]
                # The derivative by the logits: probabilities, less 1 where the target is.
                slope = logs.exp_().scatter_(1, gold, found.exp() - 1).to(matrix.dtype)
                if by_states is not None:
                    torch.mm(slope, matrix, out=by_states[part])
                if by_matrix is not None and matrix.dtype == weight.dtype:
                    by_matrix.addmm_(slope.T, states[part])
                elif by_matrix is not None:  # sums of halves are kept whole
                    by_matrix += slope.T @ states[part]
        ctx.found = by_states, by_matrix, hidden.dtype
        ctx.mark_non_differentiable(losses)
        return losses.sum(), losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: torch.Tensor, _: object) -> tuple[torch.Tensor | None, ...]:
        """Scale the gradients."""
        by_states, by_matrix, dtype = ctx.found
        ctx.found = None
        return (
            None if by_states is None else by_states.to(dtype).mul_(slope),
            None if by_matrix is None else by_matrix.mul_(slope),
            None,
            None,
        )
