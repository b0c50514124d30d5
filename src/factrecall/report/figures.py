"""The figures of one model, each with its data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from factrecall.experiments.ablation.report import SECTION as ABLATION
from factrecall.experiments.attribution.report import SECTION as ATTRIBUTION
from factrecall.experiments.case_study.report import SECTION as CASE_STUDY
from factrecall.experiments.circuits.report import SECTION as CIRCUITS
from factrecall.experiments.gradient_similarity.report import SECTION as GRADIENTS
from factrecall.experiments.grafting.figures import draw_grafting, draw_grafting_size
from factrecall.experiments.grafting.overlap_figure import draw_grafting_overlap
from factrecall.experiments.recall.figures import draw_recall, draw_recall_by_relation
from factrecall.experiments.recall.loss_figure import draw_loss
from factrecall.experiments.representations.report import SECTION as REPRESENTATIONS
from factrecall.experiments.shared_parameters.figures import draw_shared, draw_shared_places
from factrecall.report.measures import read_measures
from factrecall.report.summaries import read_recall


def draw_figures(
    model: str,
    k: int | float,
    influence: str,
    recovery: float,
    *,
    recall: Path,
    shared: Path,
    places: Path,
    ablation: Path,
    grafting: Path,
    checks: Path,
    interventions: Path,
    heads: Path,
    kind: str,
    sweep: Mapping[str, Path],
    case: Mapping[str, Path],
    representations: Mapping[str, Path],
    histories: Iterable[tuple[str, int, Path]],
    out: Path,
    published_model: str | None = None,
) -> None:
    """Draw all figures of a model: ``<out>/<figure><suffix>``, see `names`.

    Parameters
    ----------
    model : str
        Its name in the study.
    k, influence, recovery
        What the configuration says (shared.k, shared.influence, grafting.target_recovery).
    recall, shared, places, ablation, grafting, checks, interventions, heads : Path
        The study's tables.
    kind, sweep : str, mapping of str to Path
        The interventions whose continuity is shown.
    case : mapping of str to Path
        The tables of the model's attention case study.
    representations : mapping of str to Path
        The study's tables on representations, by name.
    histories : iterable of (tuning, seed, Path)
        The model's training histories.
    out : Path
        Folder of this model's figures; made if need be.
    published_model : str, optional
        The paper's model to show beside it (see `published.counterpart`).

    Raises
    ------
    FactRecallError
        When an input is missing, damaged or holds nothing on the model's recall.
    """
    table = read_recall(recall, model)
    draw_recall(table, out / "recall")
    draw_recall_by_relation(table, out / "recall_by_relation", published_model)
    draw_loss(histories, out / "loss")
    files = {
        "shared": shared,
        "shared_locations": places,
        "ablation": ablation,
        "grafting": grafting,
        "grafting_checks": checks,
    }
    measures = read_measures(files, model, k=k, influence=influence, recovery=recovery)
    draw_shared(measures, out / "shared")
    draw_shared_places(measures, out / "shared_places")
    inputs = {"ablation": ablation, "recall": recall}
    ABLATION.draw(ABLATION.read(model, inputs, {}, published_model), out)
    draw_grafting(measures, out / "grafting")
    draw_grafting_size(measures, out / "grafting_size")
    draw_grafting_overlap(measures, out / "grafting_overlap")
    inputs = {"interventions": interventions, "heads": heads, **sweep}
    circuits = CIRCUITS.read(
        model=model, files=inputs, settings={"kind": kind}, published_model=published_model
    )
    CIRCUITS.draw(circuits, out)
    CASE_STUDY.draw(CASE_STUDY.read(model=model, files=case), out)
    for section in (REPRESENTATIONS, GRADIENTS, ATTRIBUTION):
        section.draw(section.read(model, representations, {}, published_model), out)
