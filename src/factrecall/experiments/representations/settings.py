"""The section of the configuration that says how representations are looked at."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from factrecall.config.section import ConfigIssue, Natural, Section
from factrecall.experiments.attribution.settings import AttributionSettings, PatchingSettings
from factrecall.experiments.gradient_similarity.settings import GradientSimilaritySettings

Penalty = Annotated[float, Field(gt=0.0)]


class ProbeSettings(Section):
    """Linear probes: what of a fact can be read off the residual stream."""

    individuals: Annotated[int, Field(ge=10)] | None = None
    """People of each side whose prompts are probed; null: all."""
    held_out: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.2
    """Share of the people in distribution on whom probes are tested in place of fitted."""
    penalties: Annotated[list[Penalty], Field(min_length=1)] = [  # noqa: RUF012 (pydantic copies it)
        1e-4,
        1e-3,
        1e-2,
        1e-1,
    ]
    """Weights of the squared norm beside the mean loss, of which training data choose."""

    def _issues(self) -> Iterator[ConfigIssue]:
        if sorted(set(self.penalties)) != self.penalties:
            yield ConfigIssue(
                ("penalties",), "they are not in rising order", "sort them, each once"
            )


class RepresentationSettings(Section):
    """How facts are represented when told and when asked, and what they are read from."""

    layers: list[Natural] | None = None
    """Layers that are probed and patched, counted from 0; null: all."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the hidden states that are kept."""
    probes: ProbeSettings = ProbeSettings()
    gradient_similarity: GradientSimilaritySettings = GradientSimilaritySettings()
    attribution: AttributionSettings = AttributionSettings()
    patching: PatchingSettings = PatchingSettings()

    def _issues(self) -> Iterator[ConfigIssue]:
        if self.layers is not None and sorted(set(self.layers)) != self.layers:
            yield ConfigIssue(("layers",), "they are not in rising order", "sort them, each once")
        if self.layers == []:
            yield ConfigIssue(("layers",), "there are none", "name some, or set it to null for all")
