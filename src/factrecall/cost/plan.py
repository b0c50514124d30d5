"""A study's plan: every job's work, time and memory on a device, and what they add up to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from factrecall.cost import analysis, evaluation, sweeps
from factrecall.cost.execution_choice import fits
from factrecall.cost.job_cost import EFFICIENCY, JobCost
from factrecall.cost.jobs import SUMMARIES, Job, jobs_of
from factrecall.cost.models import ModelInfo, model_info
from factrecall.cost.training import TrainingPlan, planned, training_cost
from factrecall.vocabulary import TUNINGS

if TYPE_CHECKING:
    from factrecall.config.study import Study
    from factrecall.cost.devices import Device
    from factrecall.cost.memory import Memory

ASKING: dict[str, Callable[..., JobCost]] = {
    "recall": evaluation.recall_cost,
    "ablate": evaluation.ablation_cost,
    "graft": evaluation.grafting_cost,
    "graft-without-shared": evaluation.grafting_cost,
    "intervene": sweeps.interventions_cost,
    "study-case": evaluation.case_cost,
    "represent": analysis.representing_cost,
    "probe": analysis.probing_cost,
    "compare-gradients": analysis.gradients_cost,
}


@dataclass(frozen=True)
class PlannedJob:
    """One job on a device.

    Attributes
    ----------
    job : Job
        Which.
    cost : JobCost
        What it takes.
    seconds : float
        Of it in all.
    gpus : int
        That it computes on.
    """

    job: Job
    cost: JobCost
    seconds: float
    gpus: int


@dataclass(frozen=True)
class StageRow:
    """The jobs of one stage and model together.

    Attributes
    ----------
    stage, model : str
        Which; jobs without a model have none.
    jobs : tuple of PlannedJob
        They are alike but for tuning and seed.
    """

    stage: str
    model: str
    jobs: tuple[PlannedJob, ...]

    def total(self, of: Callable[[PlannedJob], float]) -> float:
        """Add up something over all jobs."""
        return sum(map(of, self.jobs))

    def most(self, of: Callable[[PlannedJob], float]) -> float:
        """Return the largest of all jobs."""
        return max(map(of, self.jobs))


@dataclass(frozen=True)
class Plan:
    """A study on a device.

    Attributes
    ----------
    study : Study
        The configuration.
    device : Device
        Where all jobs with a model run.
    efficiency : float
        Share of its matrix rate that is reached; a CPU's is measured.
    models : tuple of ModelInfo
        Shapes and texts of the models.
    jobs : tuple of PlannedJob
        In the order in which they can run.
    """

    study: Study
    device: Device
    efficiency: float
    models: tuple[ModelInfo, ...]
    jobs: tuple[PlannedJob, ...]

    @property
    def rows(self) -> list[StageRow]:
        """The jobs by stage and model."""
        groups: dict[str, dict[str, list[PlannedJob]]] = {}
        for one in self.jobs:
            models = groups.setdefault(one.job.stage, {})
            models.setdefault(one.job.model, []).append(one)
        return [
            StageRow(stage, model, tuple(jobs))
            for stage, models in groups.items()
            for model, jobs in models.items()
        ]

    @property
    def hours(self) -> float:
        """Hours of all jobs, one after the other."""
        return sum(p.seconds for p in self.jobs) / 3600

    @property
    def gpu_hours(self) -> float:
        """Hours of all devices that jobs ask for, added up."""
        return sum(p.seconds * p.gpus for p in self.jobs if p.cost.on_gpu) / 3600

    @property
    def disk(self) -> float:
        """Bytes of all files that stay, and of the largest state beside them."""
        return sum(p.cost.written for p in self.jobs) + max(p.cost.held for p in self.jobs)

    def hours_at(self, efficiency: float) -> float:
        """Return what `hours` would be if another share of the rate were reached."""
        return sum(p.cost.seconds(self.device, efficiency) for p in self.jobs) / 3600

    def hours_shared(self, jobs: int) -> float:
        """Return what `hours` would be if so many jobs at a time shared one GPU.

        No sooner than the GPU has computed everything, nor than with as many GPUs. Jobs that wait
        for others are not counted: there are as good as always enough that do not.
        """
        busy = sum(p.cost.busy(self.device, self.efficiency) for p in self.jobs) / 3600
        return max(busy, self.hours / jobs)

    def sharing(self, most: int = 4) -> int:
        """Return how many of the largest jobs fit into the device's memory together."""
        if self.device.memory is None:
            return 1
        largest = max(p.cost.memory.device for p in self.jobs)
        fitting = (n for n in range(most, 1, -1) if fits(n * largest, self.device.memory))
        return next(fitting, 1)

    def trainings(self) -> list[tuple[ModelInfo, str, TrainingPlan, Memory]]:
        """Return each model's trainings with their modes and memory."""
        found = []
        for model in self.models:
            scratch = self.study.models[model.name].source == "scratch"
            for tuning in (("base",) if scratch else ()) + TUNINGS:
                training = planned(self.study, model, tuning, self.device)
                cost = training_cost(self.study, model, tuning, self.device)
                found.append((model, tuning, training, cost.memory))
        return found

    def too_large(self) -> list[PlannedJob]:
        """Return the jobs that do not fit into the device's memory."""
        return [p for p in self.jobs if not fits(p.cost.memory.device, self.device.memory)]


