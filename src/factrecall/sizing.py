"""What a job asks of a cluster: memory, time, disk and a GPU, from model size and stage.

Bytes a parameter are counted from what the code keeps (docs/cluster.md has the sums), times are
generous guesses: a training, a fit or a sweep that meets its time limit saves its state, and its
next attempt, which asks for more, goes on. Nothing here changes a result.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from factrecall.config.model import Folder, Hub, Scratch
from factrecall.facts import RELATIONS

if TYPE_CHECKING:
    from factrecall.config import Study
    from factrecall.config.model import Model, Recipe

PROCESS_MB = 1500
"""A process with its libraries, and the engine's own processes around it on a cluster."""

TASKS = {"base": 0, "bio": 2, "stage": 1, "mix": 3}
"""Traced tasks of each tuning."""

HOST_BYTES = {
    "select-shared": 0,
    "recall": 8,
    "ablate": 32,
    "graft": 40,
    "graft-without-shared": 40,
    "intervene": 40,
    "study-case": 40,
    "represent": 12,
    "probe": 0,
    "compare-gradients": 24,
}
"""Main memory, in bytes a parameter: weights while they are read, and on a CPU all that is kept."""

ENTRY_BYTES = 150
"""Main memory of a selection, in bytes a kept parameter: its rankings, sorted two at a time."""

DEPTH = 40
"""Layers of a model that is not there yet: more than models of its size have, as a rule."""

CELLS = 8 * DEPTH
"""Cells of which coordinates of gradients are drawn: eight sets by layers."""

KEPT = 5 / 3
"""Main memory of hidden states: themselves, and those of one format in float32, too."""

PROBED = 12
"""Copies in float32 of a relation's states in one layer, while its probes are fitted on a CPU."""

MINUTES = {
    "select-shared": 60,
    "recall": 20,
    "ablate": 120,
    "graft": 240,
    "graft-without-shared": 240,
    "intervene": 480,
    "study-case": 60,
    "represent": 120,
    "probe": 120,
    "compare-gradients": 120,
}
"""Minutes for a model of 10⁹ parameters, beside `START`."""

START = 25
"""Minutes that every job gets; SLURM gives notice after the first fifteen."""

LONGEST = 24 * 60
"""Minutes that a job asks for at most: trainings, fits and sweeps go on in their next attempt."""

GOES_ON = ("pretrain", "fine-tune", "graft", "graft-without-shared", "intervene")
"""Stages that resume, so that a later attempt needs no more time than the first."""

TEXT_TOKENS = 100
"""Tokens of an example, about; six questions in one are as many as a biography."""

RATE = 5e13
"""Floating-point operations a second of a training: a sixth of an A100's peak in bfloat16."""

LARGE = 1e8
"""Parameters from which a training is thought to be on a GPU."""

UNKNOWN = 3_200_000_000
"""Parameters of a model whose name does not tell: the paper's."""


def parameters_of(model: Model) -> int:
    """Return how many parameters a model has, about: before it is built or fetched.

    Parameters
    ----------
    model : Model
        Its section of the configuration. The size of a hub model is read off its name
        (``pythia-2.8b``), with a sixth more for what names round off.
    """
    if isinstance(model, Folder):
        return sum(map(_stored, model.path.glob("*.safetensors"))) or UNKNOWN
    if isinstance(model, Hub):
        found = re.search(r"(\d+(?:\.\d+)?)([bm])(?![a-z])", model.repository.lower())
        if not found:
            return UNKNOWN
        number, unit = found.groups()
        return round(float(number) * {"b": 1e9, "m": 1e6}[unit] * 7 / 6)
    return _built(model)


def _built(model: Scratch) -> int:
    width, heads = model.hidden_size, model.heads
    shared = 2 * width * width // heads * (model.key_value_heads or heads)
    layer = (
        2 * width * width
        + shared
        + (3 if model.architecture == "llama" else 2) * (width * model.mlp_size)
    )
    ends = max(model.vocabulary, 8192) * width * (1 if model.tie_embeddings else 2)
    return model.layers * layer + ends


def shape_of(model: Model) -> tuple[int, int]:
    """Return a model's layers and width: of one built from scratch; of others more than likely.

    Width squared, times twelve, are a layer's parameters. That there are twenty layers makes a
    guess too wide for larger models, and just wide enough for Llama's with their wide MLPs.
    """
    if isinstance(model, Scratch):
        return model.layers, model.hidden_size
    return DEPTH, math.ceil(math.sqrt(parameters_of(model) / (12 * 20)))


def states_bytes(study: Study, model: Model) -> tuple[float, float]:
    """Return the size of a model's hidden states, and what probing them takes besides.

    Parameters
    ----------
    study : Study
        The configuration: its `representations` say which layers, people and precision.
    model : Model
        Its section of the configuration.
    """
    looked = study.representations
    depth, width = shape_of(model)
    people, each = study.facts.people, looked.probes.individuals
    rows = 3 * (people if each is None else min(people, 2 * each)) * width
    layers = depth if looked.layers is None else len(looked.layers)
    item = 2 if looked.precision == "bfloat16" else 4
    return len(RELATIONS) * rows * layers * item, PROBED * rows * 4


