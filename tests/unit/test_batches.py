"""Order of examples, micro-batches, and that padding changes no one's logits."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from factrecall.models.forward import logits_at
from factrecall.models.passes import cut, pad
from factrecall.training.batches import IGNORED, batch_indices, micro_batches
from factrecall.training.examples import training_set
from tests.conftest import Tiny, recipe

LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=24)


def cost(lengths: list[int], groups: list[np.ndarray], pass_cost: int) -> int:
    sizes = np.asarray(lengths)
    return sum(len(g) * int(sizes[g].max()) + pass_cost for g in groups)


@given(LENGTHS, st.integers(1, 200), st.integers(0, 60))
def test_cut_takes_every_sequence_once_and_keeps_to_the_limit(
    lengths: list[int], most: int, pass_cost: int
) -> None:
    groups = cut(lengths, most, pass_cost)
    assert sorted(np.concatenate(groups).tolist()) == list(range(len(lengths)))
    sizes = np.asarray(lengths)
    assert all(len(g) == 1 or len(g) * sizes[g].max() <= most for g in groups)


@given(st.lists(st.integers(1, 12), min_size=1, max_size=7), st.integers(4, 60), st.integers(0, 9))
@settings(max_examples=60)
def test_cut_is_as_cheap_as_the_best_of_all_ways(
    lengths: list[int], most: int, pass_cost: int
) -> None:
    order = np.argsort(lengths, kind="stable")
    sizes = np.asarray(lengths)
    best = float("inf")
    for count in range(len(lengths)):
        for places in itertools.combinations(range(1, len(lengths)), count):
            groups = [g for g in np.split(order, places) if len(g)]
            if all(len(g) == 1 or len(g) * sizes[g].max() <= most for g in groups):
                best = min(best, cost(lengths, groups, pass_cost))
    assert cost(lengths, cut(lengths, most, pass_cost), pass_cost) == best


@given(st.integers(1, 30), st.integers(1, 12), st.integers(0, 2**40))
def test_passes_over_the_data_are_permutations_without_a_gap(
    examples: int, batch: int, seed: int
) -> None:
    updates = -(-3 * examples // batch)
    seen = np.concatenate([batch_indices(examples, batch, u, seed) for u in range(updates)])
    for epoch in range(3):
        part = seen[epoch * examples : (epoch + 1) * examples]
        assert sorted(part.tolist()) == list(range(examples))


def test_the_order_depends_on_seed_and_epoch() -> None:
    first = batch_indices(50, 50, 0, seed=1)
    assert (first == batch_indices(50, 50, 0, seed=1)).all()
    assert (first != batch_indices(50, 50, 0, seed=2)).any()
    assert (first != batch_indices(50, 50, 1, seed=1)).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_logits_in_a_micro_batch_are_those_of_the_example_alone(
    tiny: Tiny, dtype: torch.dtype
) -> None:
    model = tiny.model.to(dtype)
    examples = training_set("mix", recipe(), tiny.facts.bio, tiny.facts.qa, tiny.tokenizer)[::5]
    # Sums over other shapes round differently: some last bits of numbers of size 1.
    tolerance = 2e-5 if dtype == torch.float32 else 1e-12
    compared = 0
    with torch.no_grad():
        for batch in micro_batches(examples, 2048):
            rows = logits_at(model, batch.tokens, batch.where)
            parts = rows.split([member.predicted for member in batch.members])
            for member, row in zip(batch.members, parts, strict=True):
                alone = model(input_ids=pad([member.tokens], 0)).logits[0]
                alone = alone[torch.from_numpy(member.targets != IGNORED)]
                torch.testing.assert_close(row, alone, rtol=0, atol=tolerance)
                compared += 1
    assert compared == len(examples)
