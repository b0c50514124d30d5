"""The report of a study from its results folder alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from factrecall.data.files import FactFiles
from factrecall.experiments.case_study.report import case_files
from factrecall.experiments.registry import stages
from factrecall.report.measures import TableFiles
from factrecall.report.page import write_report
from factrecall.report.shown import ModelFiles
from factrecall.report.timings import Timing
from factrecall.runs import job_name
from factrecall.vocabulary import TUNINGS

if TYPE_CHECKING:
    from factrecall.config.study import Study


def report_study(study: Study, *, results: Path, out: Path, provenance: Mapping[str, Any]) -> None:
    """Find a study's files by their fixed places and write its report.

    Parameters
    ----------
    study : Study
        The configuration.
    results : Path
        Its results folder, finished.
    out : Path
        The HTML file to write.
    provenance : mapping
        Code and versions, shown at the end.
    """
    runs = [(tuning, seed) for tuning in TUNINGS for seed in study.training.seeds]
    models = [
        ModelFiles(
            name=name,
            figures=results / "figures" / name,
            per_example={
                (t, s): results / "models" / name / t / f"seed{s}.recall.parquet" for t, s in runs
            },
            traces={
                (t, s): results / "traces" / name / t / f"seed{s}.safetensors" for t, s in runs
            },
            case={n: results / path for n, path in case_files(name).items()},
        )
        for name in study.models
    ]
    facts = results / "facts"
    write_report(
        study=study.model_dump(mode="json"),
        provenance=provenance,
        models=models,
        table_files=TableFiles.of(results / "tables"),
        facts=FactFiles(*(facts / f"{t}.parquet" for t in ("individuals", "bio", "qa"))),
        timings=list(_timings(study, results / "benchmarks")),
        out=out,
    )


def _timings(study: Study, folder: Path) -> Iterator[Timing]:
    """Yield the benchmarks that the workflow left, model by model; stages run by hand have none."""
    for model in (None, *study.models):
        for stage in stages().values():
            if stage.name.startswith("summarise-") or stage.module.startswith("report."):
                continue
            for run in stage.per(study):
                file = folder / f"{job_name(stage.rule, run)}.tsv"
                if run.get("model") != model or run.get("tuning") == "base" or not file.exists():
                    continue
                label = ", ".join([stage.rule, *(run[n] for n in ("kind", "ranking") if n in run)])
                yield Timing(label, model, run.get("tuning"), run.get("seed"), file)
