"""Cost of grafting: fitting masks and evaluating them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from factrecall.cost.common import tables_cost
from factrecall.cost.evaluation import MOVED, PADDED, JobContext
from factrecall.cost.job_cost import SELECTED, JobCost
from factrecall.experiments.grafting.schedule import updates_of
from factrecall.parameters.placement import DUAL_AVERAGING, PAIR, SIGMOID

if TYPE_CHECKING:
    from factrecall.experiments.grafting.settings import GraftingSettings

# Evaluations of a mask's checks on the fitted people: θpre, θtask, three random masks and, where
# there is a fit to them, shuffled answers.
CHECKS = 6
# Share of θtask's answers that are not gold, which are decoded: half of those of one side.
WRONG = 0.25
# Bytes a parameter and batch: gradient, change and score are read, the score is written.
SCORED = 16.0


def grafting_cost(context: JobContext) -> JobCost:
    """Return the cost of fitting and evaluating the masks of one model and split."""
    study, job, n = context.study, context.job, context.n
    grafting, checked = study.grafting, job.stage == "graft"
    side = study.facts.sides[job.split == "out"]
    fitted = min(side, grafting.fit_individuals or side)
    others = min(side - fitted, grafting.held_out_individuals or side)
    thorough = checked and job.seed == study.training.seeds[0]
    objectives, optimiser = len(grafting.objectives) if checked else 1, grafting.optimiser
    fits = objectives + 2 * thorough
    # Of the sizes fitted, those configured are evaluated, and those between two of them.
    every, listed = grafting.sizes(), len(grafting.alphas)
    finer = (len(every) - listed) / max(1, listed - 1)
    sizes = objectives * (listed + finer) if checked else listed + 1
    # The updates, the evaluations on the way, and the bytes a parameter beside the model.
    updates, stops, kept = updates_of(optimiser, len(every)), 0, DUAL_AVERAGING
    if optimiser.method == "sigmoid_sgd":
        stops, kept = updates // optimiser.check, SIGMOID
    # Each mask is evaluated on the fitted people: the whole, largest changes and what is fitted.
    masks = 1 + 1 + listed + sizes + (CHECKS - (not thorough) if checked else 0) + fits * stops
    passes = [
        context.questions(optimiser.batch_size, fits * updates, "train"),
        context.questions(6 * fitted, masks),
    ]
    if others and checked:
        passes.append(context.questions(6 * others, 1 + sizes + 2))
    own = 6.0 * sum(_distilled(size, grafting) for size in study.facts.sides)
    if objectives > 1:
        # One pass tells which answers are gold; the others are decoded with a cache.
        passes.append(context.questions(own, 1 + 2 * WRONG))
    chosen = objectives * sum(every) * n
    beside, fetched = context.placement(kept)
    fixed = kept - PAIR - 4.0  # what is descended on stays where the model is
    tokens = context.model.texts.per_question
    return context.cost(
        context.memory(
            1 + max(beside, fixed) / 4,
            6.0 * side + own * (objectives > 1),
            backward=min(study.recall.max_eval_tokens, optimiser.batch_size * tokens * PADDED),
            host_bytes=4 * 4.0 * chosen + fetched * n,
        ),
        *passes,
        texts=6.0 * side + own * (objectives > 1) + fits * updates * optimiser.batch_size,
        device_bytes=fits * updates * (SCORED + SELECTED + MOVED) * n + masks * MOVED * n,
        # An update sets parameters, and takes the changes once more.
        link_bytes=8.0 * n + (2 * fits * updates + masks) * fetched * n,
        # Of each update's mask only those collected are put in order.
        sorted=(fits * updates / len(every) / objectives + 4) * chosen,
        read=8.0 * n,
        written=4.0 * chosen + 12.0 * 6 * (fitted * (listed + sizes + 1) + others * (sizes + 1)),
        scratch=fits * 4.0 * n,
        held=4.0 * n,
        models=2,
    )


def _distilled(side: int, grafting: GraftingSettings) -> int:
    """Return how many people of a side masks are fitted to with θtask's own answers."""
    fitted = min(side, grafting.fit_individuals or side)
    return side - min(side - fitted, grafting.held_out_individuals or side)


COSTS = {
    "graft": grafting_cost,
    "graft-without-shared": grafting_cost,
    "summarise-grafting": tables_cost,
}
