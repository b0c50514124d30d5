"""Runs of a study: which models, tunings, seeds and splits its stages run over.

Each function lists the jobs of a stage as wildcards, as the workflow's file names hold them. The
rules, the plan and `rule all` all take them from here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from factrecall.runtime.replicates import replicate_of, seed_in
from factrecall.vocabulary import COMPARED, NODE_KINDS, PHASES, SIDES, TUNINGS, NodeKind

if TYPE_CHECKING:
    from factrecall.config.study import Study

RANKINGS = ("shared", "baseline")

WILDCARDS = {
    "model": "the model's name in the study",
    "tuning": "how the model is fine-tuned",
    "seed": "seed of the fine-tuning (its order of examples) or of the replicate's facts and θpre",
    "split": "whose questions masks are fitted to: people in or out of distribution",
    "kind": "kind of nodes",
    "ranking": "what nodes are ranked by: shared parameters, or what they are compared with",
}
"""What tells the jobs of a stage apart."""

Wildcards = dict[str, Any]

RUN = {"model": "string", "tuning": "string", "seed": "int32"}
"""Columns of a table of several runs (see `Run.labels`)."""


@dataclass(frozen=True)
class Run:
    """A fine-tuned model of the study."""

    model: str
    tuning: str
    seed: int

    @property
    def labels(self) -> dict[str, Any]:
        """The columns of a table that say which model it is of."""
        return {"model": self.model, "tuning": self.tuning, "seed": self.seed}


@dataclass(frozen=True)
class Evaluation(Run):
    """A table of one model, and what made it."""

    table: Path


def once(study: Study) -> list[Wildcards]:
    """Return the one job of a stage that summarises the study."""
    return [{}]


def study_seeds(study: Study) -> list[int]:
    """Return the study seed of each replicate."""
    return [seed_in(number, study.seed) for number in range(study.replicates)]


def run_seeds(study: Study) -> list[int]:
    """Return the seeds of all fine-tunings, replicate by replicate."""
    numbers = range(study.replicates)
    return [seed_in(number, seed) for number in numbers for seed in study.training.seeds]


def study_seed_of(study: Study, seed: int) -> int:
    """Return the study seed of the replicate that a fine-tuning, or θpre, with a seed is of."""
    # Seeds of a study without replicates may be of any size.
    return seed_in(replicate_of(seed) if study.replicates > 1 else 0, study.seed)


def replicates(study: Study) -> list[Wildcards]:
    """Return all full replicates, by their study seeds."""
    return [{"seed": seed} for seed in study_seeds(study)]


def models(study: Study) -> list[Wildcards]:
    """Return all models."""
    return [{"model": name} for name in study.models]


def scratch_models(study: Study) -> list[Wildcards]:
    """Return the models that are pre-trained here, once a replicate."""
    scratch = [name for name, model in study.models.items() if model.source == "scratch"]
    return [{"model": name, **replicate} for name in scratch for replicate in replicates(study)]


def fetched_models(study: Study) -> list[Wildcards]:
    """Return the models that are not built here: θpre is one for all replicates."""
    return [{"model": n} for n, model in study.models.items() if model.source != "scratch"]


def base_seed(study: Study, model: str, seed: int) -> int:
    """Return the seed in the name of the θpre that a fine-tuning with a seed starts from."""
    scratch = study.models[model].source == "scratch"
    return study_seed_of(study, seed) if scratch else study.seed


def _tuned(study: Study, tunings: Sequence[str]) -> list[Wildcards]:
    seeds = run_seeds(study)
    return [
        {"model": model, "tuning": tuning, "seed": seed}
        for model in study.models
        for tuning in tunings
        for seed in seeds
    ]


def trainings(study: Study) -> list[Wildcards]:
    """Return all fine-tunings."""
    return _tuned(study, TUNINGS)


def evaluations(study: Study) -> list[Wildcards]:
    """Return all models to evaluate; θpre has no seed of its own and carries the replicate's."""
    base = [{"model": m, "tuning": "base", **r} for m in study.models for r in replicates(study)]
    return base + trainings(study)


def histories(study: Study) -> list[Wildcards]:
    """Return the training histories: two-stage and mixed training of each model and seed."""
    return _tuned(study, COMPARED)


def grafts(study: Study) -> list[Wildcards]:
    """Return the training histories, with each split that masks are fitted to."""
    return [{**run, "split": split} for run in histories(study) for split in SIDES]


def kinds_of(study: Study) -> list[NodeKind]:
    """Return the kinds of nodes that are intervened on."""
    return [kind for kind in NODE_KINDS if getattr(study.circuits, kind)]


def interventions(study: Study) -> list[Wildcards]:
    """Return the training histories, with each kind of nodes and what nodes are ranked by."""
    return [
        {**run, "kind": kind, "ranking": ranking}
        for run in histories(study)
        for kind in kinds_of(study)
        for ranking in RANKINGS
    ]


def moments(study: Study, tuning: str) -> list[Wildcards]:
    """Return the moments of a training history: phases and, of each, which share is over.

    Snapshots lie between start and end; the second phase starts where the first one ends.
    """
    inside = study.trace.checkpoints + 1
    return [
        {"phase": phase, "share": moment / inside}
        for number, phase in enumerate(PHASES[tuning])
        for moment in range(number > 0, inside + 1)
    ]


def job_name(rule: str, wildcards: Wildcards) -> str:
    """Return the name of a job's log and benchmark, as the rules have it."""
    named = {"seed": "seed{}"}
    words = [named.get(n, "{}").format(v) for n, v in wildcards.items() if n != "model"]
    return "/".join(filter(None, (rule, str(wildcards.get("model", "")), "-".join(words))))
