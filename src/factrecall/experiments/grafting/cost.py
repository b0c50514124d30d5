"""Cost of grafting: fitting masks and evaluating them."""

from __future__ import annotations

from factrecall.cost.common import tables_cost
from factrecall.cost.evaluation import MOVED, PADDED, JobContext
from factrecall.cost.job_cost import SELECTED, JobCost
from factrecall.experiments.grafting.schedule import updates_of
from factrecall.parameters.placement import DUAL_AVERAGING, PAIR, SIGMOID

# Evaluations of a mask's checks on the fitted people: θpre, θtask, three random masks and, where
# there is a fit to them, shuffled answers.
CHECKS = 6
# Bytes a parameter and batch: gradient, change and score are read, the score is written.
SCORED = 16.0


def grafting_cost(context: JobContext) -> JobCost:
    """Return the cost of fitting and evaluating the masks of one model and split."""
    study, job, n = context.study, context.job, context.n
    grafting, checked = study.grafting, job.stage == "graft"
    side = study.facts.sides[job.split == "out"]
    fitted = min(side, grafting.fit_individuals or side)
    others, sizes = side - fitted, len(grafting.alphas)
    thorough = checked and job.seed == study.training.seeds[0]
    fits, optimiser = 3 if thorough else 1, grafting.optimiser
    # The updates, the evaluations on the way, and the bytes a parameter beside the model.
    updates, stops, kept = updates_of(optimiser, sizes), 0, DUAL_AVERAGING
    if optimiser.method == "sigmoid_sgd":
        stops, kept = updates // optimiser.check, SIGMOID
    # Each mask is evaluated on the fitted people: the whole, and two of each size.
    masks = 1 + 1 + 2 * sizes + (CHECKS - (not thorough) if checked else 0) + fits * stops
    passes = [
        context.questions(optimiser.batch_size, fits * updates, "train"),
        context.questions(6 * fitted, masks),
    ]
    if others and checked:
        passes.append(context.questions(6 * others, 1 + sizes + 2))
    chosen = sum(grafting.alphas) * n
    beside, fetched = context.placement(kept)
    fixed = kept - PAIR - 4.0  # what is descended on stays where the model is
    tokens = context.model.texts.per_question
    return context.cost(
        context.memory(
            1 + max(beside, fixed) / 4,
            6.0 * side,
            backward=min(study.recall.max_eval_tokens, optimiser.batch_size * tokens * PADDED),
            host_bytes=4 * 4.0 * chosen + fetched * n,
        ),
        *passes,
        texts=6.0 * side + fits * updates * optimiser.batch_size,
        device_bytes=fits * updates * (SCORED + SELECTED + MOVED) * n + masks * MOVED * n,
        # An update sets parameters, and takes the changes once more.
        link_bytes=8.0 * n + (2 * fits * updates + masks) * fetched * n,
        # Of each update's mask only those collected are put in order.
        sorted=(fits * updates / sizes + 4) * chosen,
        read=8.0 * n,
        written=4.0 * chosen + 12.0 * 6 * (fitted * (2 * sizes + 1) + others * (sizes + 1)),
        scratch=fits * 4.0 * n,
        held=4.0 * n,
        models=2,
    )


COSTS = {
    "graft": grafting_cost,
    "graft-without-shared": grafting_cost,
    "summarise-grafting": tables_cost,
}
