"""A study's plan: the cost, time and memory of every job on a device, and their totals."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from factrecall.cost import common, training
from factrecall.cost.evaluation import JobContext
from factrecall.cost.execution_choice import fits
from factrecall.cost.job_cost import EFFICIENCY, JobCost
from factrecall.cost.jobs import StageJob, jobs_of
from factrecall.cost.models import ModelInfo, model_info
from factrecall.cost.training import TrainingPlan, plan_training
from factrecall.experiments.registry import EXPERIMENTS

if TYPE_CHECKING:
    from factrecall.config.study import Study
    from factrecall.cost.devices import Device

Value = Callable[["PlannedJob"], float]


@dataclass(frozen=True)
class PlannedJob:
    """A job on a device: its cost, the seconds it takes, and the GPUs it computes on."""

    context: JobContext
    cost: JobCost
    seconds: float
    gpus: int

    @property
    def job(self) -> StageJob:
        """The job itself."""
        return self.context.job

    @property
    def need(self) -> float:
        """Bytes that it takes of the device's memory."""
        return self.cost.memory.device

    @property
    def fits(self) -> bool:
        """Whether it fits into the device's memory."""
        return fits(self.need, self.context.device.memory)


QUANTITIES: dict[str, tuple[Value, Callable[[Iterable[float]], float], float]] = {
    "tokens": (lambda p: p.cost.tokens, sum, 1),
    "operations": (lambda p: p.cost.operations, sum, 1),
    "device_memory_bytes": (lambda p: p.need, max, 1),
    "host_memory_bytes": (lambda p: p.cost.memory.host, max, 1),
    "written_bytes": (lambda p: p.cost.written, sum, 1),
    "state_bytes": (lambda p: p.cost.held, max, 1),
    "hours": (lambda p: p.seconds, sum, 3600),
    "longest_hours": (lambda p: p.seconds, max, 3600),
}
"""By their names in the JSON file: a job's value, how those of jobs are joined, the unit."""


def quantity(name: str, jobs: Iterable[PlannedJob]) -> float:
    """Return a quantity of jobs together."""
    value, joined, unit = QUANTITIES[name]
    return joined(map(value, jobs)) / unit


@dataclass(frozen=True)
class Plan:
    """A study on a device."""

    study: Study
    device: Device
    efficiency: float  # share of a GPU's matrix rate that is reached; a CPU's is measured
    models: tuple[ModelInfo, ...]
    jobs: tuple[PlannedJob, ...]  # in the order in which they can run

    @property
    def rows(self) -> dict[tuple[str, str], list[PlannedJob]]:
        """The jobs by stage and model; those of a row differ in their other wildcards."""
        rows: dict[tuple[str, str], list[PlannedJob]] = {}
        for one in self.jobs:
            rows.setdefault((one.job.stage, one.job.model), []).append(one)
        return rows

    @property
    def hours(self) -> float:
        """Hours of all jobs, one after the other."""
        return quantity("hours", self.jobs)

    @property
    def gpu_hours(self) -> float:
        """Hours of all devices that jobs ask for, added up."""
        return sum(p.seconds * p.gpus for p in self.jobs if p.cost.on_gpu) / 3600

    @property
    def disk(self) -> float:
        """Bytes of all files that stay, and of the largest state beside them."""
        return quantity("written_bytes", self.jobs) + quantity("state_bytes", self.jobs)

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
        largest = quantity("device_memory_bytes", self.jobs)
        fitting = (n for n in range(most, 1, -1) if fits(n * largest, self.device.memory))
        return next(fitting, 1)

    def trainings(self) -> list[tuple[PlannedJob, TrainingPlan]]:
        """Return the trainings, model by model, one of each tuning."""
        found: dict[tuple[str, str], PlannedJob] = {}
        for one in self.jobs:
            if one.job.stage in training.COSTS:
                found.setdefault((one.job.model, one.job.tuning), one)
        names = [model.name for model in self.models]
        jobs = sorted(found.values(), key=lambda one: names.index(one.job.model))
        return [(one, plan_training(one.context)) for one in jobs]

    def too_large(self) -> list[PlannedJob]:
        """Return the jobs that do not fit into the device's memory."""
        return [p for p in self.jobs if not p.fits]


def plan_study(study: Study, device: Device, efficiency: float = EFFICIENCY) -> Plan:
    """Plan a study on a device, of whose matrix rate a GPU reaches such a share.

    Raises
    ------
    FactRecallError
        When the study's own people or sentences cannot be read.
    """
    models = {name: model_info(study, name) for name in study.models}
    planned = []
    for job in jobs_of(study):
        model = models[job.model or next(iter(models))]  # which jobs without one do not use
        context = JobContext(study, model, job, device)
        cost, gpus = cost_of(context), study.training.mode.gpus if job.stage == "fine-tune" else 1
        planned.append(PlannedJob(context, cost, cost.seconds(device, efficiency), gpus))
    return Plan(study, device, efficiency, tuple(models.values()), tuple(planned))


def cost_of(context: JobContext) -> JobCost:
    """Return the cost of a job on a device."""
    return costs()[context.job.stage](context)


@cache
def costs() -> dict[str, Callable[[JobContext], JobCost]]:
    """Return the cost function of every stage."""
    experiments = [experiment.load("cost") for experiment in EXPERIMENTS if experiment.cost]
    return dict(ChainMap(common.COSTS, training.COSTS, *experiments))


def as_json(plans: Sequence[Plan]) -> dict[str, Any]:
    """Return plans of one study on several devices as plain values, to be written."""
    keys = ("model", "architecture", "parameters", "source", "guessed")
    models = [
        (m.name, m.shape.architecture, m.shape.parameters, m.source, m.guessed)
        for m in plans[0].models
    ]
    return {
        "study": plans[0].study.name,
        "models": [dict(zip(keys, model, strict=True)) for model in models],
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
        "operations": quantity("operations", plan.jobs),
        "tokens": quantity("tokens", plan.jobs),
        "disk_bytes": plan.disk,
        "stages": [
            {
                "stage": stage,
                "model": model,
                "jobs": len(jobs),
                "parameters": shape.parameters if (shape := jobs[0].cost.shape) else 0,
                **{name: quantity(name, jobs) for name in QUANTITIES},
                "fits": all(p.fits for p in jobs),
            }
            for (stage, model), jobs in plan.rows.items()
        ],
        "trainings": [
            {
                "model": one.job.model,
                "tuning": one.job.tuning or "base",
                "mode": vars(found.execution),
                "precision": found.precision,
                "tokens_of_a_pass": found.tokens,
                "device_bytes": dict(one.cost.memory.parts),
                "host_bytes": dict(one.cost.memory.host_parts),
                "fits": one.fits,
            }
            for one, found in plan.trainings()
        ],
    }
