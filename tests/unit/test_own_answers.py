"""Own answers equal those decoded one by one, and the loss on them has the naive gradient."""

from __future__ import annotations

import copy

import numpy as np
import torch

from factrecall.evaluation.batching import Answers
from factrecall.experiments.grafting.dual_averaging import MaskProblem, Questions
from factrecall.experiments.grafting.own_answers import own_answers
from factrecall.models.forward import Encoded
from factrecall.parameters.patched_weights import PatchedWeights
from factrecall.parameters.sets import ParameterSet
from factrecall.runtime.seeds import generator
from factrecall.training.examples import training_set
from factrecall.training.loop import train
from tests.conftest import Tiny, recipe
from tests.unit.test_masks import Dense

CPU = torch.device("cpu")


def naive(model: torch.nn.Module, text: Encoded, longest: int, ends: set[int]) -> list[int]:
    """Decode one text, a whole pass for each token."""
    tokens = text.tokens[: text.answers[0][0]].tolist()
    answer: list[int] = []
    while len(answer) < longest and not (answer and answer[-1] in ends):
        logits = model(torch.tensor([tokens + answer])).logits[0, -1]
        answer.append(int(logits.argmax()))
    return answer


def test_own_answers_are_those_of_greedy_decoding(tiny: Tiny) -> None:
    model = copy.deepcopy(tiny.model)
    lessons = recipe(updates=40, batch_size=24, learning_rate=1e-2)
    facts = tiny.facts
    train(model, training_set("stage", lessons, facts.bio, facts.qa, tiny.tokenizer), lessons, 0)
    model.eval()
    texts = Dense(tiny).texts
    right = Answers.of(texts, 512).right(model)
    assert 0 < right.mean() < 1  # or one of the two ways would not be tested
    lengths = [text.answers[0][1] - text.answers[0][0] for text in texts]
    ends = {int(text.tokens[text.answers[0][1] - 1]) for text in texts}
    for text, own, good in zip(texts, own_answers(model, texts, 512), right, strict=True):
        ((start, end),) = own.answers
        assert start == text.answers[0][0] and (own.tokens[:start] == text.tokens[:start]).all()
        assert own.tokens[start:end].tolist() == naive(model, text, max(lengths), ends)
        gold = text.tokens[start : text.answers[0][1]]
        assert np.array_equal(own.tokens[start:end], gold) == good
        if not good:
            assert len(own.tokens) == end


def test_the_gradient_is_that_of_the_loss_on_own_answers(tiny: Tiny) -> None:
    dense = Dense(tiny)
    n = dense.space.size
    with PatchedWeights(dense.model, dense.pre) as weights:
        own = own_answers(dense.model, dense.texts, 512)
        assert any(len(a.tokens) != len(b.tokens) for a, b in zip(own, dense.texts, strict=True))
        mask = (~ParameterSet.empty(dense.space)).sample(n // 3, generator(2))
        weights.set(mask)
        problem = MaskProblem(
            weights, dense.model, Questions(own, 512, CPU, generator(1)), [n], mask - mask
        )
        found: dict[str, torch.Tensor] = {}
        problem.descend(9, lambda name, g: found.update({name: g.clone()}))
    flat = torch.cat([found[name].reshape(-1) for name in dense.space.names])
    inside = torch.zeros(n)
    inside[torch.from_numpy(mask.index.astype(np.int64))] = 1.0
    answers = Questions(own, 512, CPU, generator(1)).draw(9)
    expected = dense.gradient(inside, answers)
    # float32, sums in another order: 1e-5 of the largest entry.
    tolerance = 1e-5 * float(expected.abs().max())
    torch.testing.assert_close(flat * dense.change, expected, rtol=1e-4, atol=tolerance)
