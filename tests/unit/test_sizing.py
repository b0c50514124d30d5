"""What jobs ask of a cluster: enough, more for larger models, more at each attempt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from factrecall.config import Study
from factrecall.config.reading import read_study
from factrecall.models.scratch import build_model
from factrecall.sizing import (
    GOES_ON,
    UNKNOWN,
    gpus,
    needs,
    parameters_of,
    resources,
    shape_of,
    states_bytes,
)
from tests.conftest import ARCHITECTURES, FactTables, scratch, tokenizer_for

PRESETS = Path(__file__).parents[2] / "workflow/presets"
STAGES = (
    *("fine-tune", "select-shared", "recall", "ablate", "graft", "intervene", "study-case"),
    *("represent", "probe", "compare-gradients"),
)


@pytest.fixture(scope="module")
def paper() -> Study:
    return read_study(PRESETS / "paper.yaml")


@pytest.fixture(scope="module")
def ci() -> Study:
    return read_study(PRESETS / "ci.yaml")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_model_is_counted_before_it_is_built(architecture: str, facts: FactTables) -> None:
    settings = scratch(architecture, hidden_size=64, mlp_size=160, layers=3)
    model = build_model(settings, tokenizer_for(facts), seed=1)
    ends = {id(e.weight) for e in (model.get_input_embeddings(), model.get_output_embeddings())}
    layers = sum(p.numel() for p in model.parameters() if id(p) not in ends)
    guessed = parameters_of(settings) - 2 * 8192 * 64
    assert guessed == pytest.approx(layers, rel=0.03)  # norms and biases are left out


def test_a_folder_is_counted_by_its_headers(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from factrecall.config import Recipes
    from factrecall.config.model import Folder

    (tmp_path / "config.json").write_text("{}")
    save_file({"a": torch.zeros(3, 4), "b": torch.zeros(5)}, tmp_path / "one.safetensors")
    save_file({"c": torch.zeros(2, dtype=torch.bfloat16)}, tmp_path / "two.safetensors")
    recipe = scratch("llama").training
    assert isinstance(recipe, Recipes)
    folder = Folder(source="folder", path=tmp_path, training=recipe)
    assert parameters_of(folder) == 12 + 5 + 2
    for path in tmp_path.glob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:20])
    assert parameters_of(folder) == UNKNOWN  # cut off: fetching it says so


@pytest.mark.parametrize(
    ("repository", "least", "most"),
    [
        ("meta-llama/Llama-3.2-3B", 3.21e9, 3.6e9),
        ("EleutherAI/pythia-2.8b", 2.78e9, 3.4e9),
        ("EleutherAI/pythia-410m", 4.05e8, 5e8),
        ("someone/a-model", 3e9, 3.4e9),
    ],
)
def test_a_hub_model_is_counted_by_its_name(
    paper: Study, repository: str, least: float, most: float
) -> None:
    model = paper.models["pythia-2.8b"].model_copy(update={"repository": repository})
    assert least <= parameters_of(model) <= most


@pytest.mark.parametrize("stage", STAGES)
def test_larger_models_and_later_attempts_ask_for_more(paper: Study, ci: Study, stage: str) -> None:
    small = needs(ci, stage, "llama-tiny", "mix")
    large = needs(paper, stage, "llama-3.2-3b", "mix")
    again = needs(paper, stage, "llama-3.2-3b", "mix", attempt=2)
    assert all(small[name] <= large[name] <= again[name] for name in small)
    assert large["mem_mb"] < again["mem_mb"]
    assert large["runtime"] < again["runtime"] or stage in GOES_ON
    assert small["mem_mb"] < 4000 and small["runtime"] <= 30
    assert large["runtime"] <= 24 * 60


def test_a_training_at_the_papers_scale_fits_what_it_keeps(paper: Study) -> None:
    # Weights and both moments, and two sums for each of mix's three tasks, in float32.
    state = (3 + 2 * 3) * 4 * 3.21e9 / 1e6
    asked = needs(paper, "fine-tune", "llama-3.2-3b", "mix")
    assert asked["mem_mb"] > 2 * state and asked["disk_mb"] > state


def test_hidden_states_are_counted(paper: Study, ci: Study) -> None:
    scratch_model, hub = ci.models["llama-tiny"], paper.models["llama-3.2-3b"]
    assert shape_of(scratch_model) == (2, 64)
    # Three formats, two layers, forty people, six relations, 64 numbers of four bytes.
    assert states_bytes(ci, scratch_model)[0] == 3 * 2 * 40 * 6 * 64 * 4
    asked = needs(paper, "probe", "llama-3.2-3b"), needs(paper, "represent", "llama-3.2-3b")
    real = 3 * 8 * 10_000 * 6 * 3072 * 2 / 1e6
    assert real < states_bytes(paper, hub)[0] / 1e6 < 1.4 * real
    assert all(1.5 * real < one["mem_mb"] - 1500 for one in asked)
    assert 1500 < asked[0]["mem_mb"] < 4 * real and asked[1]["mem_mb"] < 4 * real + 12 * 3500
    assert all(real < one["disk_mb"] for one in asked)

    def changed(**looked: Any) -> int:
        settings = paper.representations.model_copy(update=looked)
        study = paper.model_copy(update={"representations": settings})
        return needs(study, "probe", "llama-3.2-3b")["mem_mb"]

    whole = changed(layers=None, precision="float32")
    assert whole > 28 * 3 * 10_000 * 6 * 3072 * 4 / 1e6  # 62 GB
    few = paper.representations.probes.model_copy(update={"individuals": 100})
    assert changed(probes=few) - 1500 < 0.03 * (changed() - 1500)


@pytest.mark.parametrize(
    ("repository", "depth", "width"),
    [
        ("meta-llama/Llama-3.2-3B", 28, 3072),
        ("meta-llama/Llama-3.2-1B", 16, 2048),
        ("meta-llama/Llama-3.1-8B", 32, 4096),
        ("EleutherAI/pythia-2.8b", 32, 2560),
        ("EleutherAI/pythia-410m", 24, 1024),
        ("someone/a-model", 28, 3072),
    ],
)
def test_the_shape_of_a_hub_model_is_guessed_large_enough(
    paper: Study, repository: str, depth: int, width: int
) -> None:
    model = paper.models["pythia-2.8b"].model_copy(update={"repository": repository})
    layers, wide = shape_of(model)
    assert depth <= layers and width <= wide < 1.6 * width


def test_gradients_that_are_kept_are_counted(paper: Study) -> None:
    # Six facts of five people, told and asked, at 200,000 coordinates of 320 cells, in float32.
    kept = 6 * 5 * 2 * 320 * 200_000 * 4 / 1e6
    asked = needs(paper, "compare-gradients", "llama-3.2-3b")["mem_mb"]
    assert kept < asked - 24 * 3.2e3 < 2 * kept


def test_a_rule_gets_them_as_functions(ci: Study) -> None:
    class Wildcards:
        model, tuning = "llama-tiny", "mix"

    asked = {name: f(Wildcards(), attempt=2) for name, f in resources(ci, "fine-tune").items()}
    assert asked == needs(ci, "fine-tune", "llama-tiny", "mix", attempt=2)


def test_gpus_are_asked_for_where_there_may_be_one(
    ci: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    never = ci.model_copy(update={"compute": ci.compute.model_copy(update={"device": "cpu"})})
    assert gpus(ci, cluster=True) == 1 and gpus(never, cluster=True) == 0
    always = ci.model_copy(update={"compute": ci.compute.model_copy(update={"device": "cuda"})})
    assert gpus(always, cluster=False) == 1
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    assert gpus(ci, cluster=False) == 1 and gpus(never, cluster=False) == 0
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpus(ci, cluster=False) == 0
