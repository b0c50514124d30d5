"""The stage of gradient similarity."""

from __future__ import annotations

from typing import TYPE_CHECKING

from factrecall.experiments.gradient_similarity.runs import Moment
from factrecall.runs import histories
from factrecall.runtime.job import Job
from factrecall.runtime.stage import EXPERIMENTS, Input, Output, stage

if TYPE_CHECKING:
    from factrecall.config.training import TraceSettings
    from factrecall.experiments.gradient_similarity.settings import GradientSimilaritySettings


@stage(
    "gradient-similarity",
    settings=lambda study: {
        "gradients": study.representations.gradient_similarity,
        "tracing": study.trace.model_copy(update={"top_fraction": None, "checkpoints": None}),
    },
    libraries=EXPERIMENTS,
    per=histories,
    device="model",
)
def gradient_similarity(
    job: Job,
    *,
    moments: list[Moment],
    sets: Input,
    masks: Input,
    outcomes: Input,
    facts: list[Input],
    out: Output,
    gradients: GradientSimilaritySettings,
    tracing: TraceSettings,
    study_seed: int,
) -> None:
    """Compare the gradients of a fact's statement (BIO) and question (QA).

    Parameters
    ----------
    moments
        a model folder or snapshot of the training history; give all in order, θpre first
    out
        the per-fact table to write
    """
    from factrecall.data.files import FactFiles
    from factrecall.experiments.gradient_similarity.compute import gradient_table
    from factrecall.experiments.gradient_similarity.tables import GRADIENTS

    table = gradient_table(
        gradients,
        tracing,
        study_seed,
        moments=moments,
        sets=sets,
        masks=masks,
        outcomes=outcomes,
        facts=FactFiles.of(facts),
        device=job.device,
    )
    job.write(out, table, GRADIENTS)
