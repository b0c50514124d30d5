"""The training loop against a plain one, its schedule, its history and its failures."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from factrecall.runtime.errors import FactRecallError
from factrecall.training.batches import IGNORED, Example, batch_indices
from factrecall.training.examples import training_set
from factrecall.training.execution import Execution
from factrecall.training.loop import train
from factrecall.training.optimisers import learning_rate
from factrecall.training.training_log import HISTORY
from tests.conftest import Tiny, recipe


def mix_of(tiny: Tiny, **changes: object) -> list[Example]:
    return training_set("mix", recipe(**changes), tiny.facts.bio, tiny.facts.qa, tiny.tokenizer)


def example_loss(model: torch.nn.Module, example: Example) -> torch.Tensor:
    """Sum of the losses of one example, by the model's own full forward pass."""
    logits = model(input_ids=torch.from_numpy(example.tokens)[None]).logits[0]
    targets = torch.from_numpy(example.targets)
    return functional.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum")


def plain_training(model: torch.nn.Module, examples: list[Example], settings, seed: int):  # type: ignore[no-untyped-def]
    """One example at a time, no fused kernels."""
    decay = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [
            {"params": decay, "weight_decay": settings.weight_decay},
            {"params": rest, "weight_decay": 0.0},
        ],
        lr=1.0,
        betas=settings.betas,
        foreach=False,
    )
    losses = []
    for update in range(settings.updates):
        batch = [
            examples[i] for i in batch_indices(len(examples), settings.batch_size, update, seed)
        ]
        total = sum(int((e.targets != IGNORED).sum()) for e in batch)
        optimizer.zero_grad()
        losses.append(0.0)
        for example in batch:
            loss = example_loss(model, example) / total
            loss.backward()
            losses[-1] += loss.item()
        if settings.clip is not None:
            norm = math.sqrt(sum(float(p.grad.pow(2).sum()) for p in model.parameters()))
            for parameter in model.parameters():
                parameter.grad *= min(1.0, settings.clip / (norm + 1e-6))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(settings, update)
        optimizer.step()
    return losses


@pytest.mark.parametrize(
    "changes",
    [{}, {"loss": "answer"}, {"clip": None, "questions_per_example": "all"}, {"clip": 0.05}],
)
def test_the_loop_equals_a_plain_one(tiny: Tiny, changes: dict[str, object]) -> None:
    settings = recipe(**changes)
    examples = mix_of(tiny, **changes)
    plain, fast = (copy.deepcopy(tiny.model).double() for _ in range(2))
    expected = plain_training(plain, examples, settings, seed=5)
    history = train(fast, examples, settings, seed=5)
    np.testing.assert_allclose(history[:, 2], expected, rtol=1e-9)
    for (name, a), b in zip(fast.named_parameters(), plain.parameters(), strict=True):
        # float64; Adam divides by the root of small squares, which enlarges rounding.
        torch.testing.assert_close(a, b, rtol=0, atol=1e-8, msg=name)


def test_micro_batch_size_and_checkpointing_change_rounding_only(tiny: Tiny) -> None:
    examples = mix_of(tiny)
    reference = copy.deepcopy(tiny.model).double()
    train(reference, examples, recipe(), seed=5)
    for changes, mode in (
        ({"micro_batch_tokens": 64}, Execution()),
        ({}, Execution(checkpointing=True)),
    ):
        model = copy.deepcopy(tiny.model).double()
        train(model, examples, recipe(**changes), seed=5, mode=mode)
        for a, b in zip(model.parameters(), reference.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-8)


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not(tiny: Tiny) -> None:
    examples = mix_of(tiny)
    models = [copy.deepcopy(tiny.model) for _ in range(3)]
    for model, seed in zip(models, (5, 5, 6), strict=True):
        train(model, examples, recipe(), seed=seed)
    same = [
        torch.equal(a, b)
        for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True)
    ]
    other = [
        torch.equal(a, b)
        for a, b in zip(models[0].parameters(), models[2].parameters(), strict=True)
    ]
    assert all(same) and not all(other)


def test_learning_rate_warms_up_and_falls_as_a_cosine() -> None:
    settings = recipe(updates=10, warmup=4, learning_rate=0.8)
    rates = [learning_rate(settings, u) for u in range(10)]
    assert rates[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert rates[4] == pytest.approx(0.8)
    assert rates[7] == pytest.approx(0.4)
    assert rates[9] == pytest.approx(0.4 * (1 + math.cos(math.pi * 5 / 6)))
    assert learning_rate(recipe(warmup=0, learning_rate=0.8), 0) == pytest.approx(0.8)


def test_history_has_a_row_an_update_with_losses_of_both_kinds(tiny: Tiny) -> None:
    examples = mix_of(tiny)
    history = train(copy.deepcopy(tiny.model), examples, recipe(batch_size=40), seed=5)
    columns = {name: history[:, i] for i, name in enumerate(HISTORY)}
    assert columns["update"].tolist() == list(range(6))
    assert columns["loss"][0] == pytest.approx(math.log(tiny.model.config.vocab_size), rel=0.02)
    low, high = (
        np.minimum(columns["loss_bio"], columns["loss_qa"]),
        np.maximum(columns["loss_bio"], columns["loss_qa"]),
    )
    assert ((low <= columns["loss"]) & (columns["loss"] <= high)).all()
    batch = batch_indices(len(examples), 40, 0, seed=5)
    assert columns["tokens"][0] == sum(len(examples[i].tokens) for i in batch)


def test_a_kind_that_is_not_in_the_batch_has_no_loss(tiny: Tiny) -> None:
    examples = [e for e in mix_of(tiny) if e.kind == "bio"]
    history = train(copy.deepcopy(tiny.model), examples, recipe(), seed=5)
    assert np.isnan(history[:, 4]).all() and np.isfinite(history[:, 3]).all()


def test_a_loss_that_is_not_finite_stops_and_names_the_batch(tiny: Tiny) -> None:
    model = copy.deepcopy(tiny.model)
    with torch.no_grad():
        next(model.parameters()).fill_(math.nan)
    examples = mix_of(tiny)
    with pytest.raises(FactRecallError) as caught:
        train(model, examples, recipe(), seed=5)
    text = str(caught.value)
    first = examples[batch_indices(len(examples), 8, 0, seed=5)[0]]
    assert "update 0" in text and "0.0015" in text
    assert f"{first.kind} of {first.individual}" in text


def test_a_gradient_that_is_not_finite_stops_before_it_reaches_the_weights(tiny: Tiny) -> None:
    model = copy.deepcopy(tiny.model)
    head = model.get_output_embeddings()
    head.weight.register_hook(lambda gradient: gradient * math.inf)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(FactRecallError, match=r"norm (inf|nan)"):
        train(model, mix_of(tiny), recipe(), seed=5)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_norms_and_biases_are_not_decayed(tiny: Tiny) -> None:
    weights = []
    for decay in (0.0, 0.5):
        model = copy.deepcopy(tiny.model)
        train(model, mix_of(tiny), recipe(updates=1, warmup=0, weight_decay=decay), seed=5)
        weights.append(dict(model.named_parameters()))
    start = dict(tiny.model.named_parameters())
    for name, free in weights[0].items():
        # AdamW shrinks the weights before its step; 3e-3 is the step's learning rate.
        shrunk = free - 3e-3 * 0.5 * start[name] if free.ndim > 1 else free
        torch.testing.assert_close(weights[1][name], shrunk, rtol=0, atol=1e-7)
