"""The jobs of a study: each stage's name with the wildcards of its rule."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from factrecall.experiments.registry import stages
from factrecall.runs import kinds_of
from factrecall.vocabulary import NodeKind

if TYPE_CHECKING:
    from factrecall.config.study import Study

__all__ = ["SUMMARIES", "Job", "jobs_of", "kinds_of"]

SUMMARIES = (
    *("summarise-recall", "summarise-shared", "summarise-ablation", "summarise-grafting"),
    *("summarise-circuits", "summarise-representations", "write-report"),
)
"""Stages of one job each, without a model."""


@dataclass(frozen=True)
class Job:
    """A job.

    Attributes
    ----------
    stage : str
        As on the command line; the rule has underscores.
    model, tuning, seed, split, kind, by : str, int
        Wildcards of its rule; empty, or 0, where it has none.
    """

    stage: str
    model: str = ""
    tuning: str = ""
    seed: int = 0
    split: str = ""
    kind: NodeKind | Literal[""] = ""
    by: str = ""

    @property
    def rule(self) -> str:
        """The workflow's name of it."""
        return self.stage.replace("-", "_")


def jobs_of(study: Study) -> Iterator[Job]:
    """Yield the jobs of a study, in an order in which they can run."""
    for stage in stages().values():
        for wildcards in stage.per(study):
            yield Job(stage.name, **wildcards)
