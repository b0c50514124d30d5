"""Shapes, memory and modes: counted on real modules, chosen in the right order."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from factrecall.config.training import ExecutionSettings as Settings
from factrecall.cost.devices import DEVICES, this_cpu
from factrecall.cost.execution_choice import FITS, candidates, choose, fits
from factrecall.cost.memory import activation_bytes, training_memory
from factrecall.cost.shapes import PUBLISHED, Shape
from factrecall.models.scratch import build_model
from factrecall.runtime.errors import FactRecallError
from factrecall.training.execution import Execution
from tests.conftest import ARCHITECTURES, FactTables, scratch, tokenizer_for

COUNTS = {"meta-llama/Llama-3.2-3B": 3_212_749_824, "EleutherAI/pythia-2.8b": 2_775_208_960}
LLAMA = PUBLISHED["meta-llama/Llama-3.2-3B"]
CONFIGS: dict[str, dict[str, Any]] = {
    "meta-llama/Llama-3.2-3B": {
        "model_type": "llama",
        "hidden_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 24,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "intermediate_size": 8192,
        "vocab_size": 128256,
        "tie_word_embeddings": True,
    },
    "EleutherAI/pythia-2.8b": {
        "model_type": "gpt_neox",
        "hidden_size": 2560,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "intermediate_size": 10240,
        "vocab_size": 50304,
        "tie_word_embeddings": False,
    },
}
"""What the models' `config.json` says."""


def model_of(config: dict[str, Any], device: str = "meta") -> Any:
    """Build a model of a `config.json`, without memory for its weights."""
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device(device):
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(**config))


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_papers_models_have_exactly_their_parameters(name: str) -> None:
    shape, model = Shape.of_config(CONFIGS[name]), model_of(CONFIGS[name])
    assert shape == PUBLISHED[name]
    assert shape.parameters == COUNTS[name] == sum(p.numel() for p in model.parameters())
    assert shape.largest == max(p.numel() for p in model.parameters())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("tied", [False, True])
def test_a_scratch_model_is_counted_before_it_is_built(
    architecture: str, tied: bool, facts: FactTables
) -> None:
    settings = scratch(architecture, hidden_size=64, mlp_size=160, layers=3, tie_embeddings=tied)
    tokenizer = tokenizer_for(facts)
    model = build_model(settings, tokenizer, seed=1)
    found = sum(p.numel() for p in model.parameters())
    assert Shape.of_scratch(settings, len(tokenizer)).parameters == found
    assert Shape.of_config(model.config.to_dict()).parameters == found


@pytest.mark.parametrize("more", [{"attention_bias": True}, {"mlp_bias": True}, {"head_dim": 8}])
def test_variants_of_llama_are_counted(more: dict[str, Any]) -> None:
    config = {
        **CONFIGS["meta-llama/Llama-3.2-3B"],
        "num_hidden_layers": 2,
        "vocab_size": 64,
        **more,
    }
    found = sum(p.numel() for p in model_of(config).parameters())
    assert Shape.of_config(config).parameters == found


