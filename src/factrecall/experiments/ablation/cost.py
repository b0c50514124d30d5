"""Cost of ablations."""

from __future__ import annotations

from factrecall.cost.common import tables_cost
from factrecall.cost.evaluation import MOVED, JobContext
from factrecall.cost.job_cost import SELECTED, JobCost

ABLATED = 5  # sets that are reset: none, S, and three controls


def ablation_cost(context: JobContext, sets: int = ABLATED) -> JobCost:
    """Return the cost of evaluating one model with so many sets reset, one after the other."""
    people, n = context.study.facts.people, context.n
    beside, fetched = context.placement()
    host_bytes = 5 * 4.0 * context.kept + fetched * n
    return context.cost(
        context.memory(1 + beside / 4, 6.0 * people, people, host_bytes=host_bytes),
        *context.all_facts(sets),
        texts=7.0 * people,
        device_bytes=sets * MOVED * n + SELECTED * n,
        link_bytes=8.0 * n + (sets + 3) * fetched * n,
        sorted=4.0 * context.kept,
        read=8.0 * n,
        written=sets * 3.0 * 12 * people,
        models=2,
    )


COSTS = {"ablate": ablation_cost, "summarise-ablation": tables_cost}
