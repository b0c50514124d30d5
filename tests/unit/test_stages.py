"""What a stage knows of the study: all it reads, and nothing else."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from factrecall.config.reading import read_study
from factrecall.config.study import Study
from factrecall.vocabulary import TUNINGS
from factrecall.workflow.stages import STAGES, job_command, parameters, settings

ROOT = Path(__file__).parents[2]
MODEL = "llama-tiny"


@pytest.fixture(scope="module")
def study() -> Study:
    return read_study(ROOT / "workflow/presets/ci.yaml")


def wildcards(stage: str) -> dict[str, str]:
    known = {"model": MODEL, "tuning": "mix", "seed": "1", "kind": "attention"}
    known["ranking"] = "baseline"
    return {name: known[name] for name in STAGES[stage].setting_wildcards}


@pytest.mark.parametrize("stage", STAGES)
def test_parameters_are_plain_sorted_values(study: Study, stage: str) -> None:
    found = parameters(study, stage, **wildcards(stage))
    assert json.loads(json.dumps(found)) == found  # no tuple, path or model hides in it
    assert set(found) == {"code", "libraries", "settings", "stage"}
    assert list(found) == sorted(found)
    assert list(found["settings"]) == sorted(found["settings"])
    assert found == parameters(study, stage, **wildcards(stage))


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_gets_its_settings_and_nothing_else(study: Study, stage: str) -> None:
    taken = {argument.name for argument in STAGES[stage].of("setting")}
    assert set(settings(study, stage, **wildcards(stage))) == taken


def test_declarations_load_nothing_heavy() -> None:
    script = (
        "import sys; import factrecall.workflow.stages\n"
        "print([m for m in ('torch', 'transformers', 'pydantic', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], text=True, capture_output=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_declaration_says_what_the_command_takes() -> None:
    graft = STAGES["graft"]
    roles = {a.name: a.role for a in graft.arguments}
    assert roles["base"] == "input" and roles["checks"] == "output"
    assert roles["split"] == "wildcard" and roles["thorough"] == "setting"
    assert set(graft.wildcards) == {"seed", "split"} and graft.setting_wildcards == ("seed",)
    summary = {a.name: a for a in STAGES["summarise-grafting"].arguments}
    assert list(summary["grafts"].fields)[:4] == ["model", "tuning", "seed", "split"]
    assert STAGES["intervene"].of("input")[2].optional


def test_a_command_line_is_quoted_and_has_the_files_of_all_runs() -> None:
    runs = [
        {"model": "a b", "tuning": "mix", "seed": 0},
        {"model": "c", "tuning": "mix", "seed": 1},
    ]
    files = SimpleNamespace(table=["one file", "two"], qa=["$(x)"])
    fixed = {"evaluations": runs, "questions": [{"seed": 5}]}
    line = job_command("summarise-recall", None, files, SimpleNamespace(out="out"), fixed)
    assert shlex.split(line) == [
        "summarise-recall", "--evaluations", "a b", "mix", "0", "one file",
        "--evaluations", "c", "mix", "1", "two", "--questions", "5", "$(x)", "--out", "out",
    ]  # fmt: skip


@pytest.mark.parametrize("given", [{}, {"sets": "s"}])
def test_optional_files_may_be_left_out(given: dict[str, str]) -> None:
    names = [a.name for a in STAGES["intervene"].of("input", "output")]
    files = SimpleNamespace(**{name: name for name in names} | {"sets": []} | given)
    known = SimpleNamespace(seed=0, kind="unit", ranking="shared")
    line = job_command("intervene", known, files, files, {"state": "state"})
    assert ("--sets s" in line) == bool(given) and line.endswith("--state state")


REPRESENTATIONS = ("capture", "probe", "gradient-similarity")
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
            "transplant-shared",
            "graft",
            "graft-without-shared",
            "intervene",
            "summarise-circuits",
            "attention-case-study",
            *REPRESENTATIONS,
        },
    ),
    ("facts.people", 42, {"make-facts"}),
    ("training.seeds", [0, 1, 5], set()),
    ("training.seeds", [1, 0], {"graft"}),  # only the first seed's masks are checked at length
    ("replicates", 2, set()),
    ("grafting.alphas", [0.5], {"graft", "graft-without-shared"}),
    ("grafting.objectives", ["gold"], {"graft", "graft-without-shared"}),
    ("grafting.optimiser.updates", 7, {"graft", "graft-without-shared"}),
    ("training.precision", "bfloat16", {"pretrain", "fine-tune"}),
    ("trace.top_fraction", 0.5, {"fine-tune"}),
    ("shared.k", 0.01, {"select-shared"}),
    ("shared.influence", "signed", {"select-shared"}),
    ("ablation.draws", 5, {"ablate", "transplant-shared"}),
    ("ablation.individuals", 5, {"ablate", "transplant-shared"}),
    (
        "grafting.fit_individuals",
        7,
        {"graft", "graft-without-shared", "intervene", "attention-case-study"},
    ),
    ("circuits.attention.forward", 2, {"intervene"}),
    ("circuits.unit", None, set()),  # of the kind asked for here
    ("circuits.random_orders", 5, {"intervene"}),
    ("circuits.case.relation", "job", {"attention-case-study"}),
    (
        "recall.max_eval_tokens",
        99,
        {
            *(
                "recall",
                "ablate",
                "transplant-shared",
                "graft",
                "graft-without-shared",
                "intervene",
                "attention-case-study",
            ),
            "capture",
        },
    ),
    ("representations.precision", "bfloat16", {"capture"}),
    ("representations.layers", [1], {"capture"}),
    ("representations.probes.individuals", 12, {"capture"}),
    ("representations.probes.held_out", 0.5, {"probe"}),
    ("representations.probes.penalties", [0.5], {"probe"}),
    ("representations.gradient_similarity.individuals", 3, {"gradient-similarity"}),
    ("representations.attribution.steps", 9, {"capture"}),
    ("representations.patching.individuals", 9, {"capture"}),
    ("trace.out_of_distribution", 3, {"fine-tune", "gradient-similarity"}),
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
        if stage not in ("fetch-model", "draw-figures", "judge-claims", "write-report")
        and parameters(study, stage, **wildcards(stage))
        != parameters(edited, stage, **wildcards(stage))
    }
    assert changed == readers


def test_each_tuning_has_its_own_recipe(study: Study) -> None:
    for tuning in TUNINGS:
        found = settings(study, "fine-tune", model=MODEL, tuning=tuning, seed=0)["recipe"]
        assert found == getattr(study.models[MODEL].training, tuning)


def test_draws_are_of_the_controls_alone(study: Study) -> None:
    edited = study.model_copy(
        update={"circuits": study.circuits.model_copy(update={"random_orders": 5})}
    )

    def told(of: Study, by: str) -> dict[str, Any]:
        return parameters(of, "intervene", kind="attention", ranking=by, seed=0)

    assert told(study, "shared") == told(edited, "shared")
    assert told(study, "baseline") != told(edited, "baseline")


def test_where_the_study_runs_is_not_in_the_report(study: Study) -> None:
    found = parameters(study, "write-report")
    assert found["settings"]["study"]["compute"] is None
