"""Settings of gradient similarity."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from factrecall.config.section import ConfigSection, Positive


class GradientSimilaritySettings(ConfigSection):
    """Gradient similarity: whether the gradients of a fact's statement and question agree."""

    individuals: Annotated[int, Field(ge=2)] | None = 3
    """Traced individuals of each side, whose facts are compared at every moment; null: all."""
    untraced: Annotated[int, Field(ge=2)] = 10
    """Individuals of each side who were not traced; their facts are compared at the end."""
    sampled_parameters: Positive | None = None
    """Parameters sampled of each layer and group, for large models; null: all."""
