"""Texts in shared rows: each is there once, alone in what it sees, and nothing could be shorter."""

from __future__ import annotations

import copy
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from factrecall.evaluation.batching import Answers
from factrecall.evaluation.prefix_sharing import Row, layout, pack
from factrecall.models.forward import encode, logits_at
from tests.conftest import Tiny

TEXTS = st.lists(
    st.lists(st.integers(0, 2), min_size=1, max_size=6).map(np.array), min_size=1, max_size=6
)


def tokens_of(row: Row, texts: list[np.ndarray]) -> int:
    return row.shared + sum(len(texts[i]) - row.shared for i in row.texts)


def fewest(texts: list[np.ndarray], own: list[int], most: int) -> int:
    """Try every way to put texts into rows."""

    def cost(group: tuple[int, ...]) -> int | None:
        if len(group) == 1:
            return len(texts[group[0]])
        shared = min(own[i] for i in group)
        heads = [texts[i][:shared].tolist() for i in group]
        while shared and any(h[:shared] != heads[0][:shared] for h in heads):
            shared -= 1
        total = tokens_of(Row(group, shared), texts)
        return total if shared and total <= most else None

    def best(rest: tuple[int, ...]) -> int:
        if not rest:
            return 0
        found = []
        for size in range(len(rest)):
            for others in combinations(rest[1:], size):
                group = (rest[0], *others)
                if (tokens := cost(group)) is not None:
                    found.append(tokens + best(tuple(i for i in rest if i not in group)))
        return min(found)

    return best(tuple(range(len(texts))))


@settings(max_examples=150)
@given(texts=TEXTS, most=st.integers(4, 20) | st.just(1000), data=st.data())
def test_rows_hold_every_text_once_in_the_fewest_tokens(
    texts: list[np.ndarray], most: int, data: st.DataObject
) -> None:
    if alike := data.draw(st.booleans()):
        own = [data.draw(st.integers(0, min(map(len, texts)) - 1))] * len(texts)
    else:
        own = [data.draw(st.integers(0, len(t) - 1)) for t in texts]
    rows = pack(texts, own, most)
    assert sorted(i for row in rows for i in row.texts) == list(range(len(texts)))
    for row in rows:
        if len(row.texts) == 1:
            assert row.shared == 0
            continue
        assert 0 < row.shared <= min(own[i] for i in row.texts)
        assert len({texts[i][: row.shared].tobytes() for i in row.texts}) == 1
        assert tokens_of(row, texts) <= most
    found = sum(tokens_of(row, texts) for row in rows)
    # Rows are runs of the sorted texts: with few limits on what is shared, and none on a row's
    # length, that loses nothing.
    if alike and most == 1000:
        assert found == fewest(texts, own, most)
    assert found <= sum(map(len, texts))


def test_a_token_attends_to_its_own_text_alone() -> None:
    positions, attends = layout([Row((0, 1), 2), Row((2,), 0)], [4, 3, 2])
    assert positions.tolist() == [[0, 1, 2, 3, 2], [0, 1, 0, 0, 0]]
    assert attends.shape == (2, 1, 5, 5)
    seen = [row.nonzero()[:, 0].tolist() for row in attends[0, 0]]
    assert seen == [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3], [0, 1, 4]]
    # Of the padding nothing is asked, but a softmax over nothing would be no number.
    assert attends.any(-1).all() and not attends[1, 0, :2, 2:].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_logits_are_those_of_each_text_alone(tiny: Tiny, dtype: torch.dtype) -> None:
    model = copy.deepcopy(tiny.model).to(dtype).eval()
    qa = tiny.facts.qa
    spans = list(zip(qa["attribute_start"], qa["terminator_end"], strict=True))
    texts = encode(tiny.tokenizer, list(qa["text"]), [[s] for s in spans])
    answers = Answers.of(texts, 300)
    assert sum(b.texts for b in answers.batches) == len(texts)
    assert any(b.texts > len(b.tokens) for b in answers.batches)  # rows are shared
    with torch.inference_mode():
        for batch in answers.batches:
            packed = batch.logits(model)
            for number in set(batch.answer.tolist()):
                text, span = texts[number], torch.from_numpy(batch.answer == number)
                tokens = torch.from_numpy(text.tokens)[None]
                where = torch.zeros_like(tokens, dtype=torch.bool)
                first, last = text.answers[0]
                where[0, first - 1 : last - 1] = True
                # Attention adds the same terms in another order: some units in the last place.
                torch.testing.assert_close(
                    packed[span],
                    logits_at(model, tokens, where),
                    rtol=0,
                    atol=1e-5 if dtype == torch.float32 else 1e-13,
                )
                assert batch.gold[span].tolist() == text.tokens[first:last].tolist()
