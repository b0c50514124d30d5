"""Model folders: what goes in comes out, and what is wrong with one is told."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, ByT5Tokenizer

from factrecall.models.loading import (
    choose_device,
    load_model,
    load_tokenizer,
    save_model,
)
from factrecall.models.scratch import build_model
from factrecall.runtime.checkpoint import files_of
from factrecall.runtime.errors import FactRecallError
from tests.conftest import ARCHITECTURES, Tiny, scratch


@pytest.fixture
def folder(tiny: Tiny, tmp_path: Path) -> Path:
    save_model(tmp_path / "model", tiny.model, tiny.tokenizer)
    return tmp_path / "model"


def test_a_saved_model_opens_with_the_same_bits(tiny: Tiny, folder: Path) -> None:
    for opened in (load_model(folder), AutoModelForCausalLM.from_pretrained(folder)):
        assert not opened.training
        state = opened.state_dict()
        assert set(state) == set(tiny.model.state_dict())
        assert all(torch.equal(state[k], v) for k, v in tiny.model.state_dict().items())
        assert all(v.dtype == torch.float32 for v in state.values())
    text = str(tiny.facts.qa["text"].iloc[0])
    for tokenizer in (load_tokenizer(folder), AutoTokenizer.from_pretrained(folder)):
        assert tokenizer(text)["input_ids"] == tiny.tokenizer(text)["input_ids"]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_tied_model_comes_back_tied(tiny: Tiny, tmp_path: Path, architecture: str) -> None:
    model = build_model(scratch(architecture, tie_embeddings=True), tiny.tokenizer, seed=0)
    save_model(tmp_path / "tied", model, tiny.tokenizer)
    opened = load_model(tmp_path / "tied")
    assert opened.get_input_embeddings().weight is opened.get_output_embeddings().weight
    assert torch.equal(opened.get_input_embeddings().weight, model.get_input_embeddings().weight)


def test_half_precision_weights_open_as_float32(tiny: Tiny, tmp_path: Path) -> None:
    model = build_model(scratch(tiny.architecture), tiny.tokenizer, seed=0).to(torch.bfloat16)
    save_model(tmp_path / "half", model, tiny.tokenizer)
    assert {p.dtype for p in load_model(tmp_path / "half").parameters()} == {torch.float32}


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in files_of([folder])}


def test_the_same_model_has_the_same_files(tiny: Tiny, folder: Path, tmp_path: Path) -> None:
    save_model(tmp_path / "twice", tiny.model, tiny.tokenizer)
    assert files(tmp_path / "twice") == files(folder)
    for name in ("again", "and again"):
        save_model(tmp_path / name, load_model(folder), load_tokenizer(folder))
    assert files(tmp_path / "again") == files(tmp_path / "and again")
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        assert files(tmp_path / "again")[name] == files(folder)[name]
    # Where a model was opened is no part of it.
    assert not any(
        str(tmp_path).encode() in content for content in files(tmp_path / "again").values()
    )


def test_weights_depend_on_the_seed_alone(tiny: Tiny) -> None:
    settings = scratch(tiny.architecture)
    before = torch.get_rng_state()
    one, again, other = (build_model(settings, tiny.tokenizer, seed) for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    pairs = list(zip(one.parameters(), again.parameters(), other.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b, _ in pairs)
    assert not all(torch.equal(a, c) for a, _, c in pairs)


def test_a_scratch_model_has_the_shape_asked_for(tiny: Tiny) -> None:
    config = tiny.model.config
    assert config.model_type == tiny.architecture
    assert (config.num_hidden_layers, config.hidden_size, config.intermediate_size) == (2, 32, 48)
    assert config.vocab_size % 8 == 0 and 0 <= config.vocab_size - len(tiny.tokenizer) < 8
    if tiny.architecture == "llama":
        assert config.num_key_value_heads == 2
    else:
        assert config.use_parallel_residual


Damage = Callable[[Path], object]


def without(name: str) -> Damage:
    return lambda folder: (folder / name).unlink()


def cut(name: str) -> Damage:
    def damage(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])

    return damage


def without_a_tensor(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    del state[max(state)]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def with_another_shape(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 56}))


def pickled(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


MODEL_DAMAGE: dict[str, Damage] = {
    "no folder": shutil.rmtree,
    "no config": without("config.json"),
    "cut config": cut("config.json"),
    "unknown architecture": lambda f: (f / "config.json").write_text('{"model_type": "none"}'),
    "code of others": lambda f: (f / "config.json").write_text(
        '{"model_type": "x", "auto_map": {"AutoModelForCausalLM": "code.Model"}}'
    ),
    "no weights": without("model.safetensors"),
    "cut weights": cut("model.safetensors"),
    "empty weights": lambda f: (f / "model.safetensors").write_bytes(b""),
    "a tensor is missing": without_a_tensor,
    "another shape": with_another_shape,
    "pickled weights": pickled,
}


@pytest.mark.parametrize("damage", MODEL_DAMAGE.values(), ids=MODEL_DAMAGE)
def test_a_model_that_cannot_be_opened_whole_is_told(folder: Path, damage: Damage) -> None:
    damage(folder)
    with pytest.raises(FactRecallError) as caught:
        load_model(folder)
    assert caught.value.where == str(folder)
    assert "\n" not in caught.value.why


@pytest.mark.parametrize(
    "damage", [shutil.rmtree, without("tokenizer.json"), cut("tokenizer.json")]
)
def test_a_tokenizer_that_cannot_be_opened_is_told(folder: Path, damage: Damage) -> None:
    damage(folder)
    with pytest.raises(FactRecallError) as caught:
        load_tokenizer(folder)
    assert caught.value.where == str(folder)


def test_a_tokenizer_without_offsets_is_told(folder: Path) -> None:
    for path in folder.glob("token*"):
        path.unlink()
    ByT5Tokenizer().save_pretrained(folder)
    with pytest.raises(FactRecallError, match="offsets"):
        load_tokenizer(folder)


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")
    with pytest.raises(FactRecallError, match=r"compute\.device"):
        choose_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto") == choose_device("cuda") == torch.device("cuda")


def test_hidden_files_are_no_part_of_a_model(folder: Path) -> None:
    before = files_of([folder])
    (folder / ".timestamp").write_text("")
    (folder / "more").mkdir()
    assert files_of([folder]) == before == sorted(before)
