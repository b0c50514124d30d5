"""Settings of recall."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from factrecall.config.section import ConfigSection


class RecallSettings(ConfigSection):
    """Evaluation of recall by exact match."""

    max_eval_tokens: Annotated[int, Field(ge=64)] = 16384
    """Maximum tokens of a pass, padding included; lower it when memory is short."""
