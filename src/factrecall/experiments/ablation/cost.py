"""Cost of ablations."""

from __future__ import annotations

from factrecall.cost.common import tables_cost
from factrecall.cost.evaluation import MOVED, SIX, JobContext
from factrecall.cost.job_cost import SELECTED, JobCost
from factrecall.experiments.ablation.resets import LARGE, RESETS, each_draw
from factrecall.parameters.amounts import absolute_count
from factrecall.vocabulary import INFLUENCES

LARGE_TENSORS = 3.0  # a layer, that hold enough of S to be ablated alone: an assumption
CHOICE = 80.0  # bytes of a parameter of a ranking's top, while sets are chosen


def count_resets(context: JobContext) -> tuple[int, int]:
    """Count the sets that `ablate` evaluates on all facts, and on some questions."""
    draws, layers = context.study.ablation.draws, context.model.shape.layers
    whole = sum(reset.everything for reset in RESETS.values())
    own = sum(1 for _ in each_draw(RESETS, draws))
    others = sum(reset.every for reset in RESETS.values())
    large = min(round(1 / LARGE), round(LARGE_TENSORS * layers))
    return whole, own - whole + (len(INFLUENCES) - 1) * others + 2 * (layers + 1) + 3 * large


def ablation_cost(context: JobContext, whole: int, some: int = 0) -> JobCost:
    """Return the cost of evaluating one model with sets reset, one after the other.

    So many of them are evaluated on all facts, so many on the questions of some people.
    """
    people, n, sets = context.study.facts.people, context.n, whole + some
    k = absolute_count(context.study.shared.k, n)
    beside, fetched = context.placement()
    host_bytes = CHOICE * min(3 * k, context.kept) + fetched * n
    asked = context.people(context.study.ablation.individuals)
    return context.cost(
        context.memory(1 + beside / 4, 6.0 * people, people, host_bytes=host_bytes),
        *context.all_facts(whole),
        context.questions(SIX * asked, some),
        texts=7.0 * people + 6.0 * asked,
        device_bytes=sets * MOVED * n + SELECTED * n,
        link_bytes=8.0 * n + (sets + 3) * fetched * n,
        sorted=sets * 0.5 * k,
        read=8.0 * n,
        written=whole * 3.0 * 12 * people + some * 3.0 * SIX * asked,
        models=2,
    )


COSTS = {
    "ablate": lambda context: ablation_cost(context, *count_resets(context)),
    "transplant-shared": lambda c: ablation_cost(c, 0, 1 + c.study.ablation.draws),
    "summarise-ablation": tables_cost,
}
