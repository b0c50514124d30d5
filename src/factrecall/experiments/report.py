"""The stages of the report: figures, verdicts on all claims, and the page (see `sections`)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from factrecall.runs import job_name, models
from factrecall.runtime.job import Job
from factrecall.runtime.stage import FIGURES as FIGURE_LIBRARIES
from factrecall.runtime.stage import TABLES, Folder, Output, stage

if TYPE_CHECKING:
    from factrecall.config.study import Study
    from factrecall.report.timings import Timing


def _requests(study: Study, model: str) -> dict[str, Any]:
    from factrecall.experiments.sections import SECTIONS

    return {section.name: section.request(study, model) for section in SECTIONS}


@stage(
    "draw-figures",
    settings=lambda study, model: {"sections": _requests(study, model)},
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
    from factrecall.experiments.sections import SECTIONS

    for section in SECTIONS:
        with section.explained():
            section.draw(section.measures(sections[section.name], results), out)


@stage(
    "judge-claims",
    settings=lambda study: {"sections": {m: _requests(study, m) for m in study.models}},
    libraries=TABLES,
)
def judge_claims(
    job: Job, *, results: Folder, out: Output, sections: dict[str, dict[str, dict[str, Any]]]
) -> None:
    """Judge all claims on all models.

    Parameters
    ----------
    results
        the study's results folder, with all tables
    out
        the table of claims to write
    sections
        By model: what each section may read, and know of the configuration.
    """
    import pandas as pd

    from factrecall.experiments.sections import SECTIONS
    from factrecall.report.ledger import CLAIMS

    found = []
    for requests in sections.values():
        for section in SECTIONS:
            with section.explained():
                found += section.judged(section.measures(requests[section.name], results))
    job.write(out, pd.DataFrame(found, columns=list(CLAIMS)), CLAIMS)


@stage(
    "write-report",
    settings=lambda study: {"study": study.model_copy(update={"compute": None})},
    libraries=("jinja2", *FIGURE_LIBRARIES),
)
def write_report(job: Job, *, results: Folder, out: Output, captions: Output, study: Study) -> None:
    """Write the report of a study, and the captions of its figures for that of Snakemake.

    Parameters
    ----------
    results
        the study's results folder, with all tables and figures
    out
        the HTML file to write
    captions
        the folder to write a caption of each figure to
    study
        What the configuration says.
    """
    from factrecall.experiments.recall.examples import examples
    from factrecall.experiments.sections import SECTIONS
    from factrecall.report.captions import write_captions
    from factrecall.report.page import write_page

    write_page(
        SECTIONS,
        study,
        results=results,
        sizes={name: _size(study, name, results) for name in study.models},
        formats={name: _format(study, name, results) for name in study.models},
        examples=examples(study, results),
        timings=list(timings(study, results / "benchmarks")),
        # The report shows the configuration itself.
        provenance={name: value for name, value in job.provenance.items() if name != "settings"},
        out=out,
    )
    write_captions(SECTIONS, study, results=results, out=captions)


def timings(study: Study, folder: Path) -> Iterator[Timing]:
    """Yield the benchmarks that the workflow left, model by model; stages run by hand have none."""
    from factrecall.experiments.registry import stages
    from factrecall.report.timings import Timing

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
    from factrecall.experiments.shared_parameters.report import SECTION as SHARED_PARAMETERS

    request = SHARED_PARAMETERS.request(study, model)
    return int(SHARED_PARAMETERS.measures(request, results).parameters)


def _format(study: Study, model: str, results: Path) -> str:
    """Return how a GGUF file stored a model's weights; nothing for other models."""
    from factrecall.models.gguf_header import ORIGIN

    config = results / f"models/{model}/base/seed{study.seed}/config.json"
    try:
        return str(json.loads(config.read_text(encoding="utf-8")).get(ORIGIN, ""))
    except (OSError, ValueError, AttributeError):  # the report is written without models, too
        return ""
