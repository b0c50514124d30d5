"""The report of a study from its results folder alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from factrecall.data.files import FactFiles
from factrecall.experiments.case_study.data import CaseFiles
from factrecall.report.measures import SPLIT_NAMES, TableFiles
from factrecall.report.page import write_report
from factrecall.report.shown import ModelFiles
from factrecall.report.timings import Timing
from factrecall.runs import RANKINGS
from factrecall.vocabulary import COMPARED, NODE_KINDS, TUNINGS

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
            case=CaseFiles.of(results / "case" / name),
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
    """Yield the benchmarks the workflow left; a stage run by hand has none."""
    found = [Timing("make_facts", None, None, None, folder / "make_facts.tsv")]
    kinds = [kind for kind in NODE_KINDS if getattr(study.circuits, kind) is not None]
    for model in study.models:
        for stage in ("pretrain", "fetch_model"):
            found.append(Timing(stage, model, None, None, folder / stage / f"{model}.tsv"))
        for stage in ("fine_tune", "recall"):
            for tuning in TUNINGS:
                for seed in study.training.seeds:
                    file = folder / stage / model / f"{tuning}-seed{seed}.tsv"
                    found.append(Timing(stage, model, tuning, seed, file))
        for tuning in COMPARED:
            for seed in study.training.seeds:
                run = f"{model}/{tuning}-seed{seed}"
                for stage in ("select_shared", "ablate"):
                    found.append(Timing(stage, model, tuning, seed, folder / stage / f"{run}.tsv"))
                for stage in ("graft", "graft_without_shared"):
                    for split in SPLIT_NAMES:
                        file = folder / stage / f"{run}-{split}.tsv"
                        found.append(Timing(stage, model, tuning, seed, file))
                for kind, ranking in product(kinds, RANKINGS):
                    file = folder / "intervene" / f"{run}-{kind}-{ranking}.tsv"
                    found.append(Timing(f"intervene, {kind}, {ranking}", model, tuning, seed, file))
                for stage in ("capture", "probe", "gradient_similarity"):
                    found.append(Timing(stage, model, tuning, seed, folder / stage / f"{run}.tsv"))
        found.append(
            Timing(
                "attention_case_study",
                model,
                None,
                None,
                folder / "attention_case_study" / f"{model}.tsv",
            )
        )
    return (timing for timing in found if timing.path.exists())
