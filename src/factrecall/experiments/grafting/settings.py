"""The section of the configuration that says how few parameters are to carry recall."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from factrecall.config.section import ConfigIssue, Positive, Section

Alpha = Annotated[float, Field(gt=0.0, lt=1.0)]


class DualAveraging(Section):
    """The default: gradients of the loss add up to scores, and the mask is always their top."""

    method: Literal["dual_averaging"]
    """Lazy projected gradient descent on the mask itself (docs/method.md)."""
    updates: Positive = 8
    """Updates of the mask at each size; three times as many at the first, the largest."""
    batch_size: Positive = 100
    """Questions in an update."""
    step: Annotated[float, Field(gt=0.0)] = 0.3
    """Weight of an update's gradient; the path from θpre to θtask that comes first has 1."""


class SigmoidSGD(Section):
    """The paper's optimiser (equation 6, appendix A.5.1); docs/benchmarks.md compares the two."""

    method: Literal["sigmoid_sgd"]
    """Stochastic gradient descent on the logits of a relaxed mask."""
    updates: Positive = 20_000
    """Updates at most; the paper stops after 24 hours."""
    batch_size: Positive = 2
    """Questions in an update."""
    learning_rate: Annotated[float, Field(gt=0.0)] = 1e8
    """It is large because the slope of the sigmoid is as small as `initial`."""
    initial: Annotated[float, Field(gt=0.0, lt=0.5)] = 1e-4
    """How far each entry of the mask is from 0 or 1 at the start."""
    check: Positive = 200
    """Updates between two looks at the size and the accuracy of the rounded mask."""


class GraftingSettings(Section):
    """How few fine-tuned parameters recover recall (section 3.2, appendix A.5)."""

    alphas: Annotated[list[Alpha], Field(min_length=1)] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05]  # noqa: RUF012
    """Sizes of the masks as shares of all parameters."""
    fit_individuals: Annotated[int, Field(ge=2)] | None = None
    """People whose questions the mask is fitted to, on each side; the others test it. null: all."""
    exclude_embeddings: bool = True
    """Leave embeddings and output head as they were before fine-tuning, as the paper does."""
    target_recovery: Annotated[float, Field(gt=0.0, le=1.0)] = 0.92
    """The smallest mask that recovers this share of the fine-tuned accuracy is the chosen one."""
    optimiser: Annotated[DualAveraging | SigmoidSGD, Field(discriminator="method")] = DualAveraging(
        method="dual_averaging"
    )
    """How masks are fitted."""

    def _issues(self) -> Iterator[ConfigIssue]:
        if sorted(set(self.alphas)) != self.alphas:
            yield ConfigIssue(
                ("alphas",),
                "they are not in rising order, or one is there twice",
                f"write them as {sorted(set(self.alphas))}",
            )