@pytest.mark.parametrize(
    "config", [{}, {"model_type": "gpt2"}, {"model_type": "llama", "hidden_size": "wide"}]
)
def test_a_config_that_is_none_is_an_error(config: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(FactRecallError, match=r"config\.json"):
        Shape.of_file(tmp_path / "config.json")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(FactRecallError, match="cannot be read"):
        Shape.of_file(tmp_path / "config.json")


@pytest.mark.parametrize("count", [10**8, 4 * 10**8, 10**9, 3 * 10**9, 8 * 10**9])
def test_a_guessed_shape_has_about_the_parameters(count: int) -> None:
    assert Shape.guessed(count).parameters == pytest.approx(count, rel=0.3)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_activations_are_what_autograd_keeps(architecture: str, precision: str) -> None:
    """Of a layer and token, the bytes of all storages kept; a soft-max's few are left out."""
    tokens = torch.randint(0, 64, (3, 67))

    def kept(layers: int) -> float:
        config = {
            "model_type": architecture,
            "hidden_size": 96,
            "intermediate_size": 256 if architecture == "llama" else 384,
            "num_hidden_layers": layers,
            "num_attention_heads": 6,
            "vocab_size": 64,
            **({"num_key_value_heads": 2} if architecture == "llama" else {}),
        }
        model = model_of(config, "cpu").train()
        shapes = {tuple(p.shape) for p in model.parameters()}
        storages: dict[int, torch.UntypedStorage] = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            if not {tuple(tensor.shape), tuple(reversed(tensor.shape))} & shapes:  # no weight
                storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
            return tensor

        half = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16")
        with half, torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model.base_model(input_ids=tokens, use_cache=False).last_hidden_state.sum()
        shape = Shape.of_config(model.config.to_dict())
        planned.append(activation_bytes(shape, precision))
        return sum(storage.nbytes() for storage in storages.values())

    planned: list[float] = []
    each = (kept(4) - kept(2)) / 2 / tokens.numel()
    assert planned[0] == pytest.approx(each, rel=0.02)


def test_weights_gradients_moments_and_sums_are_those_of_the_parameters() -> None:
    n = LLAMA.parameters
    parts = training_memory(LLAMA, Execution(), 4096, 3, "bfloat16").parts
    assert parts["weights"] == parts["gradients"] == 4 * n
    assert parts["moments"] == 8 * n
    assert parts["trace"] == 3 * 12 * n + 12 * LLAMA.largest
    eight = training_memory(LLAMA, Execution(optimiser="adamw_8bit"), 4096, 0, "bfloat16").parts
    whole = 8 * LLAMA.embedding  # see training.optimisers
    assert 2 * n < eight["moments"] - whole + 2 * LLAMA.embedding < 2.1 * n
    assert eight["trace"] == 0


def test_every_way_to_save_memory_saves_some() -> None:
    whole = training_memory(LLAMA, Execution(), 4096, 2, "bfloat16")
    for changed in (
        Execution(checkpointing=True),
        Execution(trace="host"),
        Execution(optimiser="adamw_8bit"),
        Execution(optimiser="cpu_offload"),
        Execution(gpus=4),
    ):
        assert training_memory(LLAMA, changed, 4096, 2, "bfloat16").device < whole.device
    host = training_memory(LLAMA, Execution(trace="host"), 4096, 2, "bfloat16")
    # The sums, one magnitude and two gradients on their way.
    assert host.host - whole.host == 2 * 12 * LLAMA.parameters + 3 * 4 * LLAMA.largest
    away = training_memory(LLAMA, Execution("cpu_offload"), 4096, 2, "bfloat16")
    assert away.parts["trace"] == 0 and away.host_parts["trace"] > 2 * 12 * LLAMA.parameters


def test_a_cpu_is_trained_on_as_ever() -> None:
    assert choose(Settings(), LLAMA, 4096, 3, None, "float32") == Execution()


def test_modes_are_tried_in_order() -> None:
    order = list(candidates(Settings(), gpu=True))
    assert order[:4] == [
        Execution(packing=True),
        Execution(packing=True, checkpointing=True),
        Execution(packing=True, trace="host"),
        Execution(packing=True, checkpointing=True, trace="host"),
    ]
    # Sums of gradients that are in main memory are there, too.
    away = Execution("cpu_offload", packing=True, trace="host")
    assert order[4:] == [away, replace(away, checkpointing=True)]
    (there,) = candidates(Settings(optimiser="cpu_offload"), gpu=False)
    assert there == Execution("cpu_offload")


@given(st.floats(1e9, 3e11))
def test_the_first_that_fits_is_chosen(memory: float) -> None:
    order = list(candidates(Settings(), gpu=True))
    chosen = choose(Settings(), LLAMA, 4096, 3, int(memory))
    needs = [training_memory(LLAMA, mode, 4096, 3, "bfloat16").device for mode in order]
    fitting = [mode for mode, need in zip(order, needs, strict=True) if need <= FITS * int(memory)]
    assert chosen == (fitting[0] if fitting else order[needs.index(min(needs))])


@pytest.mark.parametrize("memory", [None, 10**9, 10**12])
def test_what_is_set_stays(memory: int | None) -> None:
    settings = Settings(
        optimiser="adamw_8bit",
        checkpointing="never",
        trace="device",
        packing="never",
        compile="always",
    )
    kept = Execution("adamw_8bit", checkpointing=False, trace="device", compile=True)
    assert choose(settings, LLAMA, 4096, 3, memory) == kept
    shared = choose(Settings(gpus=2, checkpointing="always"), LLAMA, 4096, 3, memory)
    assert shared.gpus == 2 and shared.checkpointing


@pytest.mark.parametrize(
    ("device", "tuning_tasks", "optimiser"),
    [
        ("H200", 3, "adamw"),
        ("H100", 3, "adamw"),
        ("A100-80", 2, "adamw"),
        ("A100-40", 3, "cpu_offload"),
    ],
)
def test_the_papers_trainings_fit_their_gpus(
    device: str, tuning_tasks: int, optimiser: str
) -> None:
    memory = DEVICES[device].memory
    mode = choose(Settings(), LLAMA, 4096, tuning_tasks, memory)
    assert mode.optimiser == optimiser
    assert fits(training_memory(LLAMA, mode, 4096, tuning_tasks, "bfloat16").device, memory)


def test_this_cpu_is_measured() -> None:
    threads = torch.get_num_threads()
    cpu = this_cpu()
    assert not cpu.is_gpu and cpu.rates["float32"] > 1e8 and cpu.bandwidth > 1e8
    assert torch.get_num_threads() == threads
