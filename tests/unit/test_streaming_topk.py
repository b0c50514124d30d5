"""The largest scores, selected in a stream, equal those of a full sort."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from factrecall.parameters import streaming_topk as module
from factrecall.parameters.streaming_topk import argsort_descending, top_k
from factrecall.runtime.errors import FactRecallError

# Ties, both zeros, infinities, values that share their upper 16 bits, and anything else.
FLOATS = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, 1.0 + 2**-20, -1.0, float("inf"), float("-inf"), 1e-40]),
    st.floats(width=32, allow_nan=False),
)
TENSORS = st.lists(arrays(np.float32, st.integers(0, 12), elements=FLOATS), min_size=1, max_size=4)


def in_falling_order(flat: np.ndarray) -> np.ndarray:
    return np.lexsort((np.arange(len(flat)), -flat))


@given(TENSORS, st.integers(1, 40), st.booleans(), st.sampled_from([1, 3, 7, 1 << 16]))
def test_top_equals_a_full_sort_with_ties_by_index(
    parts: list[np.ndarray], keep: int, positive: bool, room: int
) -> None:
    with (
        patch.object(module, "_ROOM", room),
        patch.object(module, "_SAMPLE", room),
        patch.dict(module._CHUNK, cpu=room),
    ):
        index, value = top_k(
            lambda: [torch.from_numpy(p) for p in parts], keep, np.uint32, positive=positive
        )
    flat = np.concatenate(parts)
    order = in_falling_order(flat)
    order = order[flat[order] > 0] if positive else order
    assert index.dtype == np.uint32 and value.dtype == np.float32
    assert index.tolist() == sorted(order[:keep].tolist())
    assert np.array_equal(value, flat[index])


@given(arrays(np.float32, st.integers(0, 50), elements=FLOATS))
def test_falling_is_a_stable_descending_argsort(value: np.ndarray) -> None:
    assert argsort_descending(value).tolist() == in_falling_order(value).tolist()


@pytest.mark.parametrize("order", ["random", "rising", "falling", "equal"])
def test_room_and_chunks_do_not_show(order: str) -> None:
    scores = torch.randn(10_000, generator=torch.Generator().manual_seed(0)).round(decimals=1)
    if order != "random":
        scores = scores.sort(descending=order == "falling").values
    scores = torch.ones_like(scores) if order == "equal" else scores
    whole = top_k(lambda: [scores], 700)
    with patch.object(module, "_ROOM", 5), patch.dict(module._CHUNK, cpu=7):
        for one, other in zip(whole, top_k(lambda: scores.view(100, 100), 700), strict=True):
            assert np.array_equal(one, other)
    with patch.object(module, "_ROOM", 2000), patch.object(module, "_SAMPLE", 500):
        for one, other in zip(whole, top_k(lambda: [scores], 700), strict=True):
            assert np.array_equal(one, other)
    expected = np.sort(in_falling_order(scores.numpy())[:700])
    assert whole[0].tolist() == expected.tolist()


def test_indices_beyond_32_bits_are_told() -> None:
    best = module._Best(2, np.dtype(np.uint64), False)
    best.offer(torch.tensor([1.0, 3.0, 2.0]), 2**33)
    assert best.end()[0].tolist() == [2**33 + 1, 2**33 + 2]


def test_half_precision_scores_are_selected_too() -> None:
    scores = torch.tensor([1.0, 3.0, 2.0], dtype=torch.bfloat16)
    assert top_k(lambda: [scores], 2)[0].tolist() == [1, 2]


@pytest.mark.parametrize("sign", [1, -1])
def test_what_is_no_number_is_refused(sign: int) -> None:
    bad = torch.tensor([1.0, sign * float("nan")])
    with pytest.raises(FactRecallError, match="not numbers"):
        top_k(lambda: [bad], 1)
