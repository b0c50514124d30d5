"""Settings of the selection of shared parameters."""

from __future__ import annotations

from factrecall.config.section import Amount, ConfigSection
from factrecall.vocabulary import Influence


class SharedSettings(ConfigSection):
    """Shared parameters: those in the top `k` of both tasks (definition 3.1)."""

    k: Amount = 0.03
    """Top parameters of a task: a count or a fraction of all, the unit of `trace.top_fraction`."""
    influence: Influence = "absolute"
    """Influence: Σ|lr·g|, |Σ lr·g| (`magnitude`), Σ lr·g (`signed`, equation 2), or the size of the
    sum of AdamW's updates (`adam`)."""
