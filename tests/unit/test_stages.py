"""What a stage knows of the study: all it reads, and nothing else."""

from __future__ import annotations

import inspect
import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from factrecall.config.reading import read_study
from factrecall.config.study import Study
from factrecall.vocabulary import TUNINGS
from factrecall.workflow.stages import STAGES, parameters, settings

ROOT = Path(__file__).parents[2]
MODEL = "llama-tiny"

FUNCTIONS = {
    "make-facts": "make_facts",
    "pretrain": "pretrain",
    "fetch-model": "fetch",
    "fine-tune": "fine_tune",
    "recall": "recall",
    "summarise-recall": "summarise_recall",
    "select-shared": "select_shared",
    "summarise-shared": "summarise_shared",
    "ablate": "ablate",
    "summarise-ablation": "summarise_ablation",
    "graft": "graft",
    "graft-without-shared": "graft_without_shared",
    "summarise-grafting": "summarise_grafting",
    "intervene": "intervene",
    "summarise-circuits": "summarise_circuits",
    "study-case": "study_case",
    "represent": "represent",
    "probe": "probe",
    "compare-gradients": "compare_gradients",
    "summarise-representations": "summarise_representations",
    "draw-figures": "draw_figures",
    "write-report": "report_study",
}
"""The function behind each stage."""


@pytest.fixture(scope="module")
def study() -> Study:
    return read_study(ROOT / "workflow/presets/ci.yaml")


def wildcards(stage: str) -> dict[str, str]:
    if stage == "fine-tune":
        return {"model": MODEL, "tuning": "mix"}
    if stage == "graft":
        return {"seed": "1"}
    if stage == "intervene":
        return {"kind": "attention", "by": "baseline"}
    return {"model": MODEL} if stage in ("pretrain", "fetch-model", "draw-figures") else {}


@pytest.mark.parametrize("stage", STAGES)
def test_parameters_are_plain_sorted_values(study: Study, stage: str) -> None:
    found = parameters(study, stage, **wildcards(stage))
    assert json.loads(json.dumps(found)) == found  # no tuple, path or model hides in it
    assert set(found) == {"code", "libraries", "settings", "stage"}
    assert list(found) == sorted(found)
    assert list(found["settings"]) == sorted(found["settings"])
    assert found == parameters(study, stage, **wildcards(stage))


@pytest.mark.parametrize("stage", STAGES)
def test_the_stages_function_takes_its_settings(study: Study, stage: str) -> None:
    function = getattr(import_module(f"factrecall.{STAGES[stage].module}"), FUNCTIONS[stage])
    taken = inspect.signature(function).parameters
    assert set(settings(study, stage, **wildcards(stage))) <= set(taken)


REPRESENTATIONS = ("represent", "probe", "compare-gradients", "summarise-representations")
CHANGES: list[tuple[str, Any, set[str]]] = [
    ("compute.threads", 7, set()),
    ("compute.checkpoint_interval_s", 7.0, set()),
    ("compute.device", "cpu", set()),
    ("compute.cache_gb", 7.0, set()),
    (
        "seed",
        9,
        {
            "make-facts",
            "pretrain",
            "fine-tune",
            "ablate",
            "graft",
            "graft-without-shared",
            "summarise-ablation",
            "intervene",
            "summarise-circuits",
            "study-case",
            *REPRESENTATIONS,
        },
    ),
    ("facts.people", 42, {"make-facts"}),
    ("training.seeds", [0, 1, 5], set()),
    ("training.seeds", [1, 0], {"graft"}),  # only the first seed's masks are checked at length
    ("grafting.alphas", [0.5], {"graft", "graft-without-shared"}),
    ("grafting.optimiser.updates", 7, {"graft", "graft-without-shared"}),
    ("training.precision", "bfloat16", {"pretrain", "fine-tune"}),
    ("trace.top_fraction", 0.5, {"fine-tune"}),
    ("shared.k", 0.01, {"select-shared"}),
    ("shared.influence", "signed", {"select-shared"}),
    (
        "grafting.fit_individuals",
        7,
        {"graft", "graft-without-shared", "intervene", "study-case"},
    ),
    ("circuits.attention.forward", 2, {"intervene"}),
    ("circuits.unit", None, set()),  # of the kind asked for here
    ("circuits.random_orders", 5, {"intervene"}),
    ("circuits.case.relation", "job", {"study-case"}),
    (
        "recall.max_eval_tokens",
        99,
        {
            *("recall", "ablate", "graft", "graft-without-shared", "intervene", "study-case"),
            "represent",
        },
    ),
    ("representations.precision", "bfloat16", {"represent"}),
    ("representations.layers", [1], {"represent"}),
    ("representations.probes.individuals", 12, {"represent"}),
    ("representations.probes.held_out", 0.5, {"probe"}),
    ("representations.probes.penalties", [0.5], {"probe"}),
    ("representations.gradient_similarity.individuals", 3, {"compare-gradients"}),
    ("representations.attribution.steps", 9, {"represent"}),
    ("representations.patching.individuals", 9, {"represent"}),
    ("trace.out_of_distribution", 3, {"fine-tune", "compare-gradients"}),
    ("trace.checkpoints", 3, {"fine-tune"}),
    (f"models.{MODEL}.training.mix.updates", 77, {"fine-tune"}),
    (f"models.{MODEL}.training.bio.updates", 77, set()),  # of the tuning asked for here
    (f"models.{MODEL}.pretrain.updates", 77, {"pretrain"}),
    (f"models.{MODEL}.layers", 3, {"pretrain"}),
    ("models.gpt-neox-tiny.layers", 3, set()),
]


@pytest.mark.parametrize(("path", "value", "readers"), CHANGES, ids=[c[0] for c in CHANGES])
def test_an_edit_changes_the_parameters_of_its_readers_alone(
    study: Study, path: str, value: Any, readers: set[str]
) -> None:
    raw = study.model_dump()
    *above, key = path.split(".")
    section: Any = raw
    for part in above:
        section = section[part]
    assert section[key] != value
    section[key] = value
    edited = Study.model_validate(raw)
    changed = {
        stage
        for stage in STAGES
        if stage not in ("fetch-model", "draw-figures", "write-report")
        and parameters(study, stage, **wildcards(stage))
        != parameters(edited, stage, **wildcards(stage))
    }
    assert changed == readers


def test_each_tuning_has_its_own_recipe(study: Study) -> None:
    for tuning in TUNINGS:
        found = settings(study, "fine-tune", model=MODEL, tuning=tuning)["recipe"]
        assert found == getattr(study.models[MODEL].training, tuning)


def test_draws_are_of_the_controls_alone(study: Study) -> None:
    edited = study.model_copy(
        update={"circuits": study.circuits.model_copy(update={"random_orders": 5})}
    )

    def told(of: Study, by: str) -> dict[str, Any]:
        return parameters(of, "intervene", kind="attention", by=by)

    assert told(study, "shared") == told(edited, "shared")
    assert told(study, "baseline") != told(edited, "baseline")


def test_where_the_study_runs_is_not_in_the_report(study: Study) -> None:
    found = parameters(study, "write-report")
    assert found["settings"]["study"]["compute"] is None