def _stored(path: Path) -> int:
    """Count the scalars of a safetensors file by its header: its length, then JSON."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(length, path.stat().st_size)))
        entries = [entry for name, entry in header.items() if name != "__metadata__"]
        return sum(math.prod(entry["shape"]) for entry in entries)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return 0  # fetching the model says what is wrong with it


def training_minutes(recipe: Recipe, parameters: int) -> int:
    """Return the minutes that a training may take: twice what its operations would."""
    examples = recipe.updates * recipe.batch_size
    passes = 8 if recipe.gradient_checkpointing else 6
    operations = passes * parameters * examples * TEXT_TOKENS
    rate = RATE if parameters > LARGE else RATE / 1e4
    return START + round(2 * operations / rate / 60)


def needs(
    study: Study, stage: str, model: str, tuning: str = "base", attempt: int = 1
) -> dict[str, int]:
    """Return what a job asks for.

    Parameters
    ----------
    study : Study
        The configuration.
    stage : str
        One that has a model.
    model, tuning : str
        Of the job.
    attempt : int
        From 1; memory grows with it, and so does the time of stages that begin anew.

    Returns
    -------
    dict of str to int
        ``mem_mb``, ``runtime`` (minutes) and ``disk_mb``, as Snakemake names them.
    """
    chosen = study.models[model]
    count = parameters_of(chosen)
    if stage in ("pretrain", "fine-tune"):
        recipe = chosen.pretrain if stage == "pretrain" and isinstance(chosen, Scratch) else None
        minutes = training_minutes(recipe or getattr(chosen.training, tuning), count)
        # Weights, gradients, two moments and two sums a task; then the same without gradients
        # twice, as tensors and as bytes, when the state is saved. Snapshots are on the disk beside
        # the state and, at the end, in place, too.
        tasks = TASKS[tuning]
        snapshots = study.trace.snapshots if stage == "fine-tune" else 0
        host, disk = 28 + 16 * tasks, 4 + 12 + 8 * tasks + 8 * snapshots
    else:
        minutes = START + round(MINUTES[stage] * count / 1e9)
        host, disk = HOST_BYTES[stage], 4
    more = 1000 * study.compute.cache_gb if stage == "intervene" else 0.0
    if stage == "select-shared":
        keep = study.trace.keep
        more = ENTRY_BYTES * (keep if isinstance(keep, int) else keep * count) / 1e6
    if stage == "compare-gradients":
        drawn = study.representations.gradients.coordinates
        people = study.representations.gradients.individuals
        people = people or max(study.trace.in_distribution, study.trace.out_of_distribution)
        columns = count if drawn is None else min(count, CELLS * drawn)
        # Six facts of each of a side's people, told and asked, in float32.
        more = 6 * people * 2 * 4 * columns / 1e6
    states = 0.0
    if stage in ("represent", "probe"):
        states, probing = (size / 1e6 for size in states_bytes(study, chosen))
        more = KEPT * states + (probing if stage == "probe" else 0)
    # A second attempt is as often due to a node or a time limit as to memory.
    memory = (1 + (attempt - 1) / 2) * (PROCESS_MB + count * host / 1e6 + more)
    minutes = min(minutes, LONGEST) if stage in GOES_ON else attempt * minutes
    return {
        "mem_mb": round(memory),
        "runtime": minutes,
        "disk_mb": round(1000 + count * disk / 1e6 + states),
    }


def gpus(study: Study, *, cluster: bool) -> int:
    """Return how many GPUs a job that runs a model asks for: one, or none where there is none.

    Parameters
    ----------
    study : Study
        The configuration; `compute.device: cpu` wants none.
    cluster : bool
        Whether jobs are submitted to a cluster, whose nodes are not this machine.
    """
    if study.compute.device != "auto":
        return int(study.compute.device == "cuda")
    return int(cluster or _gpu_here())


def _gpu_here() -> bool:
    """Say whether this machine seems to have a GPU; to load PyTorch for that takes seconds."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return any(name.strip() not in ("", "-1") for name in visible.split(","))
    # The last is that of Windows' Linux.
    return any([*Path("/dev").glob("nvidia[0-9]*"), *Path("/dev").glob("dxg")])


Resources = dict[str, Callable[..., int]]


def resources(study: Study, stage: str) -> Resources:
    """Return a rule's resources as functions of wildcards and attempt, as Snakemake calls them."""

    def of(name: str) -> Callable[..., int]:
        def value(wildcards: object, attempt: int) -> int:
            tuning = getattr(wildcards, "tuning", "base")
            model: str = getattr(wildcards, "model")  # noqa: B009
            return needs(study, stage, model, tuning, attempt)[name]

        return value

    return {name: of(name) for name in ("mem_mb", "runtime", "disk_mb")}
