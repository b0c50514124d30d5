"""What the stages do that look inside models, select parameters or only read tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from factrecall.cost.evaluation import PADDED, precision_of
from factrecall.cost.job_cost import JobCost, Passes
from factrecall.cost.memory import (
    ALGEBRA,
    BARE,
    CONTEXT,
    CUDA,
    FIGURES,
    LIGHT,
    PROCESS,
    TABLES,
    Memory,
    activation_bytes,
    evaluation_memory,
    text_bytes,
)
from factrecall.cost.training import KEPT, RANKED, kept
from factrecall.vocabulary import RELATIONS

if TYPE_CHECKING:
    from factrecall.config.study import Study
    from factrecall.cost.devices import Device
    from factrecall.cost.jobs import Job
    from factrecall.cost.models import ModelInfo

SIX = len(RELATIONS)

FORMATS = 3
"""Facts are looked at in three: told in a biography, told in one sentence, asked."""

PARTS = 5
"""Exchanges of a prompt's parts, and of its wording."""

PATCHED = 3 * 2 * 3
"""Passes of a fact and layer: three pairs of formats, two donors, three positions."""

CELLS = 8
"""Sets by layers of which coordinates of gradients are drawn (four groups, in S and γ or not)."""

ENTRY = 32.0
"""Main memory of a selection, in bytes a kept parameter (`experiments.shared`)."""

SORTS = 8
"""Sorts of kept parameters for each of the three readings: two pairs of two, and their union."""

COPIES = 12
"""Copies in float32 of a relation's states in one layer, while its probes are fitted."""

ITERATIONS = 25
"""Iterations of a probe's fit, of at most a thousand: 23 in the mean of the laptop study's."""

ITERATION = 2e-3
"""Seconds in which Python and PyTorch go once through an iteration of fits, however small."""

TOGETHER = {False: 2**19, True: 2**27}
"""Numbers of features of fits that are made together, on a CPU and on a GPU (`experiments.probing`,
which takes PyTorch)."""

SEARCHED = 3
"""Soft-maxes of an iteration, a few of its line search."""

MADE = 8e-4
"""Seconds in which a person's texts are invented and written."""

ROW_BYTES = 350.0
"""Bytes on the disk of a person's facts, told and asked."""

FIGURE_SECONDS = 13.0
"""Seconds in which all figures of a model are drawn."""

REPORT_SECONDS = 4.0
"""Seconds in which the report is written, with small figures of its own."""

TABLE_SECONDS = 1.5
"""Seconds of a summary: tables, and some thousand bootstrap samples of people."""


def facts_cost(study: Study) -> JobCost:
    """Return what writing the facts takes."""
    facts = study.facts
    people = facts.people + facts.pretrain_people * facts.pretrain_biographies
    # Every pair of a first and a last name is there once while names are drawn.
    names = 80.0 * facts.pools.first_names * facts.pools.last_names * (facts.individuals is None)
    memory = Memory({}, {"process": LIGHT, "tables": 2.0e4 * people + names})
    return JobCost(memory, more=MADE * people, written=ROW_BYTES * people, light=True)


def fetching_cost(study: Study, known: ModelInfo) -> JobCost:
    """Return what fetching a model takes; the hub has two bytes a parameter, as a rule."""
    size = 2.0 * known.shape.parameters
    memory = Memory({}, {"process": BARE, "reading": 1e8})
    hub = study.models[known.name].source == "hub"
    return JobCost(memory, read=2 * size, written=size, fetched=size if hub else 0.0, models=1)


def selection_cost(study: Study, known: ModelInfo) -> JobCost:
    """Return what selecting the shared parameters of a history takes."""
    n = known.shape.parameters
    keep = kept(study, n)
    # Above 10^9 parameters rankings are as long as before, and so is what is written.
    memory = Memory({}, {"process": BARE, "rankings": ENTRY * keep})
    return JobCost(
        memory,
        sorted=3.0 * SORTS * keep,
        read=3 * RANKED * KEPT * keep,
        written=4.0 * 1.5 * keep,
    )


