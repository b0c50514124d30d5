"""The study, checked before any job, where its files lie, and what all rules share.

Rules name the files of a stage as its function does. Their parameters are `job(...)`, which has
the command line and all that determines a job beside its input files, as one sorted mapping of
plain values: Snakemake compares parameters by value and sees neither imported code nor `config`.
Stages read the study from a file named by its content, so that a dry run with other settings
cannot change what running jobs read.
"""

import os
import re
import signal
import sys
from functools import partial
from hashlib import sha256
from pathlib import Path

sys.path.insert(0, str(Path(workflow.basedir) / "src"))

from factrecall.experiments import sections
from factrecall import runs
from factrecall.workflow import snakemake_patches, stages
from factrecall.runtime import fork_server
from factrecall.runtime.errors import EXIT_CODE, FactRecallError
from factrecall.runtime.lease import begin_run, is_over
from factrecall.cost import resources as planned
from factrecall.runtime.storage import disk_error, to_json, write_text
from factrecall.config.reading import parse_study
from factrecall.vocabulary import COMPARED, PHASES, TUNINGS

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
    if not (
        workflow.non_local_exec
        or workflow.remote_exec
        or planned.gpus(STUDY, cluster=False)
    ):
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

# Each job that runs a model has a GPU to itself, or as many as share a fine-tuning: here jobs take
# turns on all of these, on a cluster each submission has its own. No job gets more than there are here.
if "gpu" not in workflow.global_resources:
    workflow.register_resource("gpu", STUDY.training.mode.gpus)


resource_scopes:
    gpu="local",


job = partial(stages.rule_parameters, STUDY, Path(RESULTS) / "state")


def needs(name):
    """Return the resources of a stage: what it is planned to need, and GPUs if it runs a model."""

    def gpu(wildcards):
        # Snakemake knows late whether it submits jobs. A dry run submits nothing; one for a cluster
        # has a number of jobs, which are its nodes.
        cluster = workflow.non_local_exec or (
            workflow.dryrun and workflow.nodes is not None
        )
        return planned.gpus(STUDY, cluster=cluster, stage=name)

    on_gpu = {} if stages.STAGES[name].device == "none" else {"gpu": gpu}
    return {**planned.resources(STUDY, name), **on_gpu}


# The user's own people and sentences, by content: a path may hold what Snakemake takes for a
# wildcard, and an edit of these files is an edit of the facts.
OWN_FILES = [
    sha256(path.read_bytes()).hexdigest()
    for path in (STUDY.facts.individuals, STUDY.facts.templates)
    if path is not None
]
# Facts and θpre have the study seed of their replicate in their names, fine-tuned models and what
# comes of them their own. Rules for these take `facts`, `table_of(...)` and `base`, functions of
# the wildcards.
FACTS = [
    f"{RESULTS}/facts/seed{{seed}}/{table}.parquet"
    for table in ("individuals", "bio", "qa")
]
INDIVIDUALS, BIO, QA = FACTS
BASE = f"{RESULTS}/models/{{model}}/base/seed{{seed}}"
TUNED = f"{RESULTS}/models/{{model}}/{{tuning}}/seed{{seed}}"
TRACE = f"{RESULTS}/traces/{{model}}/{{tuning}}/seed{{seed}}.safetensors"
TABLES = f"{RESULTS}/tables"
RUN = "{model}/{tuning}-seed{seed}"
LOGS, BENCHMARKS = f"{RESULTS}/logs", f"{RESULTS}/benchmarks"
SHARED = f"{RESULTS}/shared/{{model}}/{{tuning}}/seed{{seed}}"
GRAFTED = f"{RESULTS}/grafting/{{model}}/{{tuning}}/seed{{seed}}.{{split}}"
GRAFTED_OUT = GRAFTED.replace("{split}", "out")
SETS = f"{SHARED}.sets.safetensors"
MASKS = f"{GRAFTED_OUT}.masks.safetensors"
OUTCOMES = f"{GRAFTED_OUT}.parquet"
CIRCUIT = f"{RESULTS}/circuits/{{model}}/{{tuning}}/seed{{seed}}.{{kind}}.{{ranking}}"
REPRESENTED = f"{RESULTS}/representations/{{model}}/{{tuning}}/seed{{seed}}"
SNAPSHOTS = expand(
    f"{RESULTS}/snapshots/{{{{model}}}}/{{{{tuning}}}}/seed{{{{seed}}}}"
    ".{moment}of{moments}.safetensors",
    moment=range(1, STUDY.trace.checkpoints + 1),
    moments=STUDY.trace.checkpoints,
)
CASE = f"{RESULTS}/case/{{model}}/case"
HISTORIES, GRAFTS = runs.histories(STUDY), runs.grafts(STUDY)
CIRCUITS = runs.interventions(STUDY)
# The models of the case study: both tunings of the first seed.
CASES = [
    {"model": "{model}", "tuning": tuning, "seed": STUDY.training.seeds[0]}
    for tuning in COMPARED[::-1]
]


def one_of(models):
    """Return a wildcard pattern for exactly these models (for none: one that never matches)."""
    return "|".join(re.escape(one["model"]) for one in models) or "(?!)"


def of_seed(pattern, seed):
    """Return a pattern with its wildcard `seed` filled in."""
    return pattern.replace("{seed}", str(seed))


def table_of(pattern):
    """Return a function to a table of facts of the job's replicate."""
    return lambda wildcards: of_seed(
        pattern, runs.study_seed_of(STUDY, int(wildcards.seed))
    )


def facts(wildcards):
    """Return the tables of facts of the job's replicate."""
    return [table_of(pattern)(wildcards) for pattern in FACTS]


def base(wildcards):
    """Return θpre of the job's replicate."""
    return of_seed(BASE, runs.base_seed(STUDY, wildcards.model, int(wildcards.seed)))


def weights_of_history(wildcards):
    """Return the weights at each moment: θpre, then of each phase snapshots and end."""
    files = [base(wildcards)]
    for phase in PHASES[wildcards.tuning]:
        files += [file.replace("{tuning}", phase) for file in [*SNAPSHOTS, TUNED]]
    return files


def donor(pattern, tunings=lambda donor: [donor]):
    """Return a function to the files of the other fine-tuning of the same seed."""

    def files(wildcards):
        (other,) = set(COMPARED) - {wildcards.tuning}
        return [pattern.replace("{tuning}", tuning) for tuning in tunings(other)]

    return files


def results_of(model):
    """Return all files that the report's sections read of a model."""
    return [f"{RESULTS}/{path}" for path in sections.inputs(STUDY, model)]


def each(members, pattern):
    """Return a file for each of several runs."""
    return [pattern.format(**member) for member in members]


wildcard_constraints:
    model=one_of(runs.models(STUDY)),
    tuning="|".join(PHASES),
    seed=r"\d+",
