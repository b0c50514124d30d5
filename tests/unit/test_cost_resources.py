"""What jobs ask of a cluster: enough, more for larger models, more at each attempt."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from factrecall.config.model import Folder
from factrecall.config.reading import read_study
from factrecall.config.study import Study
from factrecall.cost.devices import DEVICES
from factrecall.cost.evaluation import JobContext
from factrecall.cost.jobs import StageJob
from factrecall.cost.models import UNKNOWN, model_info, parameters_of_name
from factrecall.cost.plan import cost_of
from factrecall.cost.resources import LONGEST, gpus, needs, resources
from factrecall.cost.shapes import PUBLISHED
from factrecall.experiments.registry import stages
from factrecall.experiments.representations.cost import states_bytes
from tests.conftest import scratch

PRESETS = Path(__file__).parents[2] / "workflow/presets"
STAGES = (
    *("fine-tune", "select-shared", "recall", "ablate", "graft", "graft-without-shared"),
    *("intervene", "attention-case-study", "capture", "probe", "gradient-similarity"),
)


@pytest.fixture(scope="module")
def paper() -> Study:
    return read_study(PRESETS / "paper.yaml")


@pytest.fixture(scope="module")
def ci() -> Study:
    return read_study(PRESETS / "ci.yaml")


def context(study: Study, job: StageJob) -> JobContext:
    return JobContext(study, model_info(study, job.model), job, DEVICES["H200"])


def with_model(study: Study, model: Any) -> Study:
    return study.model_copy(update={"models": {"it": model}})


def test_a_folder_of_another_architecture_is_counted_by_its_headers(
    paper: Study, tmp_path: Path
) -> None:
    from safetensors.torch import save_file

    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    save_file({"a": torch.zeros(3000, 40), "b": torch.zeros(5)}, tmp_path / "one.safetensors")
    save_file({"c": torch.zeros(2_000_000, dtype=torch.bfloat16)}, tmp_path / "two.safetensors")
    folder = Folder(source="folder", path=tmp_path, training=scratch("llama").training)
    study = with_model(paper, folder)
    found = model_info(study, "it")
    assert found.source == "weights" and found.guessed
    assert found.shape.parameters < 10_000_000
    for path in tmp_path.glob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:20])
    cut_off = model_info(study, "it").shape  # fetching it says so
    assert cut_off.parameters == pytest.approx(UNKNOWN, rel=0.3)


def test_a_folder_is_read(paper: Study, tmp_path: Path) -> None:
    import json

    config = {
        "model_type": "gpt_neox",
        "hidden_size": 2560,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "intermediate_size": 10240,
        "vocab_size": 50304,
        "tie_word_embeddings": False,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    folder = Folder(source="folder", path=tmp_path, training=scratch("llama").training)
    found = model_info(with_model(paper, folder), "it")
    assert (found.source, found.shape) == ("config", PUBLISHED["EleutherAI/pythia-2.8b"])


@pytest.mark.parametrize(
    ("repository", "least", "most"),
    [
        ("EleutherAI/pythia-410m", 4.05e8, 5e8),
        ("EleutherAI/pythia-12b", 1.2e10, 1.5e10),
        ("someone/a-model", 3e9, 3.4e9),
    ],
)
def test_a_hub_model_that_is_not_known_is_counted_by_its_name(
    paper: Study, repository: str, least: float, most: float
) -> None:
    assert least <= parameters_of_name(repository) <= most
    model = paper.models["pythia-2.8b"].model_copy(update={"repository": repository})
    found = model_info(with_model(paper, model), "it")
    assert found.source == "name" and found.guessed
    assert 0.7 * least < found.shape.parameters < 1.3 * most


@pytest.mark.parametrize("stage", STAGES)
def test_larger_models_and_later_attempts_ask_for_more(paper: Study, ci: Study, stage: str) -> None:
    small = needs(ci, stage, "llama-tiny", "mix")
    large = needs(paper, stage, "llama-3.2-3b", "mix")
    again = needs(paper, stage, "llama-3.2-3b", "mix", attempt=2)
    assert all(small[name] <= large[name] <= again[name] for name in small)
    assert large["mem_mb"] < again["mem_mb"]
    assert large["runtime"] < again["runtime"] or stages()[stage].resumes
    assert small["mem_mb"] < 5000 and small["runtime"] <= 30
    assert again["runtime"] <= LONGEST


def test_a_training_on_the_smallest_gpu_fits_what_it_keeps_in_main_memory(paper: Study) -> None:
    # Weights, gradients and moments, and two sums for each of mix's three tasks, in float32.
    kept = (4 + 2 * 3) * 4 * 3.21e9 / 1e6
    needed = needs(paper, "fine-tune", "llama-3.2-3b", "mix")
    assert needed["mem_mb"] > 1.2 * kept
    assert needed["disk_mb"] > (3 + 2 * 3) * 4 * 3.21e9 / 1e6  # a state, without gradients


def test_a_cpu_keeps_everything_in_main_memory(paper: Study) -> None:
    compute = paper.compute.model_copy(update={"device": "cpu"})
    here = needs(paper.model_copy(update={"compute": compute}), "recall", "llama-3.2-3b")
    assert here["mem_mb"] > 4 * 3.21e9 / 1e6


def test_hidden_states_are_counted(paper: Study, ci: Study) -> None:
    # Three formats, two layers, forty people, six relations, 64 numbers of four bytes.
    assert states_bytes(context(ci, StageJob("probe", "llama-tiny")))[0] == 3 * 2 * 40 * 6 * 64 * 4
    real = 3 * 8 * 10_000 * 6 * 3072 * 2
    assert states_bytes(context(paper, StageJob("probe", "llama-3.2-3b")))[0] == real
    needed = needs(paper, "probe", "llama-3.2-3b"), needs(paper, "capture", "llama-3.2-3b")
    assert all(real / 1e6 < one["mem_mb"] for one in needed)
    assert needed[1]["disk_mb"] > real / 1e6

    def changed(**looked: Any) -> int:
        settings = paper.representations.model_copy(update=looked)
        study = paper.model_copy(update={"representations": settings})
        return needs(study, "capture", "llama-3.2-3b")["mem_mb"]

    assert changed(layers=None, precision="float32") > 28 * 3 * 10_000 * 6 * 3072 * 4 / 1e6


def test_gradients_that_are_kept_are_on_the_device(paper: Study) -> None:
    job = StageJob("gradient-similarity", "llama-3.2-3b", "mix", 0)
    cost = cost_of(context(paper, job))
    # Six facts of five people in two formats, at 200,000 parameters of 232 cells, in float32.
    kept = 6 * 5 * 2 * 8 * 29 * 200_000 * 4
    assert kept < cost.memory.parts["kept"] < 1.1 * kept


def test_a_rule_gets_them_as_functions(ci: Study) -> None:
    class Wildcards:
        model, tuning = "llama-tiny", "mix"

    needed = {name: f(Wildcards(), attempt=2) for name, f in resources(ci, "fine-tune").items()}
    assert needed == needs(ci, "fine-tune", "llama-tiny", "mix", attempt=2)


def test_a_mistake_in_the_users_people_is_left_to_the_first_job(ci: Study, tmp_path: Path) -> None:
    (tmp_path / "people.csv").write_text("name\nEve\n")
    facts = ci.facts.model_copy(update={"individuals": tmp_path / "people.csv"})
    wrong = ci.model_copy(update={"facts": facts})
    assert needs(wrong, "recall", "llama-tiny") == needs(ci, "recall", "llama-tiny")


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


def test_only_a_fine_tuning_is_shared_by_gpus(ci: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    mode = ci.training.mode.model_copy(update={"gpus": 4})
    several = ci.model_copy(update={"training": ci.training.model_copy(update={"mode": mode})})
    assert gpus(several, cluster=True, stage="fine-tune") == 4
    assert gpus(several, cluster=True, stage="recall") == gpus(several, cluster=True) == 1
    assert gpus(ci, cluster=True, stage="fine-tune") == 1
    # Here every job waits for its turn on all of them.
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    assert {gpus(several, cluster=False, stage=s) for s in ("fine-tune", "recall")} == {4}


def test_rules_are_read_without_pytorch() -> None:
    """Snakemake reads the rules at each start, and in each submitted job."""
    code = (
        "import sys; from pathlib import Path; from factrecall.config.reading import read_study\n"
        "from factrecall.cost.resources import needs\n"
        f"needs(read_study(Path({str(PRESETS / 'ci.yaml')!r})), 'recall', 'llama-tiny')\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=600)
