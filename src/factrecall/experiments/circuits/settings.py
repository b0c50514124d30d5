"""The section of the configuration that says how nodes are intervened on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from factrecall.config.section import ConfigIssue, Natural, Positive, Section
from factrecall.experiments.case_study.settings import CaseStudySettings


class NodesPerStep(Section):
    """How many nodes of a kind a step intervenes on."""

    forward: Positive = 1
    """Nodes grafted in a step, from none to all."""
    backward: Positive = 1
    """Nodes put back in a step, from all to none."""


class AllSteps(Section):
    """Ask at steps of even distance."""

    method: Literal["all"]
    """Every `stride`-th step."""
    stride: Positive = 1
    """1 asks at every step."""


class AdaptiveSteps(Section):
    """Ask where the curve bends: for large models."""

    method: Literal["adaptive"]
    """Halve the steps between which the curve is no line; test it on others."""
    intervals: Positive = 16
    """Intervals to begin with."""
    tolerance: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.01
    """How far a tested step's accuracy may be from the line, as a share of all questions."""
    held_out: Positive = 20
    """Steps that test the curve, drawn at random."""


class CircuitSettings(Section):
    """Which heads and neurons support recall (section 4, appendices A.6 and A.7)."""

    attention: NodesPerStep | None = NodesPerStep()
    """Heads' slices of the query, key, value and output projections; null leaves them out."""
    column: NodesPerStep | None = NodesPerStep(forward=8192, backward=64)
    """Columns of the MLP's matrices, the paper's neurons; null leaves them out."""
    unit: NodesPerStep | None = None
    """Hidden units of the MLP, the usual neurons; null leaves them out."""
    random_orders: Natural = 3
    """Random orders of the nodes, to compare with."""
    individuals: Positive | None = None
    """People whose questions are asked, of those the masks were fitted to; null: all of them."""
    steps: Annotated[AllSteps | AdaptiveSteps, Field(discriminator="method")] = AllSteps(
        method="all"
    )
    """At which steps the model is asked."""
    case: CaseStudySettings = CaseStudySettings()
    """The attention case study."""

    def _issues(self) -> Iterator[ConfigIssue]:
        if self.attention is None and self.column is None and self.unit is None:
            yield ConfigIssue(
                ("attention",),
                "with column and unit null too there is nothing to intervene on",
                "set one of the three, {} for its defaults",
            )