def representing_cost(study: Study, known: ModelInfo, job: Job, device: Device) -> JobCost:
    """Return what keeping states, attributing prompts and patching take."""
    gpu = device.is_gpu
    looked, texts = study.representations, known.texts
    shape, n = known.shape, known.shape.parameters
    layers = list(range(shape.layers)) if looked.layers is None else looked.layers
    people = looked_at(study, looked.probes.individuals)
    depth = (layers[-1] + 1) / shape.layers if layers else 1.0
    bio, short, asked = (float(t.mean()) for t in (texts.bio, texts.short, texts.question))
    batch = study.recall.max_eval_tokens

    def passes(total: float, targets: float, length: float, share: float = 1.0) -> Passes:
        count = max(1.0, total * PADDED / batch)
        return Passes(
            count,
            total * PADDED / count,
            targets / count,
            length,
            "forward",
            precision_of(study),
            share,
        )

    # States: a biography has six, its sentences and questions one each.
    states = people * (bio + SIX * (short + texts.asked))
    found = [passes(states, 0.0, bio, depth)]
    # Signature: a point of the path is a pass forward and one back to the embeddings.
    signed = looked_at(study, looked.attribution.individuals) * SIX
    prompts = bio * 0.6 + short + asked
    size = min(batch, 2048)
    total = signed * prompts * PADDED
    count = max(1.0, total / size)
    found.append(
        Passes(
            count * (looked.attribution.steps + 2),
            total / count,
            signed * FORMATS / count,
            bio,
            "inputs",
            precision_of(study),
        )
    )
    found.append(passes(signed * prompts * (1 + PARTS), signed * FORMATS * (1 + PARTS), bio))
    # Patching: a pass from each layer on for each state that is put in.
    patched = looked_at(study, looked.patching.individuals) * SIX
    above = sum(1 - (layer + 1) / shape.layers for layer in layers)
    per_fact = (bio * 0.6 + 2 * asked) / 3
    times = PATCHED * above + FORMATS * 4
    found.append(
        passes(
            patched * per_fact * times,
            patched * texts.answer * PATCHED * len(layers),
            per_fact,
        )
    )
    held, _ = states_bytes(study, known)
    memory = evaluation_memory(
        shape,
        batch,
        batch * 0.5,
        1,
        gpu=gpu,
        prepared=text_bytes((2 * SIX + 1) * people, people * (bio + SIX * (short + asked))),
        # States in the model's precision before they are cast: one format's beside all.
        host_bytes=held + held / FORMATS * (2 if looked.precision == "bfloat16" else 1),
    )
    rows = signed * FORMATS * 7 + patched * PATCHED * len(layers)
    return JobCost(
        memory,
        shape,
        tuple(found),
        texts=(2 * SIX + 1) * people + signed * FORMATS * (2 + PARTS) + patched * 12,
        link_bytes=4.0 * n,
        read=4.0 * n,
        written=held + 12.0 * rows,
        more=1e-3 * signed * FORMATS * PARTS + 2e-5 * rows,
        models=1,
        threads=study.compute.threads,
    )


def looked_at(study: Study, individuals: int | None) -> float:
    """Count the people of both sides that an analysis takes so many of each of."""
    return float(sum(min(side, individuals or side) for side in study.facts.sides))


def states_bytes(study: Study, known: ModelInfo) -> tuple[float, float]:
    """Return the size of a model's hidden states, and what probing them takes besides."""
    looked, shape = study.representations, known.shape
    rows = FORMATS * looked_at(study, looked.probes.individuals) * shape.width
    layers = shape.layers if looked.layers is None else len(looked.layers)
    item = 2 if looked.precision == "bfloat16" else 4
    return SIX * rows * layers * item, COPIES * rows * 4


