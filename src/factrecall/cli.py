"""The command line: one subcommand a stage, each also one workflow rule.

Everything heavy is imported by the command that needs it, so that ``--help`` and ``validate``
answer at once. A user's mistake ends with one message and exit code 2, never a traceback.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from factrecall.errors import EXIT_CODE, FactRecallError

if TYPE_CHECKING:
    import torch

    from factrecall.config import Study


SOURCES = {"pretrain": ("scratch",), "fetch-model": ("hub", "folder")}
"""Commands that are for models of some sources only."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except FactRecallError as error:
        print(f"factrecall: {error}", file=sys.stderr)
        return EXIT_CODE
    except KeyboardInterrupt:
        print("factrecall: interrupted; run again to go on", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    return 0


# --- commands ---------------------------------------------------------------------------------


def _validate(options: argparse.Namespace) -> None:
    from factrecall.config.reading import read_study

    for path in options.study:
        study = read_study(path)
        print(f"{path}: study {study.name!r} is valid")


def _make_facts(options: argparse.Namespace) -> None:
    _, settings, provenance = _open(options)
    from factrecall.facts.forms import BIO_COLUMNS, INDIVIDUAL_COLUMNS, QA_COLUMNS
    from factrecall.facts.tables import make_facts
    from factrecall.storage import write_table

    facts = make_facts(**settings)
    write_table(options.individuals, facts.individuals, INDIVIDUAL_COLUMNS, provenance)
    write_table(options.bio, facts.bio, BIO_COLUMNS, provenance)
    write_table(options.qa, facts.qa, QA_COLUMNS, provenance)


def _pretrain(options: argparse.Namespace) -> None:
    study, settings, provenance = _open(options, model=options.model)
    device = _device(study)
    from factrecall.facts.forms import FactFiles
    from factrecall.training.pretrain import pretrain

    pretrain(
        **settings,
        facts=FactFiles(*options.facts),
        out=options.out,
        history=options.history,
        state=options.state,
        device=device,
        save_seconds=study.compute.save_seconds,
        provenance=provenance,
    )


def _fetch_model(options: argparse.Namespace) -> None:
    _, settings, _ = _open(options, model=options.model)
    from factrecall.models.origin import fetch

    fetch(**settings, locks=options.locks, out=options.out)


def _fine_tune(options: argparse.Namespace) -> None:
    study, settings, provenance = _open(options, model=options.model, tuning=options.tuning)
    device = _device(study)
    from factrecall.facts.forms import FactFiles
    from factrecall.training.finetune import fine_tune

    fine_tune(
        **settings,
        tuning=options.tuning,
        seed=options.seed,
        start=options.start,
        facts=FactFiles(*options.facts),
        out=options.out,
        history=options.history,
        traced=options.trace,
        state=options.state,
        device=device,
        save_seconds=study.compute.save_seconds,
        provenance=provenance,
    )


def _recall(options: argparse.Namespace) -> None:
    study, settings, provenance = _open(options)
    device = _device(study)
    from factrecall.recall import recall

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
    study, _, provenance = _open(options)
    from factrecall.recall import Evaluation, summarise_recall

    evaluations = [
        Evaluation(model, tuning, _seed(seed), Path(path))
        for model, tuning, seed, path in options.evaluation
    ]
    summarise_recall(evaluations, options.qa, options.out, study.seed, provenance)


def _draw_figures(options: argparse.Namespace) -> None:
    _, settings, _ = _open(options, model=options.model)
    from factrecall.report.figures import draw_figures

    histories = [(tuning, _seed(seed), Path(path)) for tuning, seed, path in options.history]
    draw_figures(**settings, recall=options.recall, histories=histories, out=options.out)


def _write_report(options: argparse.Namespace) -> None:
    _, settings, provenance = _open(options)
    from factrecall.report.study import report_study

    del provenance["settings"]  # the report shows the configuration itself
    report_study(**settings, results=options.results, out=options.out, provenance=provenance)


# --- helpers ----------------------------------------------------------------------------------


def _open(
    options: argparse.Namespace, **wildcards: str
) -> tuple[Study, dict[str, Any], dict[str, Any]]:
    """Read the study; return it with the command's settings and provenance."""
    from factrecall.config.reading import read_study
    from factrecall.stages import parameters, settings

    study = read_study(options.study)
    model = wildcards.get("model")
    if model is not None and model not in study.models:
        raise FactRecallError(
            f"--model {model}",
            f"the study has no such model (it has: {', '.join(study.models)})",
            "name one of them",
        )
    sources = SOURCES.get(options.command)
    if sources and study.models[str(model)].source not in sources:
        raise FactRecallError(
            f"--model {model}",
            f"its source is {study.models[str(model)].source}, {options.command} takes only: "
            f"{', '.join(sources)}",
            "fetch-model fetches pre-trained models, pretrain builds those from scratch",
        )
    return (
        study,
        settings(study, options.command, **wildcards),
        parameters(study, options.command, **wildcards),
    )


def _seed(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        remedy = "give a whole number as third part of --evaluation, as second of --history"
        raise FactRecallError(f"seed {text!r}", "it is no whole number", remedy) from None


def _device(study: Study) -> torch.device:
    """Set threads and determinism, then choose the device."""
    # Set before the libraries load: the number of threads decides how sums are split, and so
    # their last bits.
    os.environ["OMP_NUM_THREADS"] = str(study.compute.threads)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    import torch

    torch.set_num_threads(study.compute.threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    from factrecall.models.load import choose_device

    return choose_device(study.compute.device)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="factrecall",
        description="How do language models come to recall facts, and which weights do it? "
        "Each command is a stage of a study; `make run` or `snakemake` runs them all in order.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run: Any, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(run=run)
        return added

    def study_option(to: argparse.ArgumentParser) -> None:
        to.add_argument("--study", type=Path, required=True, help="the study's YAML or JSON file")

    def facts_option(to: argparse.ArgumentParser) -> None:
        to.add_argument(
            "--facts",
            type=Path,
            nargs=3,
            required=True,
            metavar=("INDIVIDUALS", "BIO", "QA"),
            help="the three tables of facts",
        )

    def path(to: argparse.ArgumentParser, name: str, text: str) -> None:
        to.add_argument(name, type=Path, required=True, help=text)

    validate = command("validate", _validate, "check study files and say what is wrong")
    validate.add_argument("study", type=Path, nargs="+", help="study files (YAML)")

    facts = command("make-facts", _make_facts, "invent people, write biographies and questions")
    study_option(facts)
    for table in ("individuals", "bio", "qa"):
        path(facts, f"--{table}", f"the {table} table to write")

    for name, run, text in (
        ("pretrain", _pretrain, "build a small model and pre-train it on other people"),
        ("fine-tune", _fine_tune, "fine-tune a model and trace its gradients"),
    ):
        train = command(name, run, text)
        study_option(train)
        train.add_argument("--model", required=True, help="the model's name in the study")
        facts_option(train)
        path(train, "--out", "the model folder to write")
        path(train, "--history", "the table of losses to write")
        path(train, "--state", "folder where an interrupted run keeps its state")
        if name == "fine-tune":
            train.add_argument(
                "--tuning", required=True, choices=("bio", "stage", "mix"), help="what is learnt"
            )
            train.add_argument("--seed", type=int, required=True, help="of the order of examples")
            path(train, "--start", "the model folder to start from")
            path(train, "--trace", "the gradient trace to write")

    fetch = command("fetch-model", _fetch_model, "copy a pre-trained model, checked by its lock")
    study_option(fetch)
    fetch.add_argument("--model", required=True, help="the model's name in the study")
    path(fetch, "--locks", "folder of the models locks")
    path(fetch, "--out", "the model folder to write")

    recall = command("recall", _recall, "ask a model for every fact")
    study_option(recall)
    path(recall, "--folder", "the model folder")
    path(recall, "--bio", "the bio table")
    path(recall, "--qa", "the qa table")
    path(recall, "--out", "the per-example table to write")

    summary = command("summarise-recall", _summarise_recall, "count what was recalled")
    study_option(summary)
    path(summary, "--qa", "the qa table, for the majority baseline")
    summary.add_argument(
        "--evaluation",
        nargs=4,
        action="append",
        required=True,
        metavar=("MODEL", "TUNING", "SEED", "TABLE"),
        help="a per-example table; give one for each model, tuning and seed",
    )
    path(summary, "--out", "the table to write")

    figures = command("draw-figures", _draw_figures, "draw the figures of a model")
    study_option(figures)
    figures.add_argument("--model", required=True, help="the model's name in the study")
    path(figures, "--recall", "the study's table of recall")
    figures.add_argument(
        "--history",
        nargs=3,
        action="append",
        required=True,
        metavar=("TUNING", "SEED", "TABLE"),
        help="a table of losses; give one for each tuning and seed",
    )
    path(figures, "--out", "the folder to write to")

    report = command("write-report", _write_report, "write the report of a study")
    study_option(report)
    path(report, "--results", "the study's results folder")
    path(report, "--out", "the HTML file to write")
    return parser
