"""Rows of examples end to end: nothing lost, nothing seen that is another's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from factrecall.training.batches import (
    BLOCK,
    FLEX,
    IGNORED,
    Example,
    batch_loss,
    block_mask,
    first_fit,
    pack,
    packed,
    padded,
    positions,
    scores_mask,
)
from tests.conftest import Tiny
from tests.unit.test_training import mix_of

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=40)


def example(length: int, number: int) -> Example:
    tokens = np.arange(length) + 100 * number
    targets = np.where(np.arange(length) % 3 == 1, tokens + 1, IGNORED)
    return Example(tokens, targets, "bio", number)


@given(lengths=LENGTHS, capacity=st.integers(60, 200))
def test_bins_hold_everything_once_and_none_overflows(lengths: list[int], capacity: int) -> None:
    bins = first_fit(lengths, capacity)
    assert sorted(i for one in bins for i in one) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in one) <= capacity for one in bins)
    # First fit leaves at most one bin half empty.
    assert sum(2 * sum(lengths[i] for i in one) <= capacity for one in bins) <= 1


@given(lengths=LENGTHS, most=st.integers(16, 300), multiple=st.sampled_from([1, 8, 128]))
def test_rows_hold_every_example_once_with_its_targets(
    lengths: list[int], most: int, multiple: int
) -> None:
    examples = [example(length, i) for i, length in enumerate(lengths)]
    batches = pack(examples, most, multiple)
    assert sorted(e.individual for b in batches for e in b.members) == list(range(len(lengths)))
    sizes = {batch.tokens.shape for batch in batches}
    assert len(sizes) == 1  # kernels are compiled for a length
    (rows, length) = sizes.pop()
    assert rows == 1 and length % multiple == 0
    assert length <= -(-max(most, *lengths) // multiple) * multiple
    for batch in batches:
        assert batch.starts is not None
        tokens, at = batch.tokens[0].numpy(), 0
        expected = []
        for member in batch.members:
            assert (tokens[at : at + len(member.tokens)] == member.tokens).all()
            assert (batch.starts[at : at + len(member.tokens)] == at).all()
            expected += [at + i for i in np.flatnonzero(member.targets != IGNORED)]
            at += len(member.tokens)
        assert batch.where.tolist() == expected
        gold = np.concatenate([m.targets[m.targets != IGNORED] for m in batch.members])
        assert batch.targets.tolist() == gold.tolist()
        assert (batch.starts[at:] == at).all()  # fillers see fillers


def test_a_short_batch_makes_a_short_row_and_lengths_are_few() -> None:
    found = {
        pack([example(40, i) for i in range(count)], 1600)[0].tokens.shape[1]
        for count in range(1, 40)
    }
    assert min(found) == 100 and max(found) <= 1600 and len(found) <= 16


@given(lengths=LENGTHS)
def test_a_token_sees_its_own_example_up_to_itself(lengths: list[int]) -> None:
    examples = [example(length, i) for i, length in enumerate(lengths)]
    length = -(-sum(lengths) // BLOCK) * BLOCK
    batch = packed(examples, length)
    assert batch.starts is not None
    whose = np.repeat(np.arange(len(lengths) + 1), [*lengths, length - sum(lengths)])
    expected = torch.from_numpy((whose[:, None] == whose) & np.tri(length, dtype=bool))
    assert torch.equal(scores_mask(batch.starts, torch.float32)[0, 0] == 0, expected)
    blocks = block_mask(batch.starts)
    place = torch.arange(length)
    seen = torch.vmap(torch.vmap(blocks.mask_mod, (None, None, None, 0)), (None, None, 0, None))(
        torch.tensor(0), torch.tensor(0), place, place
    )
    assert torch.equal(seen, expected)
    # A block that is passed over holds nothing that is seen.
    count = length // BLOCK
    some = expected.view(count, BLOCK, count, BLOCK).any(3).any(1)
    dense = blocks.to_dense()[0, 0].bool()
    assert (dense >= some).all() and (dense <= torch.ones(count, count).tril().bool()).all()
    starting = [0, *np.cumsum(lengths)]
    assert positions(batch.starts)[0, starting[:-1]].eq(0).all()


@pytest.mark.parametrize("kind", ["sdpa", "eager", FLEX])
def test_losses_in_a_row_are_those_of_each_example_alone(tiny: Tiny, kind: str) -> None:
    model = tiny.model
    examples = mix_of(tiny)[::7]
    before = model.config._attn_implementation
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        alone = [batch_loss(model, padded([e]))[1] for e in examples]
        try:
            model.set_attn_implementation(kind)
            for batch in pack(examples, 512, BLOCK):
                _, found = batch_loss(model, batch)
                parts = found.split([e.predicted for e in batch.members])
                for member, losses in zip(batch.members, parts, strict=True):
                    (place,) = (i for i, e in enumerate(examples) if e is member)
                    # Attention sums in another order: some last bits of losses of size 6.
                    torch.testing.assert_close(losses, alone[place], rtol=0, atol=5e-6)
        finally:
            model.set_attn_implementation(before)
