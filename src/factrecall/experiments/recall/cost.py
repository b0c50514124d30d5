"""Cost of evaluating recall."""

from __future__ import annotations

from factrecall.cost.common import tables_cost
from factrecall.cost.evaluation import JobContext
from factrecall.cost.job_cost import JobCost


def recall_cost(context: JobContext) -> JobCost:
    """Return the cost of evaluating all facts."""
    people, n = context.study.facts.people, context.n
    return context.cost(
        context.memory(1, 6.0 * people, people),
        *context.all_facts(1),
        texts=7.0 * people,
        link_bytes=4.0 * n,
        read=4.0 * n,
        written=3.0 * 12 * people,
        models=1,
    )


COSTS = {"recall": recall_cost, "summarise-recall": tables_cost}
