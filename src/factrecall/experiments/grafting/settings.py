"""Settings of grafting."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from factrecall.config.section import ConfigIssue, ConfigSection, Positive

Alpha = Annotated[float, Field(gt=0.0, lt=1.0)]


class DualAveraging(ConfigSection):
    """The default: gradients of the loss are summed to scores, and the mask is their top."""

    method: Literal["dual_averaging"]
    """Lazy projected gradient descent on the mask itself (docs/method.md)."""
    updates: Positive = 8
    """Updates of the mask at each size; three times as many at the first, the largest."""
    batch_size: Positive = 100
    """Questions in an update."""
    step: Annotated[float, Field(gt=0.0)] = 0.3
    """Step size of an update, relative to the initial path from θpre to θtask."""


class SigmoidSGD(ConfigSection):
    """The paper's optimiser (equation 6, appendix A.5.1); docs/benchmarks.md compares the two."""

    method: Literal["sigmoid_sgd"]
    """Stochastic gradient descent on the logits of a relaxed mask."""
    updates: Positive = 20_000
    """Updates at most; the paper stops after 24 hours."""
    batch_size: Positive = 2
    """Questions in an update."""
    learning_rate: Annotated[float, Field(gt=0.0)] = 1e8
    """Learning rate: large, because the slope of the sigmoid is as small as `initial`."""
    initial: Annotated[float, Field(gt=0.0, lt=0.5)] = 1e-4
    """Distance of each entry of the mask from 0 or 1 at the start."""
    check: Positive = 200
    """Updates between two evaluations of the rounded mask."""


class GraftingSettings(ConfigSection):
    """Grafting: the smallest masks that recover recall (section 3.2, appendix A.5)."""

    alphas: Annotated[list[Alpha], Field(min_length=1)] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05]  # noqa: RUF012
    """Sizes of masks as shares of all parameters, ascending."""
    fit_individuals: Annotated[int, Field(ge=2)] | None = None
    """Individuals of each side to whose questions masks are fitted; others test them. null: all."""
    exclude_embeddings: bool = True
    """Keep embeddings and output head at θpre, as the paper does."""
    target_recovery: Annotated[float, Field(gt=0.0, le=1.0)] = 0.92
    """Share of the fine-tuned accuracy to recover; the smallest mask that does is chosen."""
    optimiser: Annotated[DualAveraging | SigmoidSGD, Field(discriminator="method")] = DualAveraging(
        method="dual_averaging"
    )
    """Optimiser of masks."""

    def _issues(self) -> Iterator[ConfigIssue]:
        if sorted(set(self.alphas)) != self.alphas:
            yield ConfigIssue(
                ("alphas",),
                "they are not in rising order, or one is there twice",
                f"write them as {sorted(set(self.alphas))}",
            )
