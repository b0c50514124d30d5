"""Settings of the selection of shared parameters."""

from __future__ import annotations

from factrecall.config.section import Amount, Section
from factrecall.vocabulary import Influence


class SharedSettings(Section):
    """Which parameters count as shared: the top `k` of both tasks (definition 3.1)."""

    k: Amount = 0.03
    """Top parameters of a task: a count or a fraction of all, as `trace.top_fraction` is."""
    influence: Influence = "absolute"
    """Ranked by Σ|lr·g|, by |Σ lr·g| (`magnitude`), or by Σ lr·g (`signed`, equation 2)."""
