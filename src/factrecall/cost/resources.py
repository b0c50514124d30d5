"""Resources of a rule: the plan's numbers, with a margin for what a plan cannot know.

Nothing here changes a result. A job that needs more than it asked for is submitted again and asks
for more; trainings, fits and sweeps then go on from their state.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from factrecall.cost.devices import CPU, DEVICES, SOME_CPU, Device
from factrecall.cost.evaluation import JobContext
from factrecall.cost.job_cost import EFFICIENCY
from factrecall.cost.jobs import StageJob, jobs_of
from factrecall.cost.models import model_info
from factrecall.cost.plan import cost_of
from factrecall.experiments.registry import stages
from factrecall.runtime.errors import FactRecallError

if TYPE_CHECKING:
    from factrecall.config.study import Study
    from factrecall.cost.job_cost import JobCost

# Main memory and time over what is planned, which is right to a quarter (docs/planning.md); no GPU
# number was measured yet, and nodes are not alike.
MEMORY, TIME = 1.25, 3.0
ROOM = 500.0  # megabytes beside: the engine's own processes around a job on a cluster
START = 25  # minutes that every job gets; SLURM gives notice after the first fifteen
LONGEST = 24 * 60  # minutes at most: trainings, fits and sweeps go on in their next attempt

# The slower of the GPUs that hold models of the paper's size whole: for jobs that begin anew.
TIMED = "A100-80"
LARGE = 3e7  # parameters from which models are thought to be on a GPU, where there may be one

Resources = dict[str, Callable[..., int]]


def needs(
    study: Study, stage: str, model: str, tuning: str = "base", attempt: int = 1
) -> dict[str, int]:
    """Return what a job of a stage with a model asks for, as Snakemake names it.

    Of several devices that it may run on it is the most: ``mem_mb``, ``runtime`` (minutes) and
    ``disk_mb``. Memory grows with the attempt (from 1), and so does the time of stages that begin
    anew.
    """
    found = _costs(study, stage, model, tuning)
    host = max(cost.memory.host for _, cost in found)
    disk = max(cost.written + cost.held for _, cost in found)
    resumed = stages()[stage].resumes  # a later attempt needs no more time than the first
    seconds = max(
        cost.seconds(device, EFFICIENCY)
        for device, cost in found
        if resumed or device.name in (TIMED, CPU)
    )
    minutes = (START + round(TIME * seconds / 60)) * (1 if resumed else attempt)
    # A second attempt is as often due to a node or a time limit as to memory.
    memory = (1 + (attempt - 1) / 2) * (ROOM + MEMORY * host / 1e6)
    return {
        "mem_mb": round(memory),
        "runtime": min(minutes, LONGEST),
        "disk_mb": round(1000 + MEMORY * disk / 1e6),
    }


def _costs(study: Study, stage: str, name: str, tuning: str) -> list[tuple[Device, JobCost]]:
    """Return the costs of a stage's jobs on every device that they may run on."""
    try:
        model = model_info(study, name)
    except FactRecallError:  # the user's own people are wrong, which the first job says
        synthetic = study.facts.model_copy(update={"individuals": None, "templates": None})
        model = model_info(study.model_copy(update={"facts": synthetic}), name)
    where, devices = study.compute.device, list[Device]()
    if where != "cpu":
        devices += DEVICES.values()
    if where == "cpu" or (where == "auto" and model.shape.parameters < LARGE):
        devices.append(SOME_CPU)
    return [
        (device, cost_of(JobContext(study, model, job, device)))
        for device in devices
        for job in _jobs(study, stage, name, tuning)
    ]


def _jobs(study: Study, stage: str, name: str, tuning: str) -> set[StageJob]:
    """Return the jobs among which is the one that takes most: of the first seed, as a rule."""
    seed = study.training.seeds[0]
    jobs = (job for job in jobs_of(study) if (job.stage, job.model) == (stage, name))
    # Sweeps over the baseline take more than those over S.
    return {replace(job, tuning=tuning, seed=seed) for job in jobs if job.ranking != "shared"}


def gpus(study: Study, *, cluster: bool, stage: str = "") -> int:
    """Return how many GPUs a job that runs a model asks for: none where there is none.

    `training.mode.gpus` share a fine-tuning. On a `cluster` nodes are not this machine; here a job
    asks for its turn on all GPUs that a fine-tuning takes.
    """
    each = study.training.mode.gpus if stage == "fine-tune" or not cluster else 1
    if study.compute.device != "auto":
        return each * (study.compute.device == "cuda")
    return each * int(cluster or _gpu_here())


def _gpu_here() -> bool:
    """Say whether this machine seems to have a GPU; to load PyTorch for that takes seconds."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return any(name.strip() not in ("", "-1") for name in visible.split(","))
    # The last is that of Windows' Linux.
    return any([*Path("/dev").glob("nvidia[0-9]*"), *Path("/dev").glob("dxg")])


def resources(study: Study, stage: str) -> Resources:
    """Return a rule's resources as functions of wildcards and attempt, as Snakemake calls them."""
    # Jobs of one rule are alike but for their seeds, and there are hundreds.
    found = cache(partial(needs, study, stage))

    def of(name: str) -> Callable[..., int]:
        def value(wildcards: object, attempt: int) -> int:
            tuning = getattr(wildcards, "tuning", "base")
            model: str = getattr(wildcards, "model")  # noqa: B009
            return found(model, tuning, attempt)[name]

        return value

    return {name: of(name) for name in ("mem_mb", "runtime", "disk_mb")}
