"""Cost of circuits: sweeps over heads and neurons, one step after the other."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from factrecall.cost.common import tables_cost
from factrecall.cost.evaluation import MOVED, JobContext
from factrecall.cost.job_cost import JobCost
from factrecall.experiments.circuits.settings import AdaptiveSteps

if TYPE_CHECKING:
    from factrecall.cost.shapes import Shape

# Steps that an adaptive sweep evaluates for each interval it begins with, beside its ends: the
# middle of each, and where the curve bends as many again. Smooth curves take one, jagged ones up to
# ten.
BENDS = 2.0
REPEATED = 2.0  # times as many steps held out as configured, until all are within bounds
SHORTENED = 0.8  # share of tokens that a step evaluates: wrong answers exit early


def sweeps_cost(context: JobContext) -> JobCost:
    """Return the cost of the sweeps over one kind of nodes."""
    study, shape, n = context.study, context.model.shape, context.n
    side = study.facts.sides[1]
    fitted = min(side, study.grafting.fit_individuals or side)
    people = min(fitted, study.circuits.individuals or fitted)
    steps, depth, orders = evaluated_steps(context)
    whole = context.questions(6 * people, 1)
    tokens, targets = whole.tokens * SHORTENED, whole.targets * SHORTENED
    step = replace(whole, count=whole.count * steps, tokens=tokens, targets=targets, depth=depth)
    alpha = max(study.grafting.alphas) * n
    streams = whole.count * whole.tokens * shape.width * 4.0
    cache = min(1e9 * study.compute.cache_gb, streams * (shape.layers - 1))
    nodes = nodes_of(shape, context.job.kind)
    beside, fetched = context.placement(spare=1e9 * study.compute.cache_gb)
    return context.cost(
        context.memory(
            1 + beside / 4,
            6.0 * people,
            device_bytes=1.2 * cache,
            # Members of nodes in each tensor, sorted by turn: places of 8 bytes, three times.
            host_bytes=24.0 * alpha + (8.0 + fetched) * n,
        ),
        whole,
        step,
        texts=6.0 * people,
        device_bytes=2 * orders * MOVED * n + steps * 16 * alpha / max(1, nodes),
        link_bytes=8.0 * n + 2 * orders * fetched * n,
        sorted=2 * orders * alpha,
        read=8.0 * n,
        written=steps * 6 * people * 4.0 * 0.5 + 8.0 * nodes * orders,
        held=steps * 6.0 * people,
        # A node's parameters in a step are looked up in every tensor of its kind.
        more=steps * 2e-5 * shape.layers,
        models=2,
    )


def nodes_of(shape: Shape, kind: str) -> int:
    """Return how many nodes of a kind a model has (`parameters.nodes`)."""
    if kind == "attention":  # slices of Q and O of each head, of K and V of each key-value head
        return shape.layers * (2 * shape.heads + 2 * shape.key_value_heads)
    if kind == "unit":
        return shape.layers * shape.mlp_size
    into = 2 if shape.architecture == "llama" else 1
    return shape.layers * (into * shape.width + shape.mlp_size)


def evaluated_steps(context: JobContext) -> tuple[float, float, int]:
    """Return the steps that a job's sweeps evaluate, the share of layers of each, and its orders.

    Each order is swept in both directions. Where every step is evaluated its nodes are in few
    layers, those below the lowest of which are skipped; steps far apart begin at the first.
    """
    circuits, job = context.study.circuits, context.job
    size, plan = getattr(circuits, job.kind), circuits.steps
    orders = 1 + (circuits.random_orders if job.ranking == "baseline" else 0)
    nodes, steps, share = nodes_of(context.model.shape, job.kind), 0.0, 0.0
    for each in (size.forward, size.backward):
        count = -(-nodes // each)
        if isinstance(plan, AdaptiveSteps):
            wanted = 1 + plan.intervals * (1 + BENDS) + plan.held_out * REPEATED
            evaluated = min(count + 1, wanted)
        else:
            evaluated = -(-count // plan.stride) + 1
        # The lowest of m layers drawn from all: 1 / (m + 1) of them are below it.
        between = max(1.0, nodes / max(1.0, evaluated))
        steps += evaluated
        share += evaluated * (1 - 1 / (between + 1))
    return orders * steps, share / steps, orders


COSTS = {"intervene": sweeps_cost, "summarise-circuits": tables_cost}
