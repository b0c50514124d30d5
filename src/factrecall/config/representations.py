"""The section of the configuration that says how representations are looked at."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from factrecall.config.section import ConfigIssue, Natural, Positive, Section

Penalty = Annotated[float, Field(gt=0.0)]


class Probes(Section):
    """Linear probes: what of a fact can be read off the residual stream."""

    individuals: Annotated[int, Field(ge=10)] | None = None
    """People of each side whose prompts are probed; null: all."""
    held_out: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.2
    """Share of the people in distribution on whom probes are tested in place of fitted."""
    penalties: Annotated[list[Penalty], Field(min_length=1)] = [  # noqa: RUF012 (pydantic copies it)
        1e-4,
        1e-3,
        1e-2,
        1e-1,
    ]
    """Weights of the squared norm beside the mean loss, of which training data choose."""

    def _issues(self) -> Iterator[ConfigIssue]:
        if sorted(set(self.penalties)) != self.penalties:
            yield ConfigIssue(
                ("penalties",), "they are not in rising order", "sort them, each once"
            )


class GradientSimilarity(Section):
    """Consistency of gradients: whether the same parameters learn a fact told and asked."""

    individuals: Annotated[int, Field(ge=2)] | None = 5
    """Traced people of each side whose facts are compared; null: all that are traced."""
    sampled_parameters: Positive | None = None
    """Parameters drawn of each layer and group, for large models; null: all."""


class Attribution(Section):
    """Which parts of its prompt a fact is read from."""

    individuals: Positive | None = 10
    """People of each side whose facts are looked at; null: all."""
    steps: Positive = 16
    """Points of the path that integrated gradients follow."""


class Patching(Section):
    """Activation patching between a fact told and asked."""

    individuals: Annotated[int, Field(ge=2)] | None = 10
    """People of each side whose facts are patched; null: all."""


class Representations(Section):
    """How facts are represented when told and when asked, and what they are read from."""

    layers: list[Natural] | None = None
    """Layers that are probed and patched, counted from 0; null: all."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the hidden states that are kept."""
    probes: Probes = Probes()
    gradient_similarity: GradientSimilarity = GradientSimilarity()
    attribution: Attribution = Attribution()
    patching: Patching = Patching()

    def _issues(self) -> Iterator[ConfigIssue]:
        if self.layers is not None and sorted(set(self.layers)) != self.layers:
            yield ConfigIssue(("layers",), "they are not in rising order", "sort them, each once")
        if self.layers == []:
            yield ConfigIssue(("layers",), "there are none", "name some, or set it to null for all")
