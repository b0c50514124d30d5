"""The jobs of a study, as the workflow has them: a rule and its wildcards each.

What `workflow/rules` says in patterns is said here in loops; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from factrecall.vocabulary import COMPARED, NODE_KINDS, SIDES, TUNINGS, NodeKind

if TYPE_CHECKING:
    from factrecall.config.study import Study


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
    by: Literal["shared", "baseline", ""] = ""

    @property
    def rule(self) -> str:
        """The workflow's name of it."""
        return self.stage.replace("-", "_")


def jobs_of(study: Study) -> Iterator[Job]:
    """Yield the jobs of a study, in the order in which they can run."""
    seeds = study.training.seeds
    yield Job("make-facts")
    for name, model in study.models.items():
        yield Job("pretrain" if model.source == "scratch" else "fetch-model", name)
        yield Job("recall", name, "base", study.seed)
        for tuning in TUNINGS:
            for seed in seeds:
                yield Job("fine-tune", name, tuning, seed)
                yield Job("recall", name, tuning, seed)
        for tuning in COMPARED:
            for seed in seeds:
                yield from _of_history(study, name, tuning, seed)
        yield Job("study-case", name)
        yield Job("draw-figures", name)
    for stage in SUMMARIES:
        yield Job(stage)


def _of_history(study: Study, name: str, tuning: str, seed: int) -> Iterator[Job]:
    known = (name, tuning, seed)
    for stage in ("select-shared", "ablate", "represent", "probe", "compare-gradients"):
        yield Job(stage, *known)
    for split in SIDES:
        yield Job("graft", *known, split)
        yield Job("graft-without-shared", *known, split)
    for kind in kinds_of(study):
        yield Job("intervene", *known, kind=kind, by="shared")
        yield Job("intervene", *known, kind=kind, by="baseline")


def kinds_of(study: Study) -> list[NodeKind]:
    """Return the kinds of nodes that are intervened on."""
    return [kind for kind in NODE_KINDS if getattr(study.circuits, kind)]
