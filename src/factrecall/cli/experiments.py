"""Commands of the experiments: shared parameters, ablation, grafting."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from factrecall.cli.common import Command, device_of, given, open_study, seed_of

RUN = ("MODEL", "TUNING", "SEED")


def add(commands: Any) -> None:
    """Add the commands of this module."""
    select = Command(
        commands, "select-shared", _select_shared, "find the parameters that both tasks move"
    )
    select.path("--traces", "the trace of mixed training, or those of both stages", nargs="+")
    select.output("--out", "the sets to write")
    select.output("--curve", "the table of |S(k)| to write")
    select.output("--places", "the table of where S lives to write")

    shared = Command(
        commands, "summarise-shared", _summarise_shared, "gather what is known of all shared sets"
    )
    shared.each("--selection", (*RUN, "CURVE", "PLACES"), "the tables of one training history")
    shared.output("--out", "the table of |S(k)| to write")
    shared.output("--places", "the table of where S lives to write")

    ablate = Command(
        commands, "ablate", _ablate, "set shared parameters back, and others for comparison"
    )
    ablate.parser.add_argument("--seed", type=int, required=True, help="of the fine-tuning")
    ablate.path("--bio", "the bio table")
    ablate.output("--out", "the per-example table to write")

    ablation = Command(
        commands, "summarise-ablation", _summarise_ablation, "count what ablations cost"
    )
    ablation.each("--evaluation", (*RUN, "TABLE"), "the per-example table of one model")
    ablation.output("--out", "the table of accuracies to write")
    ablation.output("--intervals", "the table of paired differences to write")

    graft = Command(commands, "graft", _graft, "find how few parameters carry recall")
    without = Command(
        commands,
        "graft-without-shared",
        _graft_without_shared,
        "find how few parameters carry recall if none of them is shared",
    )
    for command in (graft, without):
        command.parser.add_argument("--seed", type=int, required=True, help="of the fine-tuning")
        command.parser.add_argument(
            "--split", required=True, choices=("in", "out"), help="whose questions"
        )
        command.output("--out", "the masks to write")
        command.output("--table", "the table of outcomes to write")
        command.output("--examples", "the per-example table to write")
        command.path("--state", "folder where an interrupted fit keeps its state")
    graft.output("--checks", "the table of checks to write")
    without.output("--shares", "the table to write of how much of what moved most is shared")
    for command in (ablate, graft, without):
        command.path("--base", "the model folder before fine-tuning")
        command.path("--tuned", "the fine-tuned model folder")
        command.path("--qa", "the qa table")
    for command in (ablate, without):
        command.path("--sets", "its shared sets")

    grafting = Command(
        commands, "summarise-grafting", _summarise_grafting, "gather what all masks recover"
    )
    grafting.each(
        "--graft",
        (*RUN, "SPLIT", "TABLE", "CHECKS", "MASKS", "WITHOUT", "SHARES", "SETS"),
        "the files of one model grafted with shared parameters and (WITHOUT, SHARES) without, and "
        "its shared sets",
    )
    grafting.output("--out", "the table of outcomes to write")
    grafting.output("--checks", "the table of checks to write")


def _select_shared(options: argparse.Namespace) -> None:
    _, settings, provenance = open_study(options)
    from factrecall.experiments.shared_parameters.stage import select_shared

    select_shared(
        **settings,
        **given(options, "traces", "out", "curve"),
        where=options.places,
        provenance=provenance,
    )


def _summarise_shared(options: argparse.Namespace) -> None:
    _, settings, provenance = open_study(options)
    from factrecall.experiments.shared_parameters.stage import Selection, summarise_shared

    selections = [
        Selection(model, tuning, seed_of(seed), Path(curve), Path(where))
        for model, tuning, seed, curve, where in options.selection
    ]
    summarise_shared(
        **settings,
        selections=selections,
        out=options.out,
        where=options.places,
        provenance=provenance,
    )


def _ablate(options: argparse.Namespace) -> None:
    study, settings, provenance = open_study(options)
    device = device_of(study)
    from factrecall.experiments.ablation.stage import ablate

    ablate(
        **settings,
        **given(options, "base", "tuned", "seed", "sets", "bio", "qa", "out"),
        device=device,
        provenance=provenance,
    )


def _summarise_ablation(options: argparse.Namespace) -> None:
    _, settings, provenance = open_study(options)
    from factrecall.evaluation.exact_match import Evaluation
    from factrecall.experiments.ablation.stage import summarise_ablation

    evaluations = [
        Evaluation(model, tuning, seed_of(seed), Path(table))
        for model, tuning, seed, table in options.evaluation
    ]
    summarise_ablation(
        **settings,
        **given(options, "out", "intervals"),
        evaluations=evaluations,
        provenance=provenance,
    )


def _graft(options: argparse.Namespace) -> None:
    study, settings, provenance = open_study(options, seed=str(options.seed))
    device = device_of(study)
    from factrecall.experiments.grafting.stage import graft

    graft(
        **settings,
        **given(options, "base", "tuned", "seed", "split", "qa", "state"),
        **given(options, "out", "table", "examples", "checks"),
        device=device,
        checkpoint_interval_s=study.compute.checkpoint_interval_s,
        provenance=provenance,
    )


def _graft_without_shared(options: argparse.Namespace) -> None:
    study, settings, provenance = open_study(options)
    device = device_of(study)
    from factrecall.experiments.grafting.stage import graft_without_shared

    graft_without_shared(
        **settings,
        **given(options, "base", "tuned", "seed", "split", "sets", "qa", "state"),
        **given(options, "out", "table", "examples", "shares"),
        device=device,
        checkpoint_interval_s=study.compute.checkpoint_interval_s,
        provenance=provenance,
    )


def _summarise_grafting(options: argparse.Namespace) -> None:
    _, settings, provenance = open_study(options)
    from factrecall.experiments.grafting.stage import Graft, summarise_grafting

    grafts = [
        Graft(model, tuning, seed_of(seed), Path(table), split, *map(Path, others))
        for model, tuning, seed, split, table, *others in options.graft
    ]
    summarise_grafting(
        **settings, grafts=grafts, out=options.out, checks=options.checks, provenance=provenance
    )
