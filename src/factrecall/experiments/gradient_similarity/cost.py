"""Cost of comparing the gradients of statements and questions."""

from __future__ import annotations

from factrecall.cost.evaluation import SIX, JobContext
from factrecall.cost.job_cost import JobCost, Passes
from factrecall.cost.memory import CONTEXT, CUDA, PROCESS, Memory, activation_bytes, text_bytes
from factrecall.experiments.gradient_similarity.tables import MOST

CELLS = 8  # sets by layers of which parameters are sampled (four groups, in S and γ or not)


def similarity_cost(context: JobContext) -> JobCost:
    """Return the cost of comparing gradients at all moments of a training."""
    study, texts, shape, n = context.study, context.model.texts, context.model.shape, context.n
    settings, trace = study.representations.gradient_similarity, study.trace
    traced = (trace.in_distribution, trace.out_of_distribution)
    sides = [min(side, settings.individuals or side) for side in traced]
    others = [
        min(max(people - side, 0), settings.untraced)
        for people, side in zip(study.facts.sides, traced, strict=True)
    ]
    moments = 1 + (trace.checkpoints + 1) * (2 if context.job.tuning == "stage" else 1)
    facts = SIX * (sum(sides) * moments + sum(others))
    lengths = float(texts.bio.mean()) * 0.6, float(texts.question.mean())
    sampled, cells = settings.sampled_parameters, CELLS * (shape.layers + 1)
    columns = n if sampled is None else min(n, cells * sampled)
    group = min(MOST, max(*sides, *others))
    rows = SIX * group * 2 * 4.0 * columns
    parts = {"context": CONTEXT} if context.device.is_gpu else {}
    parts |= {
        "weights": 4.0 * n,
        "gradients": 4.0 * n,
        "activations": activation_bytes(shape, "float32") * lengths[0] * shape.layers,
        "kept": rows + 8.0 * columns,
    }
    # Only few texts are prepared, but the tables are read whole.
    prepared = text_bytes(7.0 * study.facts.people, SIX * (sum(sides) + sum(others)) * sum(lengths))
    host = {"process": PROCESS, "texts": prepared, "sets": 5.0 * n + 16.0 * columns}
    if context.device.is_gpu:
        memory = Memory(parts, {**host, "CUDA": CUDA, "reading": 8.0 * n})
    else:
        memory = Memory({}, {**host, **parts, "reading": 4.0 * n})
    return context.cost(
        memory,
        *(Passes(facts, x, texts.answer, x, "train", context.precision) for x in lengths),
        texts=2.0 * SIX * (sum(sides) + sum(others)),
        # Gradients are written, cast by cell and multiplied with each other.
        device_bytes=facts * 2 * 8.0 * n + facts * rows / 16,
        link_bytes=4.0 * n * moments,
        sorted=float(columns),
        read=4.0 * n * moments,
        written=20.0 * facts * 3 * (shape.layers + 5),
        more=0.3 * moments,
        models=moments,
    )


COSTS = {"gradient-similarity": similarity_cost}
