"""Settings of grafting."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field

from factrecall.config.section import ConfigIssue, ConfigSection, Positive

Alpha = Annotated[float, Field(gt=0.0, lt=1.0)]

Objective = Literal["gold", "distilled"]
"""What masks are fitted to: gold answers, as in the paper, or θtask's own answers."""


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
    refine: Annotated[float, Field(gt=1.0)] | None = None
    """Sizes between `alphas`, each at most so many times the next smaller one; null: none."""
    objectives: Annotated[list[Objective], Field(min_length=1)] = ["gold", "distilled"]  # noqa: RUF012
    """What masks are fitted to: `gold` answers and, beside them, θtask's own (`distilled`)."""
    fit_individuals: Annotated[int, Field(ge=2)] | None = None
    """Individuals of each side to whose questions masks are fitted; others test them. null: all."""
    held_out_individuals: Positive | None = None
    """Individuals of each side who test masks; null: all to whom masks are not fitted."""
    exclude_embeddings: bool = True
    """Keep embeddings and output head at θpre, as the paper does."""
    target_recovery: Annotated[float, Field(gt=0.0, le=1.0)] = 0.92
    """Share of the fine-tuned accuracy to recover; the smallest mask that does is chosen."""
    optimiser: Annotated[DualAveraging | SigmoidSGD, Field(discriminator="method")] = DualAveraging(
        method="dual_averaging"
    )
    """Optimiser of masks."""

    def sizes(self) -> list[float]:
        """Return `alphas` and the sizes between them, ascending, of which masks are fitted."""
        found = self.alphas[:1]
        for small, large in pairwise(self.alphas):
            steps = 1 if self.refine is None else _steps(large / small, self.refine)
            ratio = (large / small) ** (1 / steps)
            found += [float(f"{small * ratio**step:.4g}") for step in range(1, steps)] + [large]
        return found

    def _issues(self) -> Iterator[ConfigIssue]:
        if sorted(set(self.alphas)) != self.alphas:
            yield ConfigIssue(
                ("alphas",),
                "they are not in rising order, or one is there twice",
                f"write them as {sorted(set(self.alphas))}",
            )
        if "gold" not in self.objectives or len(set(self.objectives)) < len(self.objectives):
            yield ConfigIssue(
                ("objectives",),
                "gold is missing, which the paper's claims are about, or one is there twice",
                "write [gold] or [gold, distilled]",
            )
        if self.fit_individuals is None and self.held_out_individuals is not None:
            yield ConfigIssue(
                ("held_out_individuals",),
                "masks are fitted to everybody (fit_individuals is null): nobody is left",
                "set fit_individuals, or held_out_individuals: null",
            )
        if self.refine is not None and self.optimiser.method == "sigmoid_sgd":
            yield ConfigIssue(
                ("refine",),
                "sigmoid_sgd fits each size anew, which takes too long for so many",
                "set refine: null, or optimiser: {method: dual_averaging}",
            )


def _steps(ratio: float, most: float) -> int:
    """Return in how many equal factors of at most `most` a ratio is divided."""
    return math.ceil(math.log(ratio) / math.log(most) - 1e-9)
