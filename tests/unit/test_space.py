"""The flat index over a model's parameters, and the fingerprint that guards it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from factrecall.models.scratch import build_model
from factrecall.parameters.space import ParameterSpace
from tests.conftest import ARCHITECTURES, Tiny, scratch


def test_indices_are_those_of_the_parameters_laid_end_to_end(tiny: Tiny) -> None:
    space = ParameterSpace.of(tiny.model)
    flat = torch.cat([p.detach().reshape(-1) for p in tiny.model.parameters()])
    assert space.size == len(flat) == sum(space.sizes)
    named = dict(tiny.model.named_parameters())
    assert [name for name, _ in space.offsets()] == list(named) == list(space.names)
    for (name, start), size in zip(space.offsets(), space.sizes, strict=True):
        assert torch.equal(flat[start : start + size], named[name].detach().reshape(-1))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_tied_tensor_is_counted_once(tiny: Tiny, architecture: str) -> None:
    tied, free = (
        build_model(scratch(architecture, tie_embeddings=tie), tiny.tokenizer, seed=0)
        for tie in (True, False)
    )
    assert tied.get_input_embeddings().weight is tied.get_output_embeddings().weight
    embedding = free.get_output_embeddings().weight.numel()
    assert ParameterSpace.of(free).size - ParameterSpace.of(tied).size == embedding
    assert ParameterSpace.of(free).fingerprint != ParameterSpace.of(tied).fingerprint


def test_the_fingerprint_tells_names_shapes_and_order_but_not_values(tiny: Tiny) -> None:
    space = ParameterSpace(("a", "b"), ((2, 3), (6,)))
    others = [
        ParameterSpace(("a", "c"), ((2, 3), (6,))),
        ParameterSpace(("a", "b"), ((3, 2), (6,))),
        ParameterSpace(("b", "a"), ((6,), (2, 3))),
        ParameterSpace(("a", "b"), ((6,), (2, 3))),
        ParameterSpace(("a",), ((2, 3),)),
    ]
    for one, other in itertools.combinations([space, *others], 2):
        assert one.fingerprint != other.fingerprint
    assert space.fingerprint == ParameterSpace(("a", "b"), ((2, 3), (6,))).fingerprint
    settings = scratch(tiny.architecture)
    first, second = (build_model(settings, tiny.tokenizer, seed) for seed in (0, 1))
    assert ParameterSpace.of(first) == ParameterSpace.of(second)


def test_indices_have_32_bits_where_these_reach() -> None:
    assert ParameterSpace(("a",), ((2**16, 2**16),)).index_dtype == np.uint32
    assert ParameterSpace(("a", "b"), ((2**16, 2**16), (1,))).index_dtype == np.uint64


def test_scalars_have_an_index() -> None:
    module = nn.ParameterDict({"scale": nn.Parameter(torch.tensor(1.0))})
    space = ParameterSpace.of(module)
    assert (space.size, space.sizes, list(space.offsets())) == (1, (1,), [("scale", 0)])
