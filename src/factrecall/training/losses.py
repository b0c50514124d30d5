"""The loss of a micro-batch: cross-entropy at its targets, padded or laid end to end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from factrecall.models.chunked_head import loss_at
from factrecall.training.packing import block_mask, positions, scores_mask

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from factrecall.training.batches import MicroBatch

FLEX = "flex_attention"
"""The library's name of the attention that takes block masks."""


def batch_loss(model: PreTrainedModel, batch: MicroBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the sum of the losses of a micro-batch, and each by itself (see `loss_at`).

    Parameters
    ----------
    model : PreTrainedModel
        On any device.
    batch : MicroBatch
        On the same device.
    """
    more: dict[str, Any] = {}
    if batch.starts is not None:
        mask = (
            block_mask(batch.starts)
            if model.config._attn_implementation == FLEX
            else scores_mask(batch.starts, model.dtype)
        )
        more = {"position_ids": positions(batch.starts), "attention_mask": mask}
    return loss_at(model, batch.tokens, batch.where, batch.targets, **more)


def example_loss(model: PreTrainedModel, batch: MicroBatch) -> torch.Tensor:
    """Return the mean loss of the targets of a micro-batch of one example, with its graph."""
    return batch_loss(model, batch)[0] / len(batch.targets)
