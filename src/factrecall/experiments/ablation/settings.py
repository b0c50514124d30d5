"""Settings of ablation."""

from __future__ import annotations

from factrecall.config.section import ConfigSection, Positive


class AblationSettings(ConfigSection):
    """Ablation: shared parameters, or others, reset to θpre (section 3.1)."""

    draws: Positive = 3
    """Draws of each random control."""
    individuals: Positive | None = None
    """Individuals of each side whose questions all but the first five ablations are evaluated on;
    null: all."""
