"""Questions asked only as far as they may be right: the same verdicts as asked whole."""

from __future__ import annotations

import numpy as np
import pytest

from factrecall.evaluation.batching import Answers
from factrecall.evaluation.early_exit import EarlyExit
from factrecall.models.forward import Encoded
from factrecall.runtime.seeds import generator

STAGES = 12


def texts() -> list[Encoded]:
    """Return texts with one or two answers of one to four tokens; 0 is in no text."""
    rng = generator(0, "texts")
    made = []
    for _ in range(25):
        tokens = rng.integers(1, 50, size=rng.integers(12, 20))
        first = int(rng.integers(2, 5))
        answers = [(first, first + int(rng.integers(1, 3)))] if rng.random() < 0.5 else []
        start = 8
        answers.append((start, start + int(rng.integers(1, 5))))
        made.append(Encoded(tokens, tuple(answers)))
    return made


class Oracle:
    """A model that predicts each answer token rightly or not, by a table."""

    def __init__(self, asked: list[Encoded], seed: int, chance: float) -> None:
        rng = generator(seed, "oracle")
        self.wrong = [rng.random(len(t.tokens)) > chance for t in asked]
        self.by_start = {t.tokens[:8].tobytes(): i for i, t in enumerate(asked)}

    def verdicts(self, answers: Answers) -> np.ndarray:
        """Judge from what passes: the tokens a row holds up to each predicted place."""
        right = np.ones(answers.count, dtype=bool)
        for batch in answers.batches:
            places = batch.where.nonzero().tolist()
            for (row, place), number in zip(places, batch.answer, strict=True):
                seen = slice(place + 1) if batch.attends is None else batch.attends[row, 0, place]
                context = batch.tokens[row][seen].numpy()
                number_of_text = next(
                    i
                    for start, i in self.by_start.items()
                    if np.frombuffer(start, dtype=np.int64)[: len(context)].tolist()
                    == context[:8].tolist()
                )
                right[number] &= not self.wrong[number_of_text][len(context)]
        return right

    def expected(self, asked: list[Encoded]) -> np.ndarray:
        return np.array(
            [not w[a:b].any() for t, w in zip(asked, self.wrong, strict=True) for a, b in t.answers]
        )


@pytest.mark.parametrize("chance", [0.0, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("often", [1, 3, 99])
def test_verdicts_are_those_of_whole_texts(chance: float, often: int) -> None:
    asked = texts()
    beginnings = EarlyExit(asked, 200)
    whole = beginnings.answers.tokens
    for stage in range(STAGES):
        model = Oracle(asked, stage, chance)
        if stage and stage % often == 0:
            beginnings.renew()
        found = beginnings.judge(model.verdicts(beginnings.answers), model.verdicts)
        assert found.tolist() == model.expected(asked).tolist()
        assert len(found) == beginnings.count
        if chance == 1.0:
            assert beginnings.wasted_tokens == beginnings.extra_tokens == 0
    beginnings.renew()
    if chance == 0.0:
        assert beginnings.answers.tokens < whole  # all begin wrongly, and are cut short


def test_wasted_and_extra_tokens_are_counted() -> None:
    asked = texts()
    beginnings = EarlyExit(asked, 200)
    rest = sum(t.answers[-1][1] - t.answers[-1][0] - 1 for t in asked)
    never, always = Oracle(asked, 0, 0.0), Oracle(asked, 0, 1.0)
    beginnings.judge(never.verdicts(beginnings.answers), never.verdicts)
    assert beginnings.wasted_tokens == rest and beginnings.extra_tokens == 0
    beginnings.renew()
    beginnings.judge(never.verdicts(beginnings.answers), never.verdicts)
    assert beginnings.wasted_tokens == beginnings.extra_tokens == 0
    beginnings.judge(always.verdicts(beginnings.answers), always.verdicts)
    assert beginnings.wasted_tokens == 0 and beginnings.extra_tokens > rest
