"""factrecall: how language models come to recall facts, and which weights do it.

Select a set of parameters, patch weights with it, evaluate what a model recalls then:

    study = factrecall.load_study("config.yaml")
    tokenizer, model, weights = factrecall.open_pair(base, tuned, device)
    factrecall.run_stage("recall", study, tuned=tuned, bio=bio, qa=qa, out="recall.parquet")
    factrecall.read_table("recall.parquet")

Names are imported when they are used first, so that ``import factrecall`` takes no time.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from factrecall.config.reading import read_study as load_study
    from factrecall.evaluation.exact_match import Evaluator
    from factrecall.experiments.common.model_pair import open_pair
    from factrecall.parameters.sets import ParameterSet, read_sets
    from factrecall.runtime.storage import read_table
    from factrecall.workflow.stages import run_stage

__version__ = "0.3.0"

__all__ = [
    "Evaluator",
    "ParameterSet",
    "load_study",
    "open_pair",
    "read_sets",
    "read_table",
    "run_stage",
]

_HOMES = {
    "Evaluator": "evaluation.exact_match:Evaluator",
    "ParameterSet": "parameters.sets:ParameterSet",
    "load_study": "config.reading:read_study",
    "open_pair": "experiments.common.model_pair:open_pair",
    "read_sets": "parameters.sets:read_sets",
    "read_table": "runtime.storage:read_table",
    "run_stage": "workflow.stages:run_stage",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its home (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, member = _HOMES[name].partition(":")
    return getattr(import_module(f"{__name__}.{module}"), member)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
