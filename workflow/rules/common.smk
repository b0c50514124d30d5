"""The study, checked before any job, and where its files lie.

A rule's only parameter is `parameters(...)`: all that determines it beside its input files, as
one sorted mapping of plain values, since Snakemake compares parameters by value and sees neither
imported code nor `config`. Stages read the study from a file named by its content, so that a dry
run with other settings cannot change what running jobs read.
"""

import os
import re
import signal
import sys
from functools import partial
from hashlib import sha256
from pathlib import Path

sys.path.insert(0, str(Path(workflow.basedir) / "src"))

from factrecall.workflow import snakemake_patches, stages
from factrecall.runtime import fork_server
from factrecall.runtime.errors import EXIT_CODE, FactRecallError
from factrecall.runtime.lease import begin_run, is_over
from factrecall.cost import resources as planned
from factrecall.runtime.storage import disk_error, to_json, write_text
from factrecall.config.reading import parse_study

try:
    STUDY = parse_study(
        config, "--config", [Path(file) for file in workflow.configfiles]
    )
    RESULTS = f"results/{STUDY.name}"
    _text = to_json(STUDY.model_dump(mode="json"))
    STUDY_FILE = f"{RESULTS}/studies/{sha256(_text.encode()).hexdigest()[:16]}.json"
    if not Path(STUDY_FILE).exists():
        write_text(Path(STUDY_FILE), _text)
except FactRecallError as error:
    print(f"factrecall: {error}", file=sys.stderr)
    sys.exit(EXIT_CODE)

# Jobs run with this interpreter's environment and this checkout's package, activated or not; an
# environment that Snakemake itself activates comes before both.
os.environ.update(
    PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.getenv('PATH', '')}",
    PYTHONPATH=sys.path[0],
    FACTRECALL_STUDY=STUDY_FILE,
)

snakemake_patches.remember_job_age()
snakemake_patches.leave_on_sigterm()
snakemake_patches.count_forked_jobs()

# A job is asked to leave by a signal to all its processes: the shell and `tee` stay until it has
# saved its state, and so does a Snakemake that runs it in a cluster's job. A log that cannot be
# written (a full disk) fails no job.
shell.prefix(
    "set -euo pipefail; trap '' INT TERM USR1; tee() {{ command tee \"$@\" || true; }}; "
)
signal.signal(signal.SIGUSR1, signal.SIG_IGN)


onstart:
    try:
        os.environ.update(FACTRECALL_RUN=begin_run(Path(RESULTS) / "claims"))
    except OSError as error:
        print(f"factrecall: {disk_error(Path(RESULTS), error)}", file=sys.stderr)
        sys.exit(EXIT_CODE)
    # A cluster's jobs start on other machines, and CUDA and forks do not go together.
    if not (workflow.non_local_exec or workflow.remote_exec or gpu(None)):
        fork_server.start()


# A submitted job is a Snakemake that deletes the outputs it is to make, before anything else. One
# that waited in the queue while the workflow was killed and started again must not get that far.
_run = os.environ.get("FACTRECALL_RUN")
if workflow.remote_exec and _run and is_over(Path(RESULTS) / "claims", _run):
    print(
        "factrecall: this job belongs to an earlier start of the workflow; nothing is done",
        file=sys.stderr,
    )
    sys.exit(EXIT_CODE)

parameters = partial(stages.parameters, STUDY)
needs = partial(planned.resources, STUDY)

# Each job that runs a model has a GPU to itself, or as many as share a fine-tuning: here jobs take
# turns on all of these, on a cluster each submission has its own. No job gets more than there are here.
if "gpu" not in workflow.global_resources:
    workflow.register_resource("gpu", STUDY.training.mode.gpus)


resource_scopes:
    gpu="local",


def gpu(wildcards, stage=""):
    """Return how many GPUs a job asks for; Snakemake knows late whether it submits jobs."""
    # A dry run submits nothing; one for a cluster has a number of jobs, which are its nodes.
    cluster = workflow.non_local_exec or (
        workflow.dryrun and workflow.nodes is not None
    )
    return planned.gpus(STUDY, cluster=cluster, stage=stage)


def gpus(wildcards):
    """Return how many GPUs a fine-tuning asks for; several may share one."""
    return gpu(wildcards, "fine-tune")


