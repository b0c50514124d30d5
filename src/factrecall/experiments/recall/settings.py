"""Settings of recall: how answers are checked."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from factrecall.config.section import Section


class RecallSettings(Section):
    """How answers are checked."""

    max_eval_tokens: Annotated[int, Field(ge=64)] = 16384
    """Tokens in one pass, padding included; lower it when memory is short."""
