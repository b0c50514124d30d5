"""Settings of the experiments on representations."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from factrecall.config.section import ConfigIssue, ConfigSection, Natural
from factrecall.experiments.attribution.settings import AttributionSettings, PatchingSettings
from factrecall.experiments.gradient_similarity.settings import GradientSimilaritySettings

Penalty = Annotated[float, Field(gt=0.0)]


class ProbeSettings(ConfigSection):
    """Linear probes of the attribute on the residual stream."""

    individuals: Annotated[int, Field(ge=10)] | None = None
    """Individuals of each side whose prompts are probed; null: all."""
    held_out: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.2
    """Share of the individuals in distribution on whom probes are tested instead of fitted."""
    penalties: Annotated[list[Penalty], Field(min_length=1)] = [  # noqa: RUF012 (pydantic copies it)
        1e-4,
        1e-3,
        1e-2,
        1e-1,
    ]
    """L2 penalties on the mean loss, one of which is chosen on training data."""

    def _issues(self) -> Iterator[ConfigIssue]:
        if sorted(set(self.penalties)) != self.penalties:
            yield ConfigIssue(
                ("penalties",), "they are not in rising order", "sort them, each once"
            )


class RepresentationSettings(ConfigSection):
    """Representations of a fact as statement and as question."""

    layers: list[Natural] | None = None
    """Layers that are probed and patched, from 0; null: all."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Number format of stored hidden states."""
    probes: ProbeSettings = ProbeSettings()
    gradient_similarity: GradientSimilaritySettings = GradientSimilaritySettings()
    attribution: AttributionSettings = AttributionSettings()
    patching: PatchingSettings = PatchingSettings()

    def _issues(self) -> Iterator[ConfigIssue]:
        if self.layers is not None and sorted(set(self.layers)) != self.layers:
            yield ConfigIssue(("layers",), "they are not in rising order", "sort them, each once")
        if self.layers == []:
            yield ConfigIssue(("layers",), "there are none", "name some, or set it to null for all")
