"""The stage that fetches a pre-trained model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from factrecall.runs import fetched_models
from factrecall.runtime.job import Job
from factrecall.runtime.stage import Folder, Output, stage

if TYPE_CHECKING:
    from factrecall.config.model import Fetched


@stage(
    "fetch-model",
    settings=lambda study, model: {
        "source": study.models[model].model_copy(update={"training": None})
    },
    per=fetched_models,
    after="workflow.execution:check_architecture",
)
def fetch_model(job: Job, *, locks: Folder, out: Output, source: Fetched) -> None:
    """Copy a pre-trained model, checked against its lock; dequantise it if it is a GGUF file.

    Parameters
    ----------
    locks
        folder of the models locks
    out
        the model folder to write
    source
        Where the model is.
    """
    from factrecall.models.sources import fetch

    fetch(source, locks, out)
