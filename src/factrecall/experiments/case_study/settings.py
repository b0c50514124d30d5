"""Settings of the attention case study."""

from __future__ import annotations

from collections.abc import Iterator

from factrecall.config.section import ConfigIssue, ConfigSection, Natural
from factrecall.vocabulary import RELATIONS


class CaseStudySettings(ConfigSection):
    """Head and fact of the attention case study; null chooses them (docs/method.md)."""

    layer: Natural | None = None
    """Layer of the head, from 0."""
    head: Natural | None = None
    """Head, from 0; null is the one whose output projection has most shared parameters."""
    individual: Natural | None = None
    """Individual, one to whose QA out masks are fitted; null chooses by docs/method.md."""
    relation: str | None = None
    """Relation of the fact."""

    def _issues(self) -> Iterator[ConfigIssue]:
        for one, other in (("layer", "head"), ("head", "layer")):
            if getattr(self, one) is None and getattr(self, other) is not None:
                yield ConfigIssue((one,), f"{other} is given and it is not", "give both or neither")
        if self.relation not in (None, *RELATIONS):
            yield ConfigIssue(
                ("relation",), "there is no such relation", f"take one of {', '.join(RELATIONS)}"
            )
