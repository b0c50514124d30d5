"""The sections of the report, in the order of the page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from factrecall.experiments.ablation.report import SECTION as ABLATION
from factrecall.experiments.attribution.report import SECTION as ATTRIBUTION
from factrecall.experiments.case_study.report import SECTION as CASE_STUDY
from factrecall.experiments.circuits.report import SECTION as CIRCUITS
from factrecall.experiments.gradient_similarity.report import SECTION as GRADIENT_SIMILARITY
from factrecall.experiments.grafting.report import SECTION as GRAFTING
from factrecall.experiments.layer_ablation.report import SECTION as LAYER_ABLATION
from factrecall.experiments.recall.report import SECTION as RECALL
from factrecall.experiments.representations.report import SECTION as REPRESENTATIONS
from factrecall.experiments.shared_parameters.report import SECTION as SHARED_PARAMETERS
from factrecall.report.section import Section

if TYPE_CHECKING:
    from factrecall.config.study import Study

SECTIONS: tuple[Section, ...] = (
    RECALL,
    SHARED_PARAMETERS,
    ABLATION,
    LAYER_ABLATION,
    GRAFTING,
    CIRCUITS,
    CASE_STUDY,
    REPRESENTATIONS,
    GRADIENT_SIMILARITY,
    ATTRIBUTION,
)
"""Each experiment is imported above and named here."""

FIGURES = tuple(figure.name for section in SECTIONS for figure in section.figures)
SUFFIXES = (".png", ".svg", ".parquet")


def inputs(study: Study, model: str) -> list[str]:
    """Return all files that the sections read of a model, below the results folder."""
    files = (path for s in SECTIONS for path in s.request(study, model)["files"].values())
    return list(dict.fromkeys(files))
