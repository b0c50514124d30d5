"""A plan on the terminal: a row a stage and model, devices side by side, memory by part, notes.

Units are decimal: 1 GB are 10⁹ bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from factrecall.cost.execution_choice import FITS
from factrecall.cost.plan import quantity

if TYPE_CHECKING:
    from factrecall.cost.models import ModelInfo
    from factrecall.cost.plan import Plan, PlannedJob
    from factrecall.training.execution import Execution

SOURCES = {
    "package": "by its config.json as the package has it",
    "config": "by its config.json",
    "file": "by its GGUF file",
    "settings": "by the study's settings",
    "name": "GUESSED from its name",
    "weights": "GUESSED from the size of its weights",
}
"""Where a shape comes from."""

REMEDIES = {
    "pretrain": "lower micro_batch_tokens of pretrain",
    "fine-tune": "lower micro_batch_tokens of its recipe, or share it (training.mode.gpus)",
    "graft": "lower recall.max_eval_tokens",
    "graft-without-shared": "lower recall.max_eval_tokens",
    "intervene": "lower compute.cache_gb or recall.max_eval_tokens",
    "gradient-similarity": "lower representations.gradient_similarity.sampled_parameters",
}
"""What to change where a job does not fit, if its weights do."""


def render(plans: Sequence[Plan]) -> str:
    """Return plans of one study as text; the first in full."""
    first = plans[0]
    parts = [_head(first), _stages(first), _devices(plans), _trainings(first), [*_notes(first)]]
    return "\n\n".join("\n".join(part) for part in parts if part)


def _head(plan: Plan) -> list[str]:
    lines = [f"study {plan.study.name!r}: {len(plan.jobs)} jobs"]
    for model in plan.models:
        kind, size = model.shape.architecture, f"{model.shape.parameters:,} parameters"
        lines.append(f"  {model.name}: {kind}, {size}, {SOURCES[model.source]}")
    return lines


def _stages(plan: Plan) -> list[str]:
    def cells(jobs: Sequence[PlannedJob]) -> list[str]:
        found = [form(quantity(name, jobs)) for name, form in COLUMNS.values()]
        return [str(len(jobs)), *found]

    rows = [[*key, *cells(jobs)] for key, jobs in plan.rows.items()]
    total = ["in all", "", *cells(plan.jobs)]
    reached = f" at {plan.efficiency:.0%} of its matrix rate" if plan.device.is_gpu else ""
    kind = "predicted for" if plan.device.is_gpu else "on"
    where = f"{kind} {plan.device.name}{reached}"
    title = f"{where}; memory is that of the largest job, all else of all jobs"
    return [title, *table([["stage", "model", "jobs", *COLUMNS], *rows, total])]


def _devices(plans: Sequence[Plan]) -> list[str]:
    head = ["device", "memory GB", "fit it", "main GB", "disk GB", "hours", "GPU hours", "longest"]
    rows = [
        [
            plan.device.name,
            gigabytes(plan.device.memory or 0),
            "all jobs" if not (left := len(plan.too_large())) else f"all but {left}",
            gigabytes(quantity("host_memory_bytes", plan.jobs)),
            gigabytes(plan.disk),
            hours(plan.hours),
            hours(plan.gpu_hours) if plan.device.is_gpu else "",
            hours(quantity("longest_hours", plan.jobs)),
        ]
        for plan in plans
    ]
    return ["all jobs, one after the other", *table([head, *rows])]


def _trainings(plan: Plan) -> list[str]:
    found = plan.trainings()
    parts = list(dict.fromkeys(part for one, _ in found for part in one.cost.memory.main_parts))
    rows = [["training", "tokens a pass", *parts, "in all", "main GB"]]
    for one, training in found:
        memory = one.cost.memory
        # On a CPU all of it is main memory.
        whole = memory.device if plan.device.is_gpu else memory.host
        sizes = [*(memory.main_parts.get(part, 0.0) for part in parts), whole, memory.host]
        name = f"{one.job.model} {one.job.tuning or 'base'}"
        rows.append([name, count(training.tokens), *map(gigabytes, sizes)])
    return [f"peak memory of trainings on {plan.device.name} by part, GB", *table(rows)]


def _notes(plan: Plan) -> Iterator[str]:
    for model in plan.models:
        yield _executions(plan, model)
    yield from _unfit(plan)
    if any(model.guessed for model in plan.models):
        yield "the shape of a model is guessed: its memory and time may be off by a third"
    seconds = {key: sum(p.seconds for p in jobs) for key, jobs in plan.rows.items()}
    slowest = sorted(seconds, key=lambda key: -seconds[key])[:3]
    share = [f"{s} of {m} {seconds[s, m] / 36 / plan.hours:.0f} %" for s, m in slowest]
    yield f"most time goes into {', '.join(share)}"
    if plan.device.is_gpu:
        most = max(plan.jobs, key=lambda one: one.need)
        yield (
            f"the largest job, {most.job.stage} of {most.job.model}, takes {most.need / 1e9:.0f} "
            f"of {FITS * (plan.device.memory or 0) / 1e9:.0f} GB that are safe"
        )
        if (together := plan.sharing()) > 1:
            yield (
                f"if {together} jobs share the GPU (--resources gpu={together}): "
                f"{hours(plan.hours_shared(together))} hours, if the host keeps up"
            )
        yield (
            f"if 60 or 30 % of the matrix rate are reached: {hours(plan.hours_at(0.6))} or "
            f"{hours(plan.hours_at(0.3))} hours; no run has checked any of this (docs/planning.md)"
        )


def _unfit(plan: Plan) -> Iterator[str]:
    """Say what does not fit and why; of jobs of one stage and model the largest."""
    room = FITS * (plan.device.memory or 0)
    for (stage, model), jobs in plan.rows.items():
        one = max(jobs, key=lambda one: one.need)
        if one.fits:
            continue
        parts = one.cost.memory.parts
        fixed = sum(parts.get(part, 0.0) for part in ("context", "weights", "copies of weights"))
        remedy = REMEDIES.get(stage if fixed < room else "", "take a device with more memory")
        largest = sorted(parts.items(), key=lambda part: -part[1])[:2]
        yield (
            f"{stage} of {model} does NOT FIT {plan.device.name}: it takes {one.need / 1e9:.0f} "
            f"GB of {room / 1e9:.0f} ({', '.join(f'{n} {s / 1e9:.0f}' for n, s in largest)}); "
            f"{remedy}"
        )


def _executions(plan: Plan, model: ModelInfo) -> str:
    """Say how a model is trained."""
    groups: dict[str, list[str]] = {}
    for one, training in plan.trainings():
        if one.job.model == model.name:
            text = execution_text(training.execution) + " (and does not fit)" * (not one.fits)
            groups.setdefault(text, []).append(one.job.tuning or "base")
    texts = [f"{', '.join(tunings)}: {text}" for text, tunings in groups.items()]
    found = "; ".join(texts if len(groups) > 1 else groups)
    return f"{model.name} is trained so on {plan.device.name}: {found}"


def execution_text(execution: Execution) -> str:
    """Say how a training is done, where it is not the usual way."""
    optimiser = {
        "adamw": "float32 AdamW on the device",
        "adamw_8bit": "moments in 8 bits",
        "cpu_offload": "weights and moments in main memory",
    }
    more = {
        "activations computed twice": execution.checkpointing,
        "traced gradients added up in main memory": execution.trace == "host",
        f"shared by {execution.gpus} GPUs": execution.gpus > 1,
        "packed": execution.packing,
        "compiled": execution.compile,
    }
    return ", ".join([optimiser[execution.optimiser], *(text for text, on in more.items() if on)])


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lay rows out in columns, the first one or two to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    left = 2 if rows[0][1] == "model" else 1
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  " + "  ".join(cells).rstrip())
    return [lines[0], "  " + "-" * (len(lines[0]) - 2), *lines[1:]]


def count(number: float) -> str:
    """Write a number with a prefix."""
    for size, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {prefix}"
    return f"{number:.0f}" if number else ""


def operations(number: float) -> str:
    """Write a number of operations as a power of ten."""
    return f"{number:.1e}".replace("e+", "e") if number else ""


def gigabytes(size: float) -> str:
    """Write bytes as gigabytes, with more digits where there are few."""
    if not size:
        return ""
    return f"{size / 1e9:.1f}" if size >= 1e9 else f"{size / 1e9:.3f}"


def hours(number: float) -> str:
    """Write hours, with more digits where there are few."""
    return f"{number:.1f}" if number >= 1 else f"{number:.3f}"


COLUMNS: dict[str, tuple[str, Callable[[float], str]]] = {
    "tokens": ("tokens", count),
    "FLOP": ("operations", operations),
    "GPU GB": ("device_memory_bytes", gigabytes),
    "main GB": ("host_memory_bytes", gigabytes),
    "files GB": ("written_bytes", gigabytes),
    "hours": ("hours", hours),
}
"""Columns of the table of stages: heading, quantity, how it is written."""
