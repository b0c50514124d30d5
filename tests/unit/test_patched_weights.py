"""A live model of two sets of weights: the identities of method section 5, and nothing left."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from factrecall.parameters.patched_weights import PatchedWeights
from factrecall.parameters.sets import ParameterSet
from factrecall.parameters.space import ParameterSpace
from factrecall.runtime.errors import FactRecallError
from factrecall.runtime.seeds import generator
from tests.conftest import Tiny

DTYPES = (torch.float32, torch.bfloat16)
Weights = dict[str, torch.Tensor]


def weights_of(model: torch.nn.Module) -> Weights:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


@pytest.fixture(params=DTYPES, ids=["float32", "bfloat16"])
def pair(request: pytest.FixtureRequest, tiny: Tiny) -> tuple[torch.nn.Module, Weights, Weights]:
    """A live θtask, and both weights of it; every scalar differs, some by their sign alone."""
    model = copy.deepcopy(tiny.model).to(request.param)
    pre = weights_of(model)
    with torch.no_grad():
        for i, parameter in enumerate(model.parameters()):
            parameter.copy_(-parameter if i % 3 == 0 else parameter * 1.5 + 0.1)
    return model, pre, weights_of(model)


@pytest.fixture(params=["device", "host", "given"])
def place(request: pytest.FixtureRequest) -> str:
    """Where θpre and θtask are kept; "given" means outside of the device, θtask, too."""
    return str(request.param)


def compose_at(
    place: str, model: torch.nn.Module, pre: Weights, task: Weights | None = None
) -> PatchedWeights:
    if place == "device":
        return PatchedWeights(model, pre)
    return PatchedWeights(model, pre, task if place == "given" else None, "host")


def same(model: torch.nn.Module, expected: Weights) -> bool:
    return all(
        torch.equal(p.view(torch.int16), expected[n].view(torch.int16))  # bits: -0 is not 0
        for n, p in model.named_parameters()
    )


def naive(space: ParameterSpace, members: ParameterSet, pre: Weights, task: Weights) -> Weights:
    """Build θ(members) anew from dense masks."""
    mask = np.isin(np.arange(space.size), members.index) != members.complement
    starts = dict(space.offsets())
    return {
        name: torch.where(
            torch.from_numpy(mask[starts[name] :][: pre[name].numel()]).view(pre[name].shape),
            task[name],
            pre[name],
        )
        for name in space.names
    }


def test_nothing_is_pre_and_everything_is_task(
    pair: tuple[torch.nn.Module, Weights, Weights], place: str
) -> None:
    model, pre, task = pair
    nothing = ParameterSet.empty(ParameterSpace.of(model))
    everything = ParameterSet.of(nothing.space, np.arange(nothing.space.size))
    with compose_at(place, model, pre, task) as weights:
        assert same(model, task)
        for members, expected in (
            (nothing, pre),
            (~nothing, task),
            (everything, task),
            (~everything, pre),
        ):
            weights.set(members)
            assert same(model, expected)
        weights.set(nothing)
    assert same(model, task)


@settings(
    deadline=None,
    max_examples=15,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    steps=st.lists(st.tuples(st.integers(0, 5000), st.booleans()), min_size=1, max_size=5),
    seed=st.integers(0, 999),
)
def test_any_sequence_of_sets_equals_building_each_anew(
    pair: tuple[torch.nn.Module, Weights, Weights],
    place: str,
    steps: list[tuple[int, bool]],
    seed: int,
) -> None:
    model, pre, task = pair
    nothing = ParameterSet.empty(ParameterSpace.of(model))
    rng = generator(seed, "steps")
    with compose_at(place, model, pre, task) as weights:
        for size, complement in steps:
            members = (~nothing).sample(size, rng)
            members = ~members if complement else members
            weights.set(members)
            assert same(model, naive(weights.space, members, pre, task))
    assert same(model, task)


def test_a_step_writes_only_what_it_changes(
    pair: tuple[torch.nn.Module, Weights, Weights], place: str
) -> None:
    model, pre, task = pair
    some = (~ParameterSet.empty(ParameterSpace.of(model))).sample(2000, generator(1))
    part = some.sample(100, generator(2))
    with compose_at(place, model, pre, task) as weights:
        weights.set(some)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(7.0)  # so that whatever is written shows
        weights.set(some - part)
        written = {name: (p.detach() != 7.0).sum().item() for name, p in model.named_parameters()}
    assert written == part.counts()


def test_nothing_is_left_after_an_exception(
    pair: tuple[torch.nn.Module, Weights, Weights], place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, pre, task = pair
    kept = {name: p.clone() for name, p in pre.items()}
    some = (~ParameterSet.empty(ParameterSpace.of(model))).sample(2000, generator(1))
    with pytest.raises(KeyboardInterrupt), compose_at(place, model, pre, task) as weights:
        weights.set(some)
        with torch.no_grad():
            next(model.parameters()).zero_()  # what a user's own code may do inside
        raise KeyboardInterrupt
    assert same(model, task)

    calls = iter(range(100))

    def interrupted(*arguments: object) -> None:
        if next(calls) == 3:
            raise KeyboardInterrupt
        original(*arguments)  # type: ignore[arg-type]

    from factrecall.parameters import weights as module

    original = module.Weights.write_at
    with compose_at(place, model, pre, task) as weights:
        monkeypatch.setattr(module.Weights, "write_at", interrupted)
        with pytest.raises(KeyboardInterrupt):
            weights.set(some)
        monkeypatch.undo()
        weights.set(some)  # what an interrupted writing left is put right
        assert same(model, naive(weights.space, some, pre, task))
    assert same(model, task)
    assert all(torch.equal(pre[name], kept[name]) for name in kept)


def test_a_tied_tensor_is_written_once_and_stays_tied() -> None:
    from factrecall.config.facts import Facts
    from factrecall.data.tables import make_facts
    from factrecall.models.scratch import build_model
    from tests.conftest import SMALL_POOLS, scratch, tokenizer_for

    facts = make_facts(Facts(people=4, pools=SMALL_POOLS), seed=0)
    model = build_model(scratch("llama", tie_embeddings=True), tokenizer_for(facts), seed=1)
    pre = {name: torch.zeros_like(p) for name, p in weights_of(model).items()}
    with PatchedWeights(model, pre) as weights:
        weights.set(ParameterSet.empty(weights.space))
        assert not model.lm_head.weight.any()
    assert model.lm_head.weight is model.model.embed_tokens.weight and model.lm_head.weight.any()


def test_what_does_not_fit_is_refused(tiny: Tiny) -> None:
    model = copy.deepcopy(tiny.model)
    pre = weights_of(model)
    with pytest.raises(FactRecallError, match="different parameter spaces"):
        PatchedWeights(model, {name: p for name, p in list(pre.items())[1:]})
    weights = PatchedWeights(model, pre)
    with pytest.raises(RuntimeError, match="with"):
        weights.set(ParameterSet.empty(weights.space))
    with weights, pytest.raises(FactRecallError, match="different parameter spaces"):
        weights.set(ParameterSet.empty(ParameterSpace(("a",), ((3,),))))