def plan_study(study: Study, device: Device, efficiency: float = EFFICIENCY) -> Plan:
    """Plan a study on a device.

    Parameters
    ----------
    study : Study
        The configuration.
    device : Device
        Where.
    efficiency : float
        Share of its matrix rate that is reached (not that of a CPU, which is measured).

    Raises
    ------
    FactRecallError
        When the study's own people or sentences cannot be read.
    """
    models = {name: model_info(study, name) for name in study.models}
    jobs = list(jobs_of(study))
    found = []
    for job in jobs:
        cost = cost_of(study, models.get(job.model), job, device)
        shared = study.training.mode.gpus if job.stage == "fine-tune" else 1
        seconds = cost.seconds(device, efficiency)
        found.append(PlannedJob(job, cost, seconds, shared))
    return Plan(study, device, efficiency, tuple(models.values()), tuple(found))


def cost_of(study: Study, model: ModelInfo | None, job: Job, device: Device) -> JobCost:
    """Return what a job does on a device."""
    if job.stage == "make-facts":
        return analysis.facts_cost(study)
    if job.stage in SUMMARIES or job.stage == "draw-figures":
        return analysis.tables_cost(study, job)
    assert model is not None
    if job.stage in ("pretrain", "fine-tune"):
        return training_cost(study, model, job.tuning or "base", device)
    if job.stage == "fetch-model":
        return analysis.fetching_cost(study, model)
    if job.stage == "select-shared":
        return analysis.selection_cost(study, model)
    return ASKING[job.stage](study, model, job, device)


def as_json(plans: Sequence[Plan]) -> dict[str, Any]:
    """Return plans of one study on several devices as plain values, to be written."""
    study = plans[0].study
    return {
        "study": study.name,
        "models": [
            {
                "model": model.name,
                "architecture": model.shape.architecture,
                "parameters": model.shape.parameters,
                "source": model.source,
                "guessed": model.guessed,
            }
            for model in plans[0].models
        ],
        "devices": [_device(plan) for plan in plans],
    }


def _device(plan: Plan) -> dict[str, Any]:
    return {
        "device": plan.device.name,
        "efficiency": plan.efficiency if plan.device.is_gpu else None,
        "memory_bytes": plan.device.memory,
        "jobs": len(plan.jobs),
        "hours": plan.hours,
        "gpu_hours": plan.gpu_hours,
        "operations": sum(p.cost.operations for p in plan.jobs),
        "tokens": sum(p.cost.tokens for p in plan.jobs),
        "disk_bytes": plan.disk,
        "stages": [
            {
                "stage": row.stage,
                "model": row.model,
                "jobs": len(row.jobs),
                "parameters": row.jobs[0].cost.shape.parameters if row.jobs[0].cost.shape else 0,
                "tokens": row.total(lambda p: p.cost.tokens),
                "operations": row.total(lambda p: p.cost.operations),
                "device_memory_bytes": row.most(lambda p: p.cost.memory.device),
                "host_memory_bytes": row.most(lambda p: p.cost.memory.host),
                "written_bytes": row.total(lambda p: p.cost.written),
                "state_bytes": row.most(lambda p: p.cost.held),
                "hours": row.total(lambda p: p.seconds) / 3600,
                "longest_hours": row.most(lambda p: p.seconds) / 3600,
                "fits": all(fits(p.cost.memory.device, plan.device.memory) for p in row.jobs),
            }
            for row in plan.rows
        ],
        "trainings": [
            {
                "model": model.name,
                "tuning": tuning,
                "mode": vars(training.mode),
                "precision": training.precision,
                "tokens_of_a_pass": training.tokens,
                "device_bytes": dict(memory.parts),
                "host_bytes": dict(memory.host_parts),
                "fits": fits(memory.device, plan.device.memory),
            }
            for model, tuning, training, memory in plan.trainings()
        ],
    }
