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
    def fits(self) -> bool:
        """Whether it fits into the device's memory."""
        return fits(self.cost.memory.device, self.context.device.memory)


@dataclass(frozen=True)
class Quantity:
    """A quantity of jobs: the sum of each job's value, or the largest, in some unit."""

    value: Value
    over: Callable[[Iterable[float]], float] = sum
    unit: float = 1

    def of(self, jobs: Iterable[PlannedJob]) -> float:
        """Return it for some jobs."""
        return self.over(map(self.value, jobs)) / self.unit


QUANTITIES = {
    "tokens": Quantity(lambda p: p.cost.tokens),
    "operations": Quantity(lambda p: p.cost.operations),
    "device_memory_bytes": Quantity(lambda p: p.cost.memory.device, max),
    "host_memory_bytes": Quantity(lambda p: p.cost.memory.host, max),
    "written_bytes": Quantity(lambda p: p.cost.written),
    "state_bytes": Quantity(lambda p: p.cost.held, max),
    "hours": Quantity(lambda p: p.seconds, unit=3600),
    "longest_hours": Quantity(lambda p: p.seconds, max, 3600),
}
"""By their names in the JSON file."""


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

    def of(self, quantity: str) -> float:
        """Return a quantity of all jobs."""
        return QUANTITIES[quantity].of(self.jobs)

    @property
    def hours(self) -> float:
        """Hours of all jobs, one after the other."""
        return self.of("hours")

    @property
    def gpu_hours(self) -> float:
        """Hours of all devices that jobs ask for, added up."""
        return sum(p.seconds * p.gpus for p in self.jobs if p.cost.on_gpu) / 3600

    @property
    def disk(self) -> float:
        """Bytes of all files that stay, and of the largest state beside them."""
        return self.of("written_bytes") + self.of("state_bytes")

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
        largest = self.of("device_memory_bytes")
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
        "operations": plan.of("operations"),
        "tokens": plan.of("tokens"),
        "disk_bytes": plan.disk,
        "stages": [
            {
                "stage": stage,
                "model": model,
                "jobs": len(jobs),
                "parameters": shape.parameters if (shape := jobs[0].cost.shape) else 0,
                **{name: quantity.of(jobs) for name, quantity in QUANTITIES.items()},
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
