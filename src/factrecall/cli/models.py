"""Commands that make facts and models, and ask models what they recall."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from factrecall.cli.common import Command, device_of, open_study, seed_of, shared


def add(commands: Any) -> None:
    """Add the commands of this module."""
    facts = Command(commands, "make-facts", _make_facts, "invent people, biographies, questions")
    for table in ("individuals", "bio", "qa"):
        facts.output(f"--{table}", f"the {table} table to write")

    fetch = Command(
        commands, "fetch-model", _fetch_model, "copy a pre-trained model, checked by its lock"
    )
    fetch.model()
    fetch.path("--locks", "folder of the models locks")
    fetch.output("--out", "the model folder to write")

    pretrain = Command(
        commands, "pretrain", _pretrain, "build a small model and pre-train it on other people"
    )
    tune = Command(commands, "fine-tune", _fine_tune, "fine-tune a model and trace its gradients")
    tune.tuning("bio", "stage", "mix")
    tune.path("--start", "the model folder to start from")
    tune.output("--trace", "the gradient trace to write")
    tune.path("--snapshots", "the snapshots to write, first moment first", nargs="*")
    for train in (pretrain, tune):
        train.model()
        train.facts()
        train.output("--out", "the model folder to write")
        train.output("--history", "the table of losses to write")
        train.path("--state", "folder where an interrupted run keeps its state")

    recall = Command(commands, "recall", _recall, "ask a model for every fact")
    recall.path("--folder", "the model folder")
    recall.path("--bio", "the bio table")
    recall.path("--qa", "the qa table")
    recall.output("--out", "the per-example table to write")

    summary = Command(commands, "summarise-recall", _summarise_recall, "count what was recalled")
    summary.path("--qa", "the qa table, for the majority baseline")
    summary.each(
        "--evaluation",
        ("MODEL", "TUNING", "SEED", "TABLE"),
        "a per-example table; give one for each model, tuning and seed",
    )
    summary.output("--out", "the table to write")


def _make_facts(options: argparse.Namespace) -> None:
    _, settings, provenance = open_study(options)
    from factrecall.data.files import BIO_COLUMNS, INDIVIDUAL_COLUMNS, QA_COLUMNS
    from factrecall.data.tables import make_facts
    from factrecall.runtime.storage import write_table

    facts = make_facts(**settings)
    write_table(options.individuals, facts.individuals, INDIVIDUAL_COLUMNS, provenance)
    write_table(options.bio, facts.bio, BIO_COLUMNS, provenance)
    write_table(options.qa, facts.qa, QA_COLUMNS, provenance)


def _pretrain(options: argparse.Namespace) -> None:
    study, settings, provenance = open_study(options, model=options.model)
    device = device_of(study, study.compute.pretrain_threads)
    from factrecall.cost.execution_choice import resolve
    from factrecall.cost.shapes import Shape
    from factrecall.data.files import FactFiles
    from factrecall.training.pretraining import pretrain

    with shared(options, device, 1) as here:
        if not here:
            return
        scratch = settings["settings"]
        shape = Shape.of_scratch(scratch, scratch.vocabulary)
        settings["mode"] = mode = resolve(study, shape, scratch.pretrain, "base", device)
        pretrain(
            **settings,
            facts=FactFiles(*options.facts),
            out=options.out,
            history=options.history,
            state=options.state,
            device=device,
            checkpoint_interval_s=study.compute.checkpoint_interval_s,
            provenance={**provenance, "mode": asdict(mode)},
        )


def _fetch_model(options: argparse.Namespace) -> None:
    _, settings, _ = open_study(options, model=options.model)
    from transformers import AutoConfig

    from factrecall.models.architectures import architecture_of
    from factrecall.models.sources import fetch

    fetch(**settings, locks=options.locks, out=options.out)
    # Told before anything is trained. Not part of the stage: a new architecture in the table must
    # not fetch, and so train, all models again.
    architecture_of(AutoConfig.from_pretrained(options.out, local_files_only=True))


def _fine_tune(options: argparse.Namespace) -> None:
    study, settings, provenance = open_study(options, model=options.model, tuning=options.tuning)
    device = device_of(study)
    from factrecall.cost.execution_choice import resolve
    from factrecall.cost.models import shape_of_folder
    from factrecall.data.files import FactFiles
    from factrecall.training.fine_tuning import fine_tune

    with shared(options, device, study.training.mode.gpus) as here:
        if not here:
            return
        recipe, (shape, _) = settings["recipe"], shape_of_folder(options.start)
        settings["mode"] = mode = resolve(study, shape, recipe, options.tuning, device)
        fine_tune(
            **settings,
            tuning=options.tuning,
            seed=options.seed,
            start=options.start,
            facts=FactFiles(*options.facts),
            out=options.out,
            history=options.history,
            traced=options.trace,
            snapshots=options.snapshots,
            state=options.state,
            device=device,
            checkpoint_interval_s=study.compute.checkpoint_interval_s,
            provenance={**provenance, "mode": asdict(mode)},
        )


def _recall(options: argparse.Namespace) -> None:
    study, settings, provenance = open_study(options)
    device = device_of(study)
    from factrecall.evaluation.exact_match import recall

    recall(
        **settings,
        model=options.folder,
        bio=options.bio,
        qa=options.qa,
        out=options.out,
        device=device,
        provenance=provenance,
    )


def _summarise_recall(options: argparse.Namespace) -> None:
    study, _, provenance = open_study(options)
    from factrecall.evaluation.exact_match import Evaluation, summarise_recall

    evaluations = [
        Evaluation(model, tuning, seed_of(seed), Path(path))
        for model, tuning, seed, path in options.evaluation
    ]
    summarise_recall(evaluations, options.qa, options.out, study.seed, provenance)
