"""Settings of gradient similarity."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from factrecall.config.section import Positive, Section


class GradientSimilaritySettings(Section):
    """Consistency of gradients: whether the same parameters learn a fact told and asked."""

    individuals: Annotated[int, Field(ge=2)] | None = 5
    """Traced people of each side whose facts are compared; null: all that are traced."""
    sampled_parameters: Positive | None = None
    """Parameters drawn of each layer and group, for large models; null: all."""
