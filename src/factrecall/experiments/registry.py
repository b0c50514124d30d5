"""The experiments of a study, a line each, and all stages.

An experiment names its modules; they are imported when they are needed. A stage's fingerprint does
not follow this module, so that a caption of one experiment reruns nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

from factrecall.runtime.stage import Stage


@dataclass(frozen=True)
class Experiment:
    """A folder of this package.

    Attributes
    ----------
    name : str
        The folder.
    stages, cost : str
        "module:name" below the folder of what it declares ("": nothing): its stages, and the cost
        of each. Its section of the report is named in `experiments.sections`.
    """

    name: str
    stages: str = "stages"
    cost: str = "cost:COSTS"

    def load(self, what: str) -> Any:
        """Return what the experiment declares as its "cost"."""
        module, _, name = getattr(self, what).partition(":")
        return getattr(import_module(f"{__package__}.{self.name}.{module}"), name)


EXPERIMENTS = (
    Experiment("recall"),
    Experiment("shared_parameters"),
    Experiment("ablation"),
    Experiment("layer_ablation", stages="", cost=""),
    Experiment("grafting"),
    Experiment("circuits"),
    Experiment("case_study"),
    Experiment("gradient_similarity"),
    Experiment("attribution", stages="", cost=""),
    Experiment("representations"),
)


@cache
def stages() -> dict[str, Stage]:
    """Return all stages by name, in an order in which they can run."""
    return {stage.name: stage for module in _modules() for stage in _declared(module)}


def _modules() -> Iterator[str]:
    yield from ("data.stages", "models.stages", "training.stages")
    for experiment in EXPERIMENTS:
        if experiment.stages:
            yield f"experiments.{experiment.name}.{experiment.stages}"
    yield "experiments.report"


def _declared(module: str) -> Iterator[Stage]:
    for value in vars(import_module(f"factrecall.{module}")).values():
        declared = getattr(value, "stage", None)
        if isinstance(declared, Stage) and declared.module == module:
            yield declared
