"""The stages of the report: the figures of one model, and the page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from factrecall.runs import kinds_of, models
from factrecall.runtime.job import Job
from factrecall.runtime.stage import FIGURES, Folder, Output, stage
from factrecall.vocabulary import NodeKind

if TYPE_CHECKING:
    from factrecall.config.study import Study


def _published(study: Study, model: str) -> str | None:
    """Return the paper's model to show beside one of the study's."""
    from factrecall.report.published import counterpart

    return counterpart(study.models[model].model_dump(mode="json"))


def shown_kind(study: Study) -> NodeKind:
    """Return whose continuity is shown: the MLP's if it is intervened on."""
    return next((kind for kind in kinds_of(study) if kind != "attention"), "attention")


@stage(
    "draw-figures",
    settings=lambda study, model: {
        "published_model": _published(study, model),
        "seeds": study.training.seeds,
        "shown": shown_kind(study),
        "k": study.shared.k,
        "influence": study.shared.influence,
        "recovery": study.grafting.target_recovery,
    },
    libraries=FIGURES,
    per=models,
)
def draw_figures(
    job: Job,
    *,
    model: str,
    results: Folder,
    out: Output,
    published_model: str | None,
    seeds: list[int],
    shown: NodeKind,
    k: int | float,
    influence: str,
    recovery: float,
) -> None:
    """Draw all figures of a model.

    Parameters
    ----------
    model
        Its name in the study.
    out
        the folder to write to
    """
    from factrecall.experiments.case_study.report import case_files
    from factrecall.report import figures
    from factrecall.vocabulary import TUNINGS

    names = {
        **{n: n for n in ("recall", "shared", "ablation", "grafting", "interventions", "heads")},
        "places": "shared_locations",
        "checks": "grafting_checks",
    }
    tables = results / "tables"
    sweep = results / f"circuits/{model}/mix/seed{seeds[0]}.{shown}.shared"
    figures.draw_figures(
        model,
        k,
        influence,
        recovery,
        **{name: tables / f"{file}.parquet" for name, file in names.items()},
        kind=shown,
        sweep={name: sweep.with_name(sweep.name + s) for name, s in _SWEEP.items()},
        case={name: results / path for name, path in case_files(model).items()},
        representations={name: tables / f"{name}.parquet" for name in _REPRESENTATIONS},
        histories=[
            (tuning, seed, results / f"models/{model}/{tuning}/seed{seed}.history.parquet")
            for tuning in TUNINGS
            for seed in seeds
        ],
        out=out,
        published_model=published_model,
    )


_SWEEP = {"sweep_steps": ".parquet", "sweep_questions": ".questions.parquet"}
_REPRESENTATIONS = ("probes", "consistency", "gradients", "attribution", "patching")


@stage(
    "write-report",
    settings=lambda study: {"study": study.model_copy(update={"compute": None})},
    libraries=("jinja2", *FIGURES),
)
def write_report(job: Job, *, results: Folder, out: Output, study: Study) -> None:
    """Write the report of a study.

    Parameters
    ----------
    out
        the HTML file to write
    """
    from factrecall.report.study import report_study

    # The report shows the configuration itself.
    provenance = {name: value for name, value in job.provenance.items() if name != "settings"}
    report_study(study, results=results, out=out, provenance=provenance)
