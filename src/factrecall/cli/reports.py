"""Commands that check a study's files and show what came out of it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from factrecall.cli.common import Command, open_study, seed_of

_TABLES = {
    "recall": "recall",
    "shared": "how many parameters are shared",
    "places": "where shared parameters are",
    "ablation": "ablations",
    "grafting": "grafted masks",
    "checks": "what speaks for and against the masks",
    "interventions": "interventions on nodes",
    "heads": "attention nodes",
}
"""The tables that figures are drawn from, as options, and what is in each."""


def add(commands: Any) -> None:
    """Add the commands of this module."""
    validate = Command(
        commands, "validate", _validate, "check study files and say what is wrong", study=False
    )
    validate.parser.add_argument("study", type=Path, nargs="+", help="study files (YAML)")

    why = Command(
        commands, "why", _why, "say why the workflow would make something again", study=False
    )
    why.parser.add_argument("target", nargs="*", help="files of the study; none: all of it")
    why.parser.add_argument(
        "--configfile",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="study files, as for snakemake, behind the targets; none: config.yaml",
    )

    figures = Command(commands, "draw-figures", _draw_figures, "draw the figures of a model")
    figures.model()
    for table, holds in _TABLES.items():
        figures.path(f"--{table}", f"the study's table of {holds}")
    figures.each(
        "--history",
        ("TUNING", "SEED", "TABLE"),
        "a table of losses; give one for each tuning and seed",
    )
    figures.path(
        "--sweep",
        "the interventions whose continuity is shown",
        nargs=3,
        metavar=("KIND", "STEPS", "QUESTIONS"),
    )
    figures.path(
        "--case",
        "the tables of the case study",
        nargs=5,
        metavar=("CASE", "TOKENS", "ATTENTION", "LOGITS", "LOOKS"),
    )
    figures.path(
        "--representations",
        "the study's tables on representations",
        nargs=5,
        metavar=("PROBES", "CONSISTENCY", "GRADIENTS", "SIGNATURE", "PATCHING"),
    )
    figures.output("--out", "the folder to write to")

    report = Command(commands, "write-report", _write_report, "write the report of a study")
    report.path("--results", "the study's results folder")
    report.output("--out", "the HTML file to write")


def _validate(options: argparse.Namespace) -> None:
    from factrecall.config.reading import read_study

    for path in options.study:
        study = read_study(path)
        print(f"{path}: study {study.name!r} is valid")


def _why(options: argparse.Namespace) -> None:
    from factrecall.workflow.explain_rerun import explain

    print(explain(options.target, options.configfile))


def _draw_figures(options: argparse.Namespace) -> None:
    _, settings, _ = open_study(options, model=options.model)
    from factrecall.experiments.case_study.data import CaseFiles
    from factrecall.experiments.circuits.continuity_figure import SweepFiles
    from factrecall.experiments.representations.measures import RepresentationFiles
    from factrecall.report.figures import draw_figures

    kind, *sweep = options.sweep
    histories = [(tuning, seed_of(seed), Path(path)) for tuning, seed, path in options.history]
    tables = {table: getattr(options, table) for table in _TABLES}
    draw_figures(
        **settings,
        **tables,
        sweep=SweepFiles(str(kind), *sweep),
        case=CaseFiles(*options.case),
        representations=RepresentationFiles(*options.representations),
        histories=histories,
        out=options.out,
    )


def _write_report(options: argparse.Namespace) -> None:
    _, settings, provenance = open_study(options)
    from factrecall.report.study import report_study

    del provenance["settings"]  # the report shows the configuration itself
    report_study(**settings, results=options.results, out=options.out, provenance=provenance)
