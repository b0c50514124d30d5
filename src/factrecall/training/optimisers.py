"""AdamW under a warm-up and a cosine, with moments in float32 or in 8 bits."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import EllipsisType
from typing import TYPE_CHECKING, Any

import torch

from factrecall.runtime.errors import FactRecallError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from factrecall.config.training import Recipe
    from factrecall.training.distributed import DistributedStrategy
    from factrecall.training.execution import Execution


def learning_rate(recipe: Recipe, update: int) -> float:
    """Return the learning rate of update number `update` (from 0): linear warm-up, then cosine."""
    if update < recipe.warmup:
        return recipe.learning_rate * (update + 1) / recipe.warmup
    progress = (update - recipe.warmup) / max(1, recipe.updates - recipe.warmup)
    return recipe.learning_rate * 0.5 * (1.0 + math.cos(math.pi * progress))


def make_optimiser(
    model: PreTrainedModel, recipe: Recipe, mode: Execution
) -> torch.optim.Optimizer:
    """Return AdamW over all parameters of a model.

    8-bit moments are torchao's (Dettmers et al. 2021, arXiv 2110.02861): blocks of 256 numbers
    share a scale, tensors of fewer than 4,096 stay in float32. So does the embedding matrix, as in
    that paper: where a block holds a large second moment and a small one that becomes 0, a step
    divides by 0. Offloaded moments lie where the parameters do.

    Raises
    ------
    FactRecallError
        When moments are to be in 8 bits and torchao is not installed.
    """
    # Norms and biases are not decayed, as is usual for transformers.
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    if mode.optimiser != "adamw_8bit":
        return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=recipe.betas, fused=True)
    try:
        with _silence():
            from torchao.optim import AdamW8bit
    except ImportError as error:
        raise FactRecallError(
            "training.mode.optimiser = adamw_8bit",
            "the library that keeps moments in 8 bits, torchao, is not installed",
            "install it (pip install torchao==0.18.0), or set adamw or cpu_offload",
        ) from error
    optimiser: torch.optim.Optimizer = AdamW8bit(
        groups, lr=recipe.learning_rate, betas=recipe.betas
    )
    embedding: Any = model.get_input_embeddings().weight
    optimiser.state[embedding] = {  # the library takes a state that is there as it is
        "step": torch.tensor(0.0),
        "exp_avg": torch.zeros_like(embedding),
        "exp_avg_sq": torch.zeros_like(embedding),
    }
    return optimiser


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of an optimiser's next step."""
    for group in optimiser.param_groups:
        if isinstance(group["lr"], torch.Tensor):
            # A compiled step is not compiled again for a new number in the same tensor.
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


@dataclass(frozen=True)
class AdamStep:
    """A step of AdamW, and one example's part of it, before the step is taken.

    Attributes
    ----------
    optimiser : Optimizer
        With the moments of the steps before.
    strategy : DistributedStrategy
        Of the processes that share its moments.
    number : int
        Of the step, from 0.
    share : float
        The example's share of the batch's target tokens: `share` times the gradient of its mean
        loss is its part of the batch's gradient.
    """

    optimiser: torch.optim.Optimizer
    strategy: DistributedStrategy
    number: int
    share: float

    @property
    def plain(self) -> bool:
        """Whether all moments are plain tensors, not packed into 8 bits."""
        return isinstance(self.optimiser, torch.optim.AdamW)

    def update(
        self, parameter: torch.Tensor, gradient: torch.Tensor, piece: slice | EllipsisType = ...
    ) -> torch.Tensor:
        """Return h / (√v̂ + ε), where h is the example's part of the batch's gradient, or a piece.

        v̂ is what the second moment would be after a step with h alone: never below h's own part of
        it, so that a parameter's first gradient moves it as far as AdamW would, whose step is
        bounded too. In 8 bits a moment that became 0 does not divide either.
        """
        group = self.optimiser.param_groups[0]
        beta = group["betas"][1]
        part = gradient[piece] * self.share
        second = part.square().mul_(1 - beta)
        if (moment := self.optimiser.state.get(parameter, {}).get("exp_avg_sq")) is not None:
            moment = self.strategy.local(moment)
            moment = moment.dequantize() if parts_of(moment) else moment
            second.add_(moment[piece], alpha=beta)
        second.div_(1 - beta ** (self.number + 1)).sqrt_().add_(group["eps"])
        return part.div_(second)


def parts_of(moment: torch.Tensor) -> Mapping[str, torch.Tensor]:
    """Return the plain tensors of an 8-bit moment; none, if it is in float32."""
    if not hasattr(moment, "codes"):
        return {}
    return {name: getattr(moment, name) for name in ("codes", "scale", "qmap")}


def eight_bit_moment(kind: str, parts: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Make a moment of `parts_of` it; `kind` is its name in the optimiser's state."""
    with _silence():
        from torchao.optim.subclass_8bit import OptimState8bit
    signed = kind == "exp_avg"  # squares are not
    moment: torch.Tensor = OptimState8bit(**parts, signed=signed, dtype=torch.float32)
    return moment


@contextmanager
def _silence() -> Iterator[None]:
    """Silence torchao's messages about kernels, none of them used here, that do not load."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)
