"""A plan on the terminal: a row a stage and model, devices side by side, memory by part, and words.

Units are decimal: 1 GB are 10⁹ bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from factrecall.cost.execution_choice import FITS, fits

if TYPE_CHECKING:
    from factrecall.cost.memory import Memory
    from factrecall.cost.models import ModelInfo
    from factrecall.cost.plan import Plan, PlannedJob, StageRow
    from factrecall.training.execution import Execution

SOURCES = {
    "package": "by its config.json as the package has it",
    "config": "by its config.json",
    "settings": "by the study's settings",
    "name": "GUESSED from its name",
    "weights": "GUESSED from the size of its weights",
}
"""Where a shape comes from, in words."""

LOWER = {
    "pretrain": "lower micro_batch_tokens of pretrain",
    "fine-tune": "lower micro_batch_tokens of its recipe, or share it (training.mode.gpus)",
    "graft": "lower recall.max_eval_tokens",
    "graft-without-shared": "lower recall.max_eval_tokens",
    "intervene": "lower compute.cache_gb or recall.max_eval_tokens",
    "compare-gradients": "lower representations.gradient_similarity.sampled_parameters",
}
"""What to change where a job does not fit, if its weights do."""

LARGER = "take a device with more memory"

Table = Sequence[Sequence[str]]


def render(plans: Sequence[Plan]) -> str:
    """Return plans of one study as text; the first is told in full."""
    first = plans[0]
    parts = [_head(first), _stages(first), _devices(plans), _trainings(first)]
    return "\n\n".join("\n".join(part) for part in (*parts, [*_notes(first)]) if part)


def _head(plan: Plan) -> list[str]:
    lines = [f"study {plan.study.name!r}: {len(plan.jobs)} jobs"]
    for model in plan.models:
        kind, size = model.shape.architecture, f"{model.shape.parameters:,} parameters"
        lines.append(f"  {model.name}: {kind}, {size}, {SOURCES[model.source]}")
    return lines


def _stages(plan: Plan) -> list[str]:
    head = ["stage", "model", "jobs", "tokens", "FLOP", "GPU GB", "main GB", "files GB", "hours"]
    rows = [_row(row) for row in plan.rows]
    total = [
        *("in all", "", str(len(plan.jobs))),
        count(sum(p.cost.tokens for p in plan.jobs)),
        operations(sum(p.cost.operations for p in plan.jobs)),
        gigabytes(max(p.cost.memory.device for p in plan.jobs)),
        gigabytes(max(p.cost.memory.host for p in plan.jobs)),
        gigabytes(sum(p.cost.written for p in plan.jobs)),
        hours(plan.hours),
    ]
    where = plan.device.name
    reached = f" at {plan.efficiency:.0%} of its matrix rate" if plan.device.is_gpu else ""
    kind = "predicted for" if plan.device.is_gpu else "on"
    title = f"{kind} {where}{reached}; memory is that of the largest job, all else of all jobs"
    return [title, *table([head, *rows, total])]


def _row(row: StageRow) -> list[str]:
    return [
        row.stage,
        row.model,
        str(len(row.jobs)),
        count(row.total(lambda p: p.cost.tokens)),
        operations(row.total(lambda p: p.cost.operations)),
        gigabytes(row.most(lambda p: p.cost.memory.device)),
        gigabytes(row.most(lambda p: p.cost.memory.host)),
        gigabytes(row.total(lambda p: p.cost.written)),
        hours(row.total(lambda p: p.seconds) / 3600),
    ]


def _devices(plans: Sequence[Plan]) -> list[str]:
    head = ["device", "memory GB", "fit it", "main GB", "disk GB", "hours", "GPU hours", "longest"]
    rows = [
        [
            plan.device.name,
            gigabytes(plan.device.memory or 0),
            "all jobs" if not plan.too_large() else f"all but {len(plan.too_large())}",
            gigabytes(max(p.cost.memory.host for p in plan.jobs)),
            gigabytes(plan.disk),
            hours(plan.hours),
            hours(plan.gpu_hours) if plan.device.is_gpu else "",
            hours(max(p.seconds for p in plan.jobs) / 3600),
        ]
        for plan in plans
    ]
    return ["all jobs, one after the other", *table([head, *rows])]


def _trainings(plan: Plan) -> list[str]:
    found = plan.trainings()
    parts = list(dict.fromkeys(part for *_, memory in found for part in _parts(memory)))
    head = ["training", "tokens a pass", *parts, "in all", "main GB"]
    rows = []
    for model, tuning, training, memory in found:
        here = _parts(memory)
        # On a CPU all of it is main memory.
        whole = memory.device if plan.device.is_gpu else memory.host
        rows.append(
            [
                f"{model.name} {tuning}",
                count(training.tokens),
                *(gigabytes(here.get(part, 0.0)) for part in parts),
                gigabytes(whole),
                gigabytes(memory.host),
            ]
        )
    return [f"peak memory of trainings on {plan.device.name} by part, GB", *table([head, *rows])]


def _parts(memory: Memory) -> dict[str, float]:
    return dict(memory.parts or memory.host_parts)


def _notes(plan: Plan) -> Iterator[str]:
    for model in plan.models:
        yield from _modes(plan, model)
    yield from _unfit(plan)
    if any(model.guessed for model in plan.models):
        yield "the shape of a model is guessed: its memory and time may be off by a third"
    slowest = sorted(plan.rows, key=lambda r: -r.total(lambda p: p.seconds))[:3]
    share = [
        f"{row.stage} of {row.model} {row.total(lambda p: p.seconds) / 36 / plan.hours:.0f} %"
        for row in slowest
    ]
    yield f"most time goes into {', '.join(share)}"
    if plan.device.is_gpu:
        most = max(plan.jobs, key=_need)
        yield (
            f"the largest job, {most.job.stage} of {most.job.model}, takes {_need(most) / 1e9:.0f} "
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
    largest: dict[tuple[str, str], PlannedJob] = {}
    for one in plan.too_large():
        key = one.job.stage, one.job.model
        if key not in largest or _need(one) > _need(largest[key]):
            largest[key] = one
    for (stage, model), one in largest.items():
        parts = one.cost.memory.parts
        fixed = sum(parts.get(part, 0.0) for part in ("context", "weights", "copies of weights"))
        remedy = LOWER.get(stage, LARGER) if fixed < room else LARGER
        yield (
            f"{stage} of {model} does NOT FIT {plan.device.name}: it takes {_need(one) / 1e9:.0f} "
            f"GB of {room / 1e9:.0f} ({_largest(one)}); {remedy}"
        )


def _need(one: PlannedJob) -> float:
    return one.cost.memory.device


def _largest(one: PlannedJob) -> str:
    parts = sorted(one.cost.memory.parts.items(), key=lambda part: -part[1])[:2]
    return ", ".join(f"{name} {size / 1e9:.0f}" for name, size in parts)


def _modes(plan: Plan, model: ModelInfo) -> Iterator[str]:
    groups: dict[str, list[str]] = {}
    for other, tuning, training, memory in plan.trainings():
        if other is model:
            said = mode_in_words(training.mode)
            if not fits(memory.device, plan.device.memory):
                said += " (and does not fit)"
            groups.setdefault(said, []).append(tuning)
    everything = len(groups) == 1
    told = (
        f"{said}" if everything else f"{', '.join(tunings)}: {said}"
        for said, tunings in groups.items()
    )
    yield f"{model.name} is trained so on {plan.device.name}: {'; '.join(told)}"


def mode_in_words(mode: Execution) -> str:
    """Say how a training is done, of what is not the usual."""
    said = {
        "adamw": ["float32 AdamW on the device"],
        "adamw_8bit": ["moments in 8 bits"],
        "cpu_offload": ["weights and moments in main memory"],
    }[mode.optimiser]
    said += ["activations computed twice"] * mode.checkpointing
    said += ["traced gradients added up in main memory"] * (mode.trace == "host")
    said += [f"shared by {mode.gpus} GPUs"] * (mode.gpus > 1)
    said += ["packed"] * mode.packing
    said += ["compiled"] * mode.compile
    return ", ".join(said)


def table(rows: Table) -> list[str]:
    """Lay rows out in columns, the first two to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
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
