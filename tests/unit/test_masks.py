"""Masks fitted in place, tensor by tensor, equal those of dense tensors and plain autograd."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from factrecall.evaluation.batching import Answers
from factrecall.experiments.grafting.dual_averaging import (
    MaskProblem,
    Questions,
    dual_averaging,
    gradients,
    updates_of,
)
from factrecall.experiments.grafting.schedule import FIRST, PATH_POINTS
from factrecall.experiments.grafting.settings import DualAveraging, SigmoidSGD
from factrecall.experiments.grafting.sigmoid_sgd import sigmoid_sgd
from factrecall.models.forward import Encoded, encode
from factrecall.parameters.patched_weights import PatchedWeights
from factrecall.parameters.placement import Place
from factrecall.parameters.sets import ParameterSet
from factrecall.parameters.space import ParameterSpace
from factrecall.runtime.checkpoint import Checkpoint
from factrecall.runtime.seeds import generator
from tests.conftest import Tiny

CPU = torch.device("cpu")


class Dense:
    """θpre, θtask and a loss of a flat mask, as they are written down."""

    def __init__(self, tiny: Tiny) -> None:
        self.model = copy.deepcopy(tiny.model).eval()
        generator_ = torch.Generator().manual_seed(5)
        self.pre = {n: p.detach().clone() for n, p in self.model.named_parameters()}
        with torch.no_grad():
            for p in self.model.parameters():
                p.add_(torch.randn(p.shape, generator=generator_) * 0.2)
        self.space = ParameterSpace.of(self.model)
        self.start = torch.cat([self.pre[n].reshape(-1) for n in self.space.names])
        task = torch.cat([p.detach().reshape(-1) for p in self.model.parameters()])
        self.change = task - self.start
        qa = tiny.facts.qa[tiny.facts.qa["split"] == "in"]
        spans = zip(qa["attribute_start"], qa["terminator_end"], strict=True)
        self.texts: list[Encoded] = encode(tiny.tokenizer, list(qa["text"]), [[s] for s in spans])

    def questions(self) -> Questions:
        return Questions(self.texts, 512, CPU, generator(0, "questions"))

    def loss(self, mask: torch.Tensor, answers: Answers) -> torch.Tensor:
        """Return the mean loss a token of θpre + mask ⊙ change, each predicted by itself."""
        flat = self.start + mask * self.change
        weights = {
            n: part.view(s)
            for n, part, s in zip(
                self.space.names, flat.split(self.space.sizes), self.space.shapes, strict=True
            )
        }
        total, tokens = torch.zeros(()), 0
        for batch in answers.batches:
            for gold, (row, place) in zip(batch.gold, batch.where.nonzero(), strict=True):
                seen = slice(place + 1) if batch.attends is None else batch.attends[row, 0, place]
                context = batch.tokens[row][seen][None]
                logits = torch.func.functional_call(self.model, weights, (context,)).logits[0, -1]
                total = total + torch.nn.functional.cross_entropy(logits, gold)
                tokens += 1
        return total / tokens

    def gradient(self, mask: torch.Tensor, answers: Answers) -> torch.Tensor:
        mask = mask.clone().requires_grad_()
        return torch.autograd.grad(self.loss(mask, answers), mask)[0]

    @contextmanager
    def composed(self, place: Place = "device") -> Iterator[PatchedWeights]:
        with PatchedWeights(self.model, self.pre, place=place) as weights:
            yield weights


@pytest.fixture
def dense(tiny: Tiny) -> Dense:
    return Dense(tiny)


def alike(one: ParameterSet, other: set[int]) -> bool:
    """Say whether masks are equal but for scores that float32 cannot tell apart."""
    return len(set(one.index.tolist()) ^ other) <= max(2, len(other) // 200)


def test_dual_averaging_is_projected_descent_on_the_mask(dense: Dense) -> None:
    n = dense.space.size
    settings = DualAveraging(method="dual_averaging", updates=2, batch_size=7, step=0.3)
    left_out = (~ParameterSet.empty(dense.space)).sample(n // 4, generator(3))
    asked = [n // 50, n // 10]
    done: list[int] = []
    with dense.composed() as weights:
        task = (weights, dense.model, dense.questions(), asked, left_out, done.append)
        found = dual_averaging(settings, MaskProblem(*task))
    assert done == list(range(updates_of(settings, 2) + 1))

    kept = torch.ones(n)
    kept[torch.from_numpy(left_out.index.astype(np.int64))] = 0.0
    dense.change = dense.change * kept
    questions = dense.questions()
    scores = torch.zeros(n)
    for point in range(PATH_POINTS):
        mask = torch.full((n,), (point + 0.5) / PATH_POINTS)
        scores -= dense.gradient(mask, questions.draw(7)) / PATH_POINTS
    scores[dense.change == 0] = -torch.inf

    def largest(size: int) -> torch.Tensor:
        mask = torch.zeros(n)
        mask[torch.argsort(scores, descending=True, stable=True)[:size]] = 1.0
        return mask

    for size, updates in ((asked[1], 2 * FIRST), (asked[0], 2)):
        for _ in range(updates):
            scores -= settings.step * dense.gradient(largest(size), questions.draw(7))
        expected = set(largest(size).nonzero().squeeze(1).tolist())
        assert alike(found[size], expected) and len(found[size]) == size
        assert not len(found[size] & left_out)


def test_a_mask_holds_no_more_than_moved(dense: Dense) -> None:
    settings = DualAveraging(method="dual_averaging", updates=1, batch_size=4)
    few = (~ParameterSet.empty(dense.space)).sample(10, generator(1))
    with dense.composed() as weights:
        task = MaskProblem(weights, dense.model, dense.questions(), [50], ~few)
        found = dual_averaging(settings, task)
        assert found[50] == few
        assert weights.largest_change(50, ~few) == few


def test_sigmoid_sgd_is_descent_on_the_logits_of_equation_6(dense: Dense) -> None:
    n = dense.space.size
    settings = SigmoidSGD(method="sigmoid_sgd", updates=6, batch_size=2, learning_rate=1e7, check=3)
    left_out = (~ParameterSet.empty(dense.space)).sample(n // 4, generator(3))
    size = n // 10
    found: dict[int, ParameterSet] = {}

    def look(update: int, mask: ParameterSet) -> bool:
        found[update] = mask
        return False

    with dense.composed() as weights:
        task = MaskProblem(weights, dense.model, dense.questions(), [size], left_out)
        masks = sigmoid_sgd(settings, task, look)
        base = torch.zeros(n)
        base[torch.from_numpy(weights.largest_change(size, left_out).index.astype(np.int64))] = 1.0
    outside = torch.from_numpy(left_out.index.astype(np.int64))
    dense.change[outside] = 0.0
    questions = dense.questions()
    logits = torch.full((n,), float(np.log(1e-4 / (1 - 1e-4))))
    expected = {}
    for update in range(7):
        share = logits.sigmoid()
        mask = base * (1 - share) + (1 - base) * share
        expected[update] = set((mask > 0.5).nonzero().squeeze(1).tolist())
        logits.requires_grad_()
        share = logits.sigmoid()
        loss = dense.loss(base * (1 - share) + (1 - base) * share, questions.draw(2))
        (gradient,) = torch.autograd.grad(loss, logits)
        logits = (logits - settings.learning_rate * gradient).detach()
    assert list(found) == [0, 3, 6] and masks == {size: found[6]}
    assert found[0].index.tolist() == sorted(expected[0])
    assert expected[6] != expected[0]  # or there would be nothing to compare
    assert all(alike(found[update], expected[update]) for update in found)


def test_sigmoid_sgd_ends_when_the_mask_has_grown_by_half(dense: Dense) -> None:
    settings = SigmoidSGD(
        method="sigmoid_sgd", updates=50, batch_size=2, learning_rate=1e12, check=1
    )
    seen: list[tuple[int, int]] = []
    done: list[int] = []

    def look(update: int, mask: ParameterSet) -> bool:
        seen.append((update, len(mask)))
        return len(mask) == 20 and update == 0 and len(seen) > 1  # the second size's first

    nothing = ParameterSet.empty(dense.space)
    with dense.composed() as weights:
        task = (weights, dense.model, dense.questions(), [10, 20], nothing, done.append)
        found = sigmoid_sgd(settings, MaskProblem(*task), look)
    *before, last, second = seen
    assert last[0] < 50 and last[1] > 15 and len(found[10]) == last[1]
    assert all(size <= 15 for _, size in before)
    # The other ends at once, since its mask was good enough; what was not needed counts as done.
    assert second == (0, 20) and len(found[20]) == 20
    assert done == [*range(last[0] + 1), 50, 100]


@pytest.mark.parametrize(
    ("settings", "total", "stops"),
    [
        (DualAveraging(method="dual_averaging", updates=2, batch_size=7), 20, (1, 12, 15, 18, 19)),
        (SigmoidSGD(
            method="sigmoid_sgd", updates=5, batch_size=3, learning_rate=1e6, check=2
        ), 10, (1, 2, 5, 7, 9)),
    ],
    ids=["dual averaging", "sigmoid"],
)  # fmt: skip
def test_stopped_at_any_update_a_fit_goes_on_where_it_was(
    dense: Dense, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    settings: DualAveraging | SigmoidSGD, total: int, stops: tuple[int, ...],
) -> None:  # fmt: skip
    n = dense.space.size
    left_out = (~ParameterSet.empty(dense.space)).sample(n // 4, generator(3))
    drawn = [0]
    draw = Questions.draw

    def counted(questions: Questions, count: int) -> Answers:
        drawn[0] += 1
        return draw(questions, count)

    monkeypatch.setattr(Questions, "draw", counted)

    def fit(stop: int, checkpoint: Checkpoint | None) -> tuple[dict[int, ParameterSet], list[int]]:
        seen: list[int] = []

        def watch(done: int) -> None:
            seen.append(done)
            if done == stop:
                raise KeyboardInterrupt

        drawn[0] = 0
        with dense.composed() as weights:
            task = (weights, dense.model, dense.questions(), [n // 50, n // 10], left_out)
            problem = MaskProblem(*task, watch, checkpoint)
            if settings.method == "dual_averaging":
                return dual_averaging(settings, problem), seen
            return sigmoid_sgd(settings, problem, lambda *_: False), seen

    whole, seen = fit(-1, None)
    assert seen[0] == 0 and seen[-1] == total == drawn[0]
    with dense.composed() as weights:
        assert all(mask != weights.largest_change(size, left_out) for size, mask in whole.items())
    for stop in stops:
        path = tmp_path / f"{stop}.safetensors"
        with pytest.raises(KeyboardInterrupt):
            fit(stop + 1, Checkpoint(path, 0.0))
        found, seen = fit(-1, Checkpoint(path, 1e9))
        assert found == whole
        assert all(found[size].index.tobytes() == whole[size].index.tobytes() for size in whole)
        # What was done is not done again, and what is done now is not done before it is told.
        assert seen[0] == stop and seen[-1] == total and drawn[0] == total - stop
        # A fit at its end keeps its masks: nothing more is drawn.
        found, seen = fit(-1, Checkpoint(path, 1e9))
        assert found == whole and set(seen) == {total} and drawn[0] == 0


def test_masks_are_the_same_wherever_weights_are_kept(dense: Dense) -> None:
    n = dense.space.size
    left_out = (~ParameterSet.empty(dense.space)).sample(n // 4, generator(3))
    found = []
    places: tuple[Place, ...] = ("device", "host")
    for place in places:
        with dense.composed(place) as weights:
            task = (weights, dense.model, dense.questions(), [n // 50, n // 10], left_out)
            ours = DualAveraging(method="dual_averaging", updates=2, batch_size=5)
            masks = dual_averaging(ours, MaskProblem(*task))
        with dense.composed(place) as weights:
            task = (weights, dense.model, dense.questions(), [n // 50], left_out)
            theirs = SigmoidSGD(
                method="sigmoid_sgd", updates=4, check=2, batch_size=5, learning_rate=1e3
            )
            found.append((masks, sigmoid_sgd(theirs, MaskProblem(*task), lambda *_: False)))
    assert found[0] == found[1]


def test_gradients_are_taken_and_not_kept(dense: Dense) -> None:
    taken: dict[str, torch.Tensor] = {}
    answers = dense.questions().draw(5)
    parameters = dict(dense.model.named_parameters())
    with gradients(parameters, lambda name, g: taken.update({name: g.clone()})):
        loss = replace(answers, batches=answers.batches[:1]).descend(dense.model)
        assert all(p.grad is None for p in dense.model.parameters())
    assert loss > 0
    replace(answers, batches=answers.batches[:1]).descend(dense.model)
    for name, p in dense.model.named_parameters():
        assert p.grad is not None
        torch.testing.assert_close(taken[name], p.grad)


def test_questions_come_equally_often(dense: Dense) -> None:
    questions = Questions(dense.texts, 512, CPU, generator(1))
    seen = np.zeros(len(dense.texts), dtype=int)
    # What predicts nothing, the last token, is not read.
    keys = {t.tokens[:-1].tobytes(): i for i, t in enumerate(dense.texts)}
    for _ in range(2 * len(dense.texts)):
        (batch,) = questions.draw(1).batches
        seen[keys[batch.tokens[0].numpy().tobytes()]] += 1
    assert (seen == 2).all()


@pytest.mark.parametrize("skipped", [(0,), (3,), (7, 50, 1), (1000,)])
def test_skipped_questions_are_those_that_would_be_drawn(
    dense: Dense, skipped: tuple[int, ...]
) -> None:
    one, other = dense.questions(), dense.questions()
    for _ in range(sum(skipped)):
        one._next(1)
    for count in skipped:
        other.skip(count)
    assert one.drawn == other.drawn == sum(skipped)
    assert [one._next(5) for _ in range(30)] == [other._next(5) for _ in range(30)]
