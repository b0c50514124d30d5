"""Jobs of a study: each stage's name with the wildcards of its rule."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from factrecall.experiments.registry import stages

if TYPE_CHECKING:
    from factrecall.config.study import Study


@dataclass(frozen=True)
class StageJob:
    """A stage and the wildcards of a job (see `runs`): empty, or 0, where it has none."""

    stage: str
    model: str = ""
    tuning: str = ""
    seed: int = 0
    split: str = ""
    kind: str = ""
    ranking: str = ""


def jobs_of(study: Study) -> Iterator[StageJob]:
    """Yield the jobs of a study, in an order in which they can run."""
    for stage in stages().values():
        for wildcards in stage.per(study):
            yield StageJob(stage.name, **wildcards)