def probing_cost(study: Study, known: ModelInfo, job: Job, device: Device) -> JobCost:
    """Return what fitting and testing all probes of a model takes."""
    gpu = device.is_gpu
    looked, shape = study.representations, known.shape
    layers = shape.layers if looked.layers is None else len(looked.layers)
    inside = min(study.facts.sides[0], looked.probes.individuals or study.facts.sides[0])
    people = looked_at(study, looked.probes.individuals)
    rows = inside * (1 - looked.probes.held_out)
    width = min(shape.width, rows)
    # First tokens: months, blood types, and of the others as many as there are or people call for.
    pools = study.facts.pools
    counts = (12, pools.cities, pools.universities, pools.jobs, pools.companies, 6)
    classes = sum(min(rows, 0.8 * count) for count in counts) / SIX
    fits = SIX * layers * FORMATS * 2 * (0.8 * len(looked.probes.penalties) + 1)
    products = fits * ITERATIONS * 2 * 2 * rows * width * classes
    # Coordinates: Gram matrices, their axes, and all people turned into them.
    turned = SIX * layers * FORMATS * (2 * rows * width**2 + 10 * width**3)
    turned += SIX * layers * FORMATS**2 * 2 * people * shape.width * width
    numbers = layers * FORMATS * rows * max(width, classes)
    batches = max(1.0, numbers / TOGETHER[gpu]) * SIX * 2 * (len(looked.probes.penalties) + 1)
    # Soft-maxes read and write the likelihoods several times.
    moved = fits * ITERATIONS * SEARCHED * 6 * 4 * rows * classes
    held, probing = states_bytes(study, known)
    host = {"process": BARE, "states": held * (1 + 1 / SIX)}
    host["algebra"] = ALGEBRA
    host["rows"] = 60.0 * SIX * layers * FORMATS * (FORMATS + 1) * (people - rows)
    if gpu:
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


def gradients_cost(study: Study, known: ModelInfo, job: Job, device: Device) -> JobCost:
    """Return what comparing the gradients of facts told and asked takes."""
    gpu = device.is_gpu
    looked, texts, shape = study.representations.gradient_similarity, known.texts, known.shape
    n = shape.parameters
    traced = (study.trace.in_distribution, study.trace.out_of_distribution)
    sides = [min(side, looked.individuals or side) for side in traced]
    inside = study.trace.checkpoints + 1
    moments = 1 + inside * (2 if job.tuning == "stage" else 1)
    facts = SIX * sum(sides) * moments
    told, asked = float(texts.bio.mean()) * 0.6, float(texts.question.mean())
    drawn = CELLS * (shape.layers + 1)
    columns = n if looked.sampled_parameters is None else min(n, drawn * looked.sampled_parameters)
    rows = SIX * max(sides) * 2 * 4.0 * columns
    passes = tuple(
        Passes(facts, length, texts.answer, length, "train", precision_of(study))
        for length in (told, asked)
    )
    parts = {"context": CONTEXT} if gpu else {}
    parts |= {
        "weights": 4.0 * n,
        "gradients": 4.0 * n,
        "activations": activation_bytes(shape, "float32") * told * shape.layers,
        "kept": rows + 8.0 * columns,
    }
    host = {"process": PROCESS}
    # Only few texts are prepared, but the tables are read whole.
    host["texts"] = text_bytes(7.0 * study.facts.people, SIX * sum(sides) * (told + asked))
    host["sets"] = 5.0 * n + 16.0 * columns
    if gpu:
        memory = Memory(parts, {**host, "CUDA": CUDA, "reading": 8.0 * n})
    else:
        memory = Memory({}, {**host, **parts, "reading": 4.0 * n})
    return JobCost(
        memory,
        shape,
        passes,
        texts=2.0 * SIX * sum(sides),
        # Gradients are written, cast by cell and multiplied with each other.
        device_bytes=facts * 2 * 8.0 * n + moments * SIX * max(sides) * rows / 8,
        link_bytes=4.0 * n * moments,
        sorted=float(columns),
        read=4.0 * n * moments,
        written=20.0 * facts * 3 * (shape.layers + 5),
        more=0.3 * moments,
        models=moments,
        threads=study.compute.threads,
    )


def tables_cost(study: Study, job: Job) -> JobCost:
    """Return what a summary, the figures of a model or the report take."""
    rows = 42.0 * study.facts.people * len(study.training.seeds) * len(study.models)
    usual = {"draw-figures": FIGURE_SECONDS, "write-report": REPORT_SECONDS}
    seconds = usual.get(job.stage, TABLE_SECONDS)
    draws = job.stage in usual
    memory = Memory({}, {"process": FIGURES if draws else TABLES, "tables": 60.0 * rows})
    return JobCost(memory, more=seconds + 1e-6 * rows, written=1e6)
