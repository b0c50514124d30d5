"""Weights left in their files, and where they are kept, change nothing but memory."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from factrecall.experiments.common.model_pair import open_pair
from factrecall.models.loading import load_model, save_model
from factrecall.models.scratch import build_model
from factrecall.parameters import placement
from factrecall.parameters.placement import choose_place
from factrecall.parameters.sets import ParameterSet
from factrecall.parameters.space import ParameterSpace
from factrecall.parameters.weights import Weights, folder_weights
from factrecall.runtime.errors import DamagedFile, FactRecallError
from factrecall.runtime.lazy_mapping import LazyMapping
from factrecall.runtime.seeds import generator
from tests.conftest import Tiny, scratch

CPU = torch.device("cpu")


def saved(folder: Path, tiny: Tiny, kind: str) -> Path:
    """Save a tiny model whole, in shards, with half precision or with tied embeddings."""
    model = copy.deepcopy(tiny.model)
    if kind == "tied":
        model = build_model(scratch(tiny.architecture, tie_embeddings=True), tiny.tokenizer, seed=2)
    if kind == "half":
        model = model.to(torch.bfloat16)
    if kind == "shards":
        model.save_pretrained(folder, max_shard_size="20KB")
        tiny.tokenizer.save_pretrained(folder)
        assert len(list(folder.glob("*.safetensors"))) > 2
    else:
        save_model(folder, model, tiny.tokenizer)
    return folder


@pytest.mark.parametrize("kind", ["whole", "shards", "half", "tied"])
def test_weights_in_files_are_those_that_are_loaded(tmp_path: Path, tiny: Tiny, kind: str) -> None:
    folder = saved(tmp_path / "m", tiny, kind)
    model = load_model(folder)
    live = {name: p.data for name, p in model.named_parameters()}
    kept = folder_weights(folder, ParameterSpace.of(model))
    assert isinstance(kept, LazyMapping)
    found = Weights(kept, live)
    assert list(found) == list(live) and len(found) == len(live)
    for name, tensor in live.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor)


def test_a_folder_that_lacks_a_name_is_loaded(tmp_path: Path, tiny: Tiny) -> None:
    from safetensors.torch import load_file, save_file

    folder = saved(tmp_path / "m", tiny, "whole")
    model = load_model(folder)
    space = ParameterSpace.of(model)
    other = ParameterSpace(("x", *space.names[1:]), space.shapes)
    found = folder_weights(folder, other)
    assert isinstance(found, dict) and set(found) == set(space.names)
    file = folder / "model.safetensors"
    tensors = load_file(file)
    save_file(dict(list(tensors.items())[1:]), file, {"format": "pt"})
    with pytest.raises(FactRecallError, match="it lacks"):  # the library fills in random numbers
        folder_weights(folder, space)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(DamagedFile):
        folder_weights(folder, space)


@pytest.mark.parametrize("kind", ["whole", "half"])
def test_a_pair_composes_the_same_wherever_it_is_kept(
    tmp_path: Path, tiny: Tiny, kind: str
) -> None:
    base, tuned = (saved(tmp_path / name, tiny, kind) for name in ("base", "tuned"))
    with torch.no_grad():
        model = load_model(tuned)
        for i, p in enumerate(model.parameters()):
            p.add_(0.1 * i)
    save_model(tuned, model, tiny.tokenizer)
    found: dict[str, list[torch.Tensor]] = {}
    for place in ("device", "host"):
        _, model, weights = open_pair(base, tuned, CPU, place=place)  # type: ignore[arg-type]
        some = (~ParameterSet.empty(weights.space)).sample(500, generator(0))
        held = []
        with weights:
            for members in (some, ~some, some - weights.largest_change(300)):
                weights.set(members)
                held += [p.detach().clone() for p in model.parameters()]
            held += weights.changed(some).values()
            assert isinstance(weights.changed(some), dict) == (place == "device")
        found[place] = [*held, *(p.detach() for p in model.parameters())]
    assert all(torch.equal(a, b) for a, b in zip(*found.values(), strict=True))


def test_a_device_without_room_gets_no_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = torch.device("cuda")
    monkeypatch.setattr(placement, "free_memory", lambda _: 40e9 - 4 * 3.2e9)
    paper = 3_200_000_000
    assert choose_place(gpu, paper, 12) == "host" and choose_place(gpu, paper // 4) == "device"
    assert choose_place(gpu, paper // 4, spare=18e9) == "host"
    assert choose_place(CPU, paper, 1e9) == "device"