SCRATCH = [name for name, model in STUDY.models.items() if model.source == "scratch"]
FETCHED = [name for name, model in STUDY.models.items() if model.source != "scratch"]
TUNINGS = ["bio", "stage", "mix"]
# The user's own people and sentences, by content: a path may hold what Snakemake takes for a
# wildcard, and an edit of these files is an edit of the facts.
OWN_FILES = [
    sha256(path.read_bytes()).hexdigest()
    for path in (STUDY.facts.individuals, STUDY.facts.templates)
    if path is not None
]
FACTS = expand(f"{RESULTS}/facts/{{table}}.parquet", table=["individuals", "bio", "qa"])
BASE = f"{RESULTS}/models/{{model}}/base/seed{STUDY.seed}"
TUNED = f"{RESULTS}/models/{{model}}/{{tuning}}/seed{{seed}}"
TRACE = f"{RESULTS}/traces/{{model}}/{{tuning}}/seed{{seed}}.safetensors"
SHARED = f"{RESULTS}/shared/{{model}}/{{tuning}}/seed{{seed}}"
GRAFTED = f"{RESULTS}/grafting/{{model}}/{{tuning}}/seed{{seed}}.{{split}}"
GRAFTED_OUT = GRAFTED.replace("{split}", "out")
CIRCUIT = f"{RESULTS}/circuits/{{model}}/{{tuning}}/seed{{seed}}.{{kind}}.{{by}}"
REPRESENTED = f"{RESULTS}/representations/{{model}}/{{tuning}}/seed{{seed}}"
SNAPSHOTS = expand(
    f"{RESULTS}/snapshots/{{{{model}}}}/{{{{tuning}}}}/seed{{{{seed}}}}"
    ".{moment}of{moments}.safetensors",
    moment=range(1, STUDY.trace.checkpoints + 1),
    moments=STUDY.trace.checkpoints,
)
CASE = f"{RESULTS}/case/{{model}}/case"
# Every evaluation of the study; θpre has no seed of its own and carries the study's.
EVALUATIONS = [
    {"model": model, "tuning": "base", "seed": STUDY.seed} for model in STUDY.models
] + [
    {"model": model, "tuning": tuning, "seed": seed}
    for model in STUDY.models
    for tuning in TUNINGS
    for seed in STUDY.training.seeds
]
# Two-stage training and mixed training, whose traces have both tasks.
HISTORIES = [
    {"model": model, "tuning": tuning, "seed": seed}
    for model in STUDY.models
    for tuning in ["stage", "mix"]
    for seed in STUDY.training.seeds
]
GRAFTS = [
    {**history, "split": split} for history in HISTORIES for split in ["in", "out"]
]
KINDS = [
    kind for kind in ["attention", "column", "unit"] if getattr(STUDY.circuits, kind)
]
CIRCUITS = [
    {**history, "kind": kind, "by": by}
    for history in HISTORIES
    for kind in KINDS
    for by in ["shared", "baseline"]
]
# The models of the case study: both tunings of the first seed.
CASES = [
    {"model": "{model}", "tuning": tuning, "seed": STUDY.training.seeds[0]}
    for tuning in ["mix", "stage"]
]
ENVIRONMENT = str(Path(workflow.basedir) / "envs/environment.yaml")


def one_of(names):
    """Return a wildcard pattern for exactly these names (for none: one that never matches)."""
    return "|".join(map(re.escape, names)) or "(?!)"


def start(wildcards):
    """Return the folder a fine-tuning starts from: BIO-tuned for the second stage, else θpre."""
    if wildcards.tuning == "stage":
        return f"{RESULTS}/models/{{model}}/bio/seed{{seed}}"
    return BASE


def ordering(wildcards):
    """Return the shared sets where nodes are ordered by them; the controls know nothing of S."""
    return f"{SHARED}.sets.safetensors" if wildcards.by == "shared" else []


def phases_of_history(wildcards):
    """Return the phases of a training history and, of each, the shares of its moments."""
    inside = STUDY.trace.checkpoints + 1
    return [
        {"phase": phase, "share": moment / inside}
        for phase in (["bio", "stage"] if wildcards.tuning == "stage" else ["mix"])
        for moment in range(phase == "stage", inside + 1)
    ]


def moments_of_history(wildcards):
    """Return the weights at each moment: θpre, then of each phase snapshots and end."""
    files = [BASE]
    for phase in ["bio", "stage"] if wildcards.tuning == "stage" else ["mix"]:
        files += [file.replace("{tuning}", phase) for file in [*SNAPSHOTS, TUNED]]
    return files


def traces_of_history(wildcards):
    """Return the traces of a training history: for two-stage training those of both stages."""
    tunings = ["bio", "stage"] if wildcards.tuning == "stage" else ["mix"]
    return [TRACE.replace("{tuning}", tuning) for tuning in tunings]


def each(members, pattern):
    """Return a file for each of several runs."""
    return [pattern.format(**member) for member in members]


def options(name, members, *files):
    """Return a command line's option for each of several runs, with its files."""
    return [
        f"{name} {' '.join(map(str, member.values()))} {' '.join(paths)}"
        for member, *paths in zip(members, *files)
    ]


wildcard_constraints:
    model=one_of(STUDY.models),
    tuning="base|bio|stage|mix",
    seed=r"\d+",
