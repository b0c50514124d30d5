"""Commands of the experiments on circuits: interventions and the attention case study."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from factrecall.cli.common import Command, device_of, given, open_study, seed_of
from factrecall.cli.experiments import RUN

TABLES = {
    "out": "accuracies and completeness",
    "by-relation": "accuracies by relation",
    "continuity": "what stays right once it is",
    "heads": "attention nodes",
    "sweeps": "how closely each sweep was asked",
    "circuits": "numbers of the circuits",
}


def add(commands: Any) -> None:
    """Add the commands of this module."""
    intervene = Command(
        commands, "intervene", _intervene, "put heads or neurons of a grafted model back, in turn"
    )
    intervene.parser.add_argument("--seed", type=int, required=True, help="of the fine-tuning")
    intervene.parser.add_argument(
        "--kind", required=True, choices=("attention", "column", "unit"), help="kind of nodes"
    )
    intervene.parser.add_argument(
        "--sets",
        type=Path,
        help="its shared sets, to order nodes by; without, they are ordered by their grafted "
        "parameters and by chance, for comparison",
    )
    intervene.path("--base", "the model folder before fine-tuning")
    intervene.path("--tuned", "the fine-tuned model folder")
    intervene.path("--masks", "its masks, fitted to QA out")
    intervene.path("--outcomes", "the outcomes of these masks")
    intervene.path("--qa", "the qa table")
    intervene.output("--out", "the table of steps to write")
    intervene.output("--curves", "the table of how closely each sweep was asked to write")
    intervene.output("--nodes", "the table of nodes to write")
    intervene.output("--questions", "the table of questions to write")
    intervene.path("--state", "folder where an interrupted job keeps its state")

    circuits = Command(
        commands, "summarise-circuits", _summarise_circuits, "gather what all interventions show"
    )
    circuits.each(
        "--intervention",
        (*RUN, "KIND", "BY", "STEPS", "CURVES", "NODES", "QUESTIONS"),
        "the files of one job; for each kind once by shared and once by baseline",
    )
    for name, text in TABLES.items():
        circuits.output(f"--{name}", f"the table of {text} to write")

    case = Command(commands, "study-case", _study_case, "look at one head and one fact")
    case.path("--base", "the model folder before fine-tuning")
    case.each(
        "--grafted",
        ("TUNING", "TUNED", "SETS", "MASKS", "OUTCOMES"),
        "the files of one grafted model; once for mix and once for stage",
    )
    case.path("--bio", "the bio table")
    case.path("--qa", "the qa table")
    case.output("--out", "the table of the case to write")
    case.output("--tokens", "the table of its prompts to write")
    case.output("--attention", "the table of the head's attention to write")
    case.output("--logits", "the table of the logit lens to write")
    case.output("--looks", "the table of where the head looks for every fact to write")


def _intervene(options: argparse.Namespace) -> None:
    by = "baseline" if options.sets is None else "shared"
    study, settings, provenance = open_study(options, kind=options.kind, by=by)
    device = device_of(study)
    from factrecall.experiments.circuits.stage import intervene

    intervene(
        **settings,
        **given(options, "base", "tuned", "seed", "sets", "masks", "outcomes", "qa"),
        **given(options, "out", "curves", "nodes", "questions", "state"),
        cache_gb=study.compute.cache_gb,
        checkpoint_interval_s=study.compute.checkpoint_interval_s,
        device=device,
        provenance=provenance,
    )


def _summarise_circuits(options: argparse.Namespace) -> None:
    _, settings, provenance = open_study(options)
    from factrecall.experiments.circuits.summary import Intervention, summarise_circuits

    interventions = [
        Intervention(model, tuning, seed_of(seed), kind, by, *map(Path, files))
        for model, tuning, seed, kind, by, *files in options.intervention
    ]
    summarise_circuits(
        **settings,
        **given(options, *(name.replace("-", "_") for name in TABLES)),
        interventions=interventions,
        provenance=provenance,
    )


def _study_case(options: argparse.Namespace) -> None:
    study, settings, provenance = open_study(options)
    device = device_of(study)
    from factrecall.experiments.case_study.stage import GraftedFiles, study_case
    from factrecall.runtime.errors import FactRecallError

    grafted = {tuning: GraftedFiles(*map(Path, files)) for tuning, *files in options.grafted}
    if set(grafted) != {"mix", "stage"}:
        raise FactRecallError(
            "--grafted", f"it names {', '.join(grafted)}", "give it once for mix and once for stage"
        )
    study_case(
        **settings,
        **given(options, "base", "bio", "qa"),
        **given(options, "out", "tokens", "attention", "logits", "looks"),
        grafted=grafted,
        device=device,
        provenance=provenance,
    )
