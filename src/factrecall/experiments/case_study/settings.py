"""Settings of the attention case study."""

from __future__ import annotations

from collections.abc import Iterator

from factrecall.config.section import ConfigIssue, Natural, Section
from factrecall.vocabulary import RELATIONS


class CaseStudySettings(Section):
    """What the attention case study looks at; null chooses it (docs/method.md)."""

    layer: Natural | None = None
    """The head's layer, from 0."""
    head: Natural | None = None
    """The head, from 0; null takes the one whose output projection has most shared parameters."""
    individual: Natural | None = None
    """Whose fact, one of those masks are fitted to on QA out; null takes a telling one."""
    relation: str | None = None
    """Which fact of theirs."""

    def _issues(self) -> Iterator[ConfigIssue]:
        for one, other in (("layer", "head"), ("head", "layer")):
            if getattr(self, one) is None and getattr(self, other) is not None:
                yield ConfigIssue((one,), f"{other} is given and it is not", "give both or neither")
        if self.relation not in (None, *RELATIONS):
            yield ConfigIssue(
                ("relation",), "there is no such relation", f"take one of {', '.join(RELATIONS)}"
            )
