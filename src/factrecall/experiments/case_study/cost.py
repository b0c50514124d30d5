"""Cost of the attention case study."""

from __future__ import annotations

from factrecall.cost.evaluation import MOVED, JobContext
from factrecall.cost.job_cost import JobCost, Passes
from factrecall.parameters.placement import PAIR


def case_cost(context: JobContext) -> JobCost:
    """Return the cost of the case study: both grafted models, fact by fact."""
    study, n, texts = context.study, context.n, context.model.texts
    side = study.facts.sides[1]
    # The second model is opened beside the first with all that it keeps.
    beside, fetched = context.placement(spare=(4.0 + PAIR) * n)
    facts = 6 * min(side, study.grafting.fit_individuals or side)
    length = texts.bio.mean() / 2 + texts.short.mean() + texts.question.mean() - 2 * texts.answer
    host_bytes = (8.0 * max(study.grafting.alphas) + fetched) * 2 * n
    return context.cost(
        context.memory(2 * (1 + beside / 4), 3.0 * facts, host_bytes=host_bytes),
        context.questions(facts, 2),
        # One prompt a pass, of three formats in two models.
        Passes(6.0 * facts, length / 3, 1.0, length / 3, "forward", context.precision),
        texts=4.0 * facts,
        device_bytes=6 * MOVED * n,
        link_bytes=16.0 * n + 6 * fetched * n,
        read=16.0 * n,
        written=20.0 * 24 * facts,
        more=1.5e-3 * 6 * facts,  # prompts are cut into roles and rows in Python
        models=4,
    )


COSTS = {"attention-case-study": case_cost}
