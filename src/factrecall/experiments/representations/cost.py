"""Cost of representations: capturing hidden states, attributing prompts, patching, probes."""

from __future__ import annotations

from factrecall.cost.common import tables_cost
from factrecall.cost.evaluation import PADDED, SIX, JobContext
from factrecall.cost.job_cost import JobCost, Passes
from factrecall.cost.memory import BARE, CONTEXT, CUDA, Memory, text_bytes
from factrecall.experiments.representations.limits import NUMBERS
from factrecall.vocabulary import STATE_FORMATS

FORMATS = len(STATE_FORMATS)
PARTS = 5  # counterfactual prompts of each: its parts, and its wording
PATCHED = 3 * 2 * 3  # passes of a fact and layer: pairs of formats, sources, positions

ALGEBRA = 1.3e8  # bytes of eigenvalues of batches of matrices and of the tables of probes
COPIES = 12  # copies in float32 of a relation's states in one layer, while its probes are fitted
ITERATIONS = 25  # of a probe's fit, of at most a thousand: 23 in the mean of the laptop study's
ITERATION = 2e-3  # seconds of Python and PyTorch in an iteration of fits, however small
SEARCHED = 3  # soft-maxes of an iteration, a few of its line search


def capture_cost(context: JobContext) -> JobCost:
    """Return the cost of keeping hidden states, attributing prompts and patching."""
    study, texts, shape, n = context.study, context.model.texts, context.model.shape, context.n
    settings, batch = study.representations, study.recall.max_eval_tokens
    layers = list(range(shape.layers)) if settings.layers is None else settings.layers
    people = context.people(settings.probes.individuals)
    bio, short, question = (float(t.mean()) for t in (texts.bio, texts.short, texts.question))

    def passes(total: float, targets: float, length: float, depth: float = 1.0) -> Passes:
        count = max(1.0, total * PADDED / batch)
        each = total * PADDED / count, targets / count
        return Passes(count, *each, length, "forward", context.precision, depth)

    # Hidden states: a biography has six facts, its sentences and questions one each.
    states = people * (bio + SIX * (short + texts.per_question))
    captured = passes(states, 0.0, bio, (layers[-1] + 1) / shape.layers if layers else 1.0)
    # Attribution: a point of the path is a pass forward and one back to the embeddings.
    facts = context.people(settings.attribution.individuals) * SIX
    prompts, size = bio * 0.6 + short + question, min(batch, 2048)
    total = facts * prompts * PADDED
    count = max(1.0, total / size)
    attributed = Passes(
        count * (settings.attribution.steps + 2),
        total / count,
        facts * FORMATS / count,
        bio,
        "inputs",
        context.precision,
    )
    changed = passes(facts * prompts * (1 + PARTS), facts * FORMATS * (1 + PARTS), bio)
    # Patching: a pass from each layer on for each state that is replaced.
    patched = context.people(settings.patching.individuals) * SIX
    above = sum(1 - (layer + 1) / shape.layers for layer in layers)
    per_fact = (bio * 0.6 + 2 * question) / 3
    targets = patched * texts.answer * PATCHED * len(layers)
    held, _ = states_bytes(context)
    # States in the model's precision before they are cast: one format's beside all.
    copy = held / FORMATS * (2 if settings.precision == "bfloat16" else 1)
    prepared = text_bytes((2 * SIX + 1) * people, people * (bio + SIX * (short + question)))
    memory = context.pass_memory(batch, batch * 0.5, 1, prepared, host_bytes=held + copy)
    rows = facts * FORMATS * 7 + patched * PATCHED * len(layers)
    return context.cost(
        memory,
        captured,
        attributed,
        changed,
        passes(patched * per_fact * (PATCHED * above + FORMATS * 4), targets, per_fact),
        texts=(2 * SIX + 1) * people + facts * FORMATS * (2 + PARTS) + patched * 12,
        link_bytes=4.0 * n,
        read=4.0 * n,
        written=held + 12.0 * rows,
        more=1e-3 * facts * FORMATS * PARTS + 2e-5 * rows,
        models=1,
    )


def states_bytes(context: JobContext) -> tuple[float, float]:
    """Return the size of a model's hidden states, and what probing them takes besides."""
    settings, shape = context.study.representations, context.model.shape
    rows = FORMATS * context.people(settings.probes.individuals) * shape.width
    layers = shape.layers if settings.layers is None else len(settings.layers)
    item = 2 if settings.precision == "bfloat16" else 4
    return SIX * rows * layers * item, COPIES * rows * 4


def probing_cost(context: JobContext) -> JobCost:
    """Return the cost of fitting and testing all probes of a model."""
    study, shape = context.study, context.model.shape
    settings, probes, pools = study.representations, study.representations.probes, study.facts.pools
    layers = shape.layers if settings.layers is None else len(settings.layers)
    inside = min(study.facts.sides[0], probes.individuals or study.facts.sides[0])
    people = context.people(probes.individuals)
    rows = inside * (1 - probes.held_out)
    width = min(shape.width, rows)
    # First tokens: months, blood types, and of the others as many as there are or people call for.
    counts = (12, pools.cities, pools.universities, pools.jobs, pools.companies, 6)
    classes = sum(min(rows, 0.8 * count) for count in counts) / SIX
    fits = SIX * layers * FORMATS * 2 * (0.8 * len(probes.penalties) + 1)
    products = fits * ITERATIONS * 2 * 2 * rows * width * classes
    # Coordinates: Gram matrices, their axes, and all people turned into them.
    turned = SIX * layers * FORMATS * (2 * rows * width**2 + 10 * width**3)
    turned += SIX * layers * FORMATS**2 * 2 * people * shape.width * width
    numbers = layers * FORMATS * rows * max(width, classes)
    together = NUMBERS["cuda" if context.device.is_gpu else "cpu"]
    batches = max(1.0, numbers / together) * SIX * 2 * (len(probes.penalties) + 1)
    # Soft-maxes read and write the likelihoods several times.
    moved = fits * ITERATIONS * SEARCHED * 6 * 4 * rows * classes
    held, probing = states_bytes(context)
    host = {"process": BARE, "states": held * (1 + 1 / SIX), "algebra": ALGEBRA}
    host["rows"] = 60.0 * SIX * layers * FORMATS * (FORMATS + 1) * (people - rows)
    if context.device.is_gpu:
        memory = Memory({"context": CONTEXT, "probes": probing}, {**host, "CUDA": CUDA})
    else:
        memory = Memory({}, {**host, "probes": min(probing, 3e8 + probing / 10)})
    return JobCost(
        memory,
        operations_beside=products + turned,
        device_bytes=moved,
        link_bytes=held,
        read=held,
        written=1.0 * SIX * layers * FORMATS * (FORMATS + 1) * (people - rows),
        more=ITERATION * ITERATIONS * batches,
        threads=study.compute.threads,
    )


COSTS = {
    "capture": capture_cost,
    "probe": probing_cost,
    "summarise-representations": tables_cost,
}
