"""What interventions do: sweeps over heads and neurons, a step after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from factrecall.cost.evaluation import HELD, PAIR, memory_of, passes_of, placed, precision_of
from factrecall.cost.job_cost import JobCost, Passes
from factrecall.experiments.circuits.settings import AdaptiveSteps

if TYPE_CHECKING:
    from factrecall.config.study import Study
    from factrecall.cost.devices import Device
    from factrecall.cost.jobs import Job
    from factrecall.cost.models import ModelInfo
    from factrecall.cost.shapes import Shape

BENDS = 2.0
"""Steps that an adaptive sweep asks for each interval it begins with, beside its ends: the middle
of each, and where the curve bends as many again. Smooth curves take one, jagged ones up to ten."""

REPEATED = 2.0
"""How often as many steps are held out as the configuration says, until all are within bounds."""

SHORTENED = 0.8
"""Share of tokens that a step of a sweep asks: answers that begin wrongly are cut short."""


def interventions_cost(study: Study, known: ModelInfo, job: Job, device: Device) -> JobCost:
    """Return what the sweeps over one kind of nodes do."""
    n, side = known.shape.parameters, study.facts.sides[1]
    fitted = min(side, study.grafting.fit_individuals or side)
    people = min(fitted, study.circuits.individuals or fitted)
    steps, restarts, orders = asked_steps(study, known.shape, job)
    pass_ = passes_of(study, known, 6 * people, 1, "forward")[0]
    each = Passes(
        pass_.count * steps,
        pass_.tokens * SHORTENED,
        pass_.targets * SHORTENED,
        pass_.length,
        "forward",
        precision_of(study),
        restarts,
        short=True,
    )
    alpha = max(study.grafting.alphas) * n
    streams = pass_.count * pass_.tokens * known.shape.width * 4.0
    cache = min(1e9 * study.compute.cache_gb, streams * (known.shape.layers - 1))
    nodes = nodes_of(known.shape, job.kind)
    beside, fetched = placed(n, device, PAIR, 1e9 * study.compute.cache_gb)
    return JobCost(
        memory=memory_of(
            study,
            known,
            copies=1 + beside / 4,
            gpu=device.is_gpu,
            texts=6.0 * people,
            device_bytes=1.2 * cache,
            # Members of nodes in each tensor, sorted by turn: places of 8 bytes, three times.
            host_bytes=24.0 * alpha + (8.0 + fetched) * n,
        ),
        shape=known.shape,
        passes=(pass_, each),
        texts=6.0 * people,
        device_bytes=2 * orders * HELD * n + steps * 16 * alpha / max(1, nodes),
        link_bytes=8.0 * n + 2 * orders * fetched * n,
        sorted=2 * orders * alpha,
        read=8.0 * n,
        written=steps * 6 * people * 4.0 * 0.5 + 8.0 * nodes * orders,
        held=steps * 6.0 * people,
        # A node's parameters in a step are looked up in every tensor of its kind.
        more=steps * 2e-5 * known.shape.layers,
        models=2,
        threads=study.compute.threads,
    )


def nodes_of(shape: Shape, kind: str) -> int:
    """Return how many nodes of a kind a model has (`parameters.nodes`)."""
    if kind == "attention":  # slices of Q and O of each head, of K and V of each key-value head
        return shape.layers * (2 * shape.heads + 2 * shape.key_value_heads)
    if kind == "unit":
        return shape.layers * shape.mlp_size
    into = 2 if shape.architecture == "llama" else 1
    return shape.layers * (into * shape.width + shape.mlp_size)


def asked_steps(study: Study, shape: Shape, job: Job) -> tuple[float, float, int]:
    """Return how many steps a job's sweeps ask, the share of layers each passes, and its orders.

    Each order is swept in both directions. Where every step is asked its nodes are in few layers,
    those below the lowest of which are skipped; steps far apart begin at the first.
    """
    circuits = study.circuits
    size = getattr(circuits, job.kind)
    orders = 1 + (circuits.random_orders if job.by == "baseline" else 0)
    nodes, steps, share = nodes_of(shape, job.kind), 0.0, 0.0
    for each in (size.forward, size.backward):
        count = -(-nodes // each)
        if isinstance(circuits.steps, AdaptiveSteps):
            plan = circuits.steps
            wanted = 1 + plan.intervals * (1 + BENDS) + plan.held_out * REPEATED
            asked = min(count + 1, wanted)
        else:
            asked = -(-count // circuits.steps.stride) + 1
        # The lowest of m layers drawn from all: 1 / (m + 1) of them are below it.
        between = max(1.0, nodes / max(1.0, asked))
        steps += asked
        share += asked * (1 - 1 / (between + 1))
    return orders * steps, share / steps, orders
