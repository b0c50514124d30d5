"""Settings of attribution and activation patching."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from factrecall.config.section import Positive, Section


class AttributionSettings(Section):
    """Which parts of its prompt a fact is read from."""

    individuals: Positive | None = 10
    """People of each side whose facts are looked at; null: all."""
    steps: Positive = 16
    """Points of the path that integrated gradients follow."""


class PatchingSettings(Section):
    """Activation patching between a fact told and asked."""

    individuals: Annotated[int, Field(ge=2)] | None = 10
    """People of each side whose facts are patched; null: all."""
