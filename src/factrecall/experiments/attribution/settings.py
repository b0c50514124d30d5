"""Settings of attribution and activation patching."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from factrecall.config.section import ConfigSection, Positive


class AttributionSettings(ConfigSection):
    """Attribution of the answer to parts of the prompt."""

    individuals: Positive | None = 10
    """Individuals of each side whose facts are attributed; null: all."""
    steps: Positive = 16
    """Steps of integrated gradients."""


class PatchingSettings(ConfigSection):
    """Activation patching between a fact's statement and question."""

    individuals: Annotated[int, Field(ge=2)] | None = 10
    """Individuals of each side whose facts are patched; null: all."""
