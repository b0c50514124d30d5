"""Settings of circuits: interventions on heads and neurons."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from factrecall.config.section import ConfigIssue, ConfigSection, Natural, Positive
from factrecall.experiments.case_study.settings import CaseStudySettings


class NodesPerStep(ConfigSection):
    """Nodes of one kind per step."""

    forward: Positive = 1
    """Nodes grafted per step, from none to all."""
    backward: Positive = 1
    """Nodes reset to θpre per step, from all to none."""


class AllSteps(ConfigSection):
    """Recall is evaluated at evenly spaced steps."""

    method: Literal["all"]
    """Every `stride`-th step is evaluated."""
    stride: Positive = 1
    """Steps from one evaluation to the next."""


class AdaptiveSteps(ConfigSection):
    """Recall is evaluated where the curve bends: for large models."""

    method: Literal["adaptive"]
    """Intervals in which the curve is no line are halved; held-out steps test it."""
    intervals: Positive = 16
    """Intervals at the start."""
    tolerance: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.01
    """Largest distance of a step's accuracy from the line, as a share of all questions."""
    held_out: Positive = 20
    """Random steps that test the curve."""


class CircuitSettings(ConfigSection):
    """Circuits: heads and neurons that support recall (section 4, appendices A.6 and A.7)."""

    attention: NodesPerStep | None = NodesPerStep()
    """Heads: their slices of the query, key, value and output projections; null leaves them out."""
    column: NodesPerStep | None = NodesPerStep(forward=8192, backward=64)
    """Columns of the MLP matrices, the paper's neurons; null leaves them out."""
    unit: NodesPerStep | None = None
    """Hidden units of the MLP, the usual neurons; null leaves them out."""
    random_orders: Natural = 3
    """Random orders of the nodes: the baseline."""
    individuals: Positive | None = None
    """Individuals whose questions are evaluated, among those masks are fitted to; null: all."""
    steps: Annotated[AllSteps | AdaptiveSteps, Field(discriminator="method")] = AllSteps(
        method="all"
    )
    """Steps at which recall is evaluated."""
    case: CaseStudySettings = CaseStudySettings()
    """The attention case study."""

    def _issues(self) -> Iterator[ConfigIssue]:
        if self.attention is None and self.column is None and self.unit is None:
            yield ConfigIssue(
                ("attention",),
                "with column and unit null too there is nothing to intervene on",
                "set one of the three, {} for its defaults",
            )
