"""The report of a study: its sections in the order of the page, and the stages that make it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from factrecall.experiments.ablation.report import SECTION as ABLATION
from factrecall.experiments.attribution.report import SECTION as ATTRIBUTION
from factrecall.experiments.case_study.report import SECTION as CASE_STUDY
from factrecall.experiments.circuits.report import SECTION as CIRCUITS
from factrecall.experiments.gradient_similarity.report import SECTION as GRADIENTS
from factrecall.experiments.grafting.report import SECTION as GRAFTING
from factrecall.experiments.layer_ablation.report import SECTION as LAYER_ABLATION
from factrecall.experiments.recall.examples import examples
from factrecall.experiments.recall.report import SECTION as RECALL
from factrecall.experiments.representations.report import SECTION as REPRESENTATIONS
from factrecall.experiments.shared_parameters.report import SECTION as SHARED_PARAMETERS
from factrecall.report.page import write_page
from factrecall.report.timings import Timing
from factrecall.runs import job_name, models
from factrecall.runtime.job import Job
from factrecall.runtime.stage import FIGURES as FIGURE_LIBRARIES
from factrecall.runtime.stage import Folder, Output, stage

if TYPE_CHECKING:
    from factrecall.config.study import Study

SECTIONS = (
    RECALL,
    SHARED_PARAMETERS,
    ABLATION,
    LAYER_ABLATION,
    GRAFTING,
    CIRCUITS,
    CASE_STUDY,
    REPRESENTATIONS,
    GRADIENTS,
    ATTRIBUTION,
)

FIGURES = tuple(figure.name for section in SECTIONS for figure in section.figures)
SUFFIXES = (".png", ".svg", ".parquet")


def inputs(study: Study, model: str) -> list[str]:
    """Return all files that the sections read of a model, below the results folder."""
    files = (path for s in SECTIONS for path in s.request(study, model)["files"].values())
    return list(dict.fromkeys(files))


@stage(
    "draw-figures",
    settings=lambda study, model: {
        "sections": {section.name: section.request(study, model) for section in SECTIONS}
    },
    libraries=FIGURE_LIBRARIES,
    per=models,
)
def draw_figures(
    job: Job, *, model: str, results: Folder, out: Output, sections: dict[str, dict[str, Any]]
) -> None:
    """Draw all figures of a model.

    Parameters
    ----------
    model
        Its name in the study.
    results
        the study's results folder, with all tables
    out
        the folder to write to
    sections
        What each section may read, and know of the configuration (see `Section.request`).
    """
    for section in SECTIONS:
        with section.explained():
            section.draw(section.measures(sections[section.name], results), out)


@stage(
    "write-report",
    settings=lambda study: {"study": study.model_copy(update={"compute": None})},
    libraries=("jinja2", *FIGURE_LIBRARIES),
)
def write_report(job: Job, *, results: Folder, out: Output, study: Study) -> None:
    """Write the report of a study.

    Parameters
    ----------
    results
        the study's results folder, with all tables and figures
    out
        the HTML file to write
    study
        What the configuration says.
    """
    write_page(
        SECTIONS,
        study,
        results=results,
        sizes={name: _size(study, name, results) for name in study.models},
        examples=examples(study, results),
        timings=list(timings(study, results / "benchmarks")),
        # The report shows the configuration itself.
        provenance={name: value for name, value in job.provenance.items() if name != "settings"},
        out=out,
    )


def timings(study: Study, folder: Path) -> Iterator[Timing]:
    """Yield the benchmarks that the workflow left, model by model; stages run by hand have none."""
    from factrecall.experiments.registry import stages

    for model in (None, *study.models):
        for declared in stages().values():
            if declared.name.startswith("summarise-") or declared.module == "experiments.report":
                continue
            for run in declared.per(study):
                file = folder / f"{job_name(declared.rule, run)}.tsv"
                if run.get("model") != model or run.get("tuning") == "base" or not file.exists():
                    continue
                kinds = (run[name] for name in ("kind", "ranking") if name in run)
                label = ", ".join([declared.rule, *kinds])
                yield Timing(label, model or "", run.get("tuning") or "", file)


def _size(study: Study, model: str, results: Path) -> int:
    """Return the number of a model's parameters; 0 if it is not known."""
    request = SHARED_PARAMETERS.request(study, model)
    return int(SHARED_PARAMETERS.measures(request, results).parameters)
