"""Asking, composing, sweeping, ranking and probing on a GPU give what plain ways give."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from factrecall.evaluation.batching import Answers
from factrecall.evaluation.early_exit import EarlyExit
from factrecall.evaluation.hidden_states import hidden_states
from factrecall.evaluation.incremental_forward import IncrementalForward
from factrecall.experiments.circuits.sweep import Circuit
from factrecall.experiments.grafting.dual_averaging import gradients
from factrecall.experiments.representations.logistic_regression import PrincipalAxes, fit_chosen
from factrecall.models.architectures import architecture_of
from factrecall.models.forward import Encoded
from factrecall.parameters.nodes import Nodes
from factrecall.parameters.patched_weights import PatchedWeights
from factrecall.parameters.sets import ParameterSet
from factrecall.parameters.streaming_topk import top_k
from factrecall.runtime.seeds import generator
from tests import synthetic
from tests.gpu.tiny import PEOPLE, VOCABULARY, Tiny, half_right, naive_right

pytestmark = pytest.mark.gpu

TEXTS = synthetic.questions(PEOPLE, VOCABULARY)


def test_recall_is_that_of_each_text_by_itself(tiny: Tiny) -> None:
    texts = half_right(tiny.model, TEXTS)
    wanted = naive_right(tiny.model, texts)
    assert 0.4 < wanted.mean() < 0.7
    found = Answers.of(texts, 256, tiny.device).right(tiny.model)
    np.testing.assert_array_equal(found, wanted)


def test_a_composition_holds_what_it_is_told_and_gives_the_model_back(tiny: Tiny) -> None:
    model, pre = tiny.fresh(), tiny.nearby()
    task = {name: p.detach().clone() for name, p in model.named_parameters()}
    with PatchedWeights(model, pre) as weights:
        everything = ~ParameterSet.empty(weights.space)
        for share in (0.01, 0.5, 0.02):
            members = everything.sample(int(share * weights.space.size), generator(0, str(share)))
            for held in (members, ~members):
                weights.set(held)
                assert_held(model, pre, task, held)
    for name, p in model.named_parameters():
        assert torch.equal(p, task[name])


def assert_held(
    model: torch.nn.Module,
    pre: dict[str, torch.Tensor],
    task: dict[str, torch.Tensor],
    held: ParameterSet,
) -> None:
    mask = torch.full((held.space.size,), held.complement)
    mask[torch.from_numpy(held.index.astype(np.int64))] = not held.complement
    parts = dict(zip(held.space.names, mask.split(held.space.sizes), strict=True))
    for name, p in model.named_parameters():
        chosen = parts[name].view(p.shape).to(p.device)
        assert torch.equal(p, torch.where(chosen, task[name], pre[name])), name


@pytest.mark.parametrize("kind", ["attention", "column"])
def test_a_sweep_that_restarts_has_the_verdicts_of_plain_passes(tiny: Tiny, kind: str) -> None:
    tiny = replace(tiny, shard=0.2)
    model, plain = tiny.fresh(), tiny.fresh()
    nodes = Nodes.of(model, kind)  # type: ignore[arg-type]
    order = generator(0, "order").permutation(len(nodes))
    layers = architecture_of(model.config).layers_of(model)
    with PatchedWeights(model, tiny.nearby()) as weights:
        everything = ~ParameterSet.empty(weights.space)
        grafted = everything.sample(weights.space.size // 5, generator(0, "γ"))
        weights.set(grafted)
        texts = half_right(model, TEXTS)
        with IncrementalForward(model, layers, EarlyExit(texts, 256, tiny.device), 1e9) as asked:
            sweep = Circuit(weights, asked, nodes, grafted).sweep(order, "forward")
            verdicts = []
            for count in (0, *np.linspace(1, len(nodes), 9).astype(int).tolist(), len(nodes) // 2):
                found = sweep.at(count)
                plain.load_state_dict(model.state_dict())
                np.testing.assert_array_equal(found, naive_right(plain, texts))
                verdicts.append(found.tobytes())
    assert len(set(verdicts)) > 2


def test_gradients_of_answers_are_taken_and_freed(tiny: Tiny) -> None:
    model = tiny.fresh()
    taken: dict[str, torch.Tensor] = {}
    answers = Answers.of(TEXTS, 100_000, tiny.device)

    def take(name: str, g: torch.Tensor) -> None:
        taken[name] = taken.get(name, torch.zeros_like(g)) + g

    with gradients(dict(model.named_parameters()), take):
        answers.descend(model)
    assert all(p.grad is None for p in model.parameters())
    total = torch.zeros((), device=tiny.device)
    count = 0
    for text in TEXTS:
        tokens = torch.from_numpy(text.tokens).to(tiny.device)
        ((start, end),) = text.answers
        logits = model(input_ids=tokens[None]).logits[0, start - 1 : end - 1]
        total = total + torch.nn.functional.cross_entropy(
            logits, tokens[start:end], reduction="sum"
        )
        count += end - start
    wanted = torch.autograd.grad(total / count, list(model.parameters()))
    for (name, _), g in zip(model.named_parameters(), wanted, strict=True):
        torch.testing.assert_close(taken[name], g, rtol=1e-3, atol=1e-5 * float(g.abs().max()))


@pytest.mark.parametrize("size", [1, 1000, 70_000, 100_000])
def test_the_top_is_that_of_a_sort(device: torch.device, size: int) -> None:
    draws = torch.Generator().manual_seed(0)
    scores = [torch.randn(shape, generator=draws) for shape in ((300, 200), (7,), (40_000,))]
    scores[2] = scores[2].round(decimals=1)  # ties
    index, value = top_k(lambda: (part.to(device) for part in scores), size, np.uint32)
    flat = torch.cat([part.flatten() for part in scores]).numpy()
    wanted = np.sort(np.argsort(-flat, kind="stable")[:size])
    np.testing.assert_array_equal(index, wanted)
    np.testing.assert_array_equal(value, flat[wanted])


def test_states_are_those_of_each_text_by_itself(tiny: Tiny) -> None:
    layers = [0, 2]
    texts = [Encoded(t.tokens, ((t.answers[0][0], t.answers[0][0] + 1),)) for t in TEXTS[::5]]
    answers = Answers.of(texts, 256, tiny.device)
    wanted = torch.stack([plain_states(tiny, text, layers) for text in texts], 1)
    found = hidden_states(tiny.model, answers, layers)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    half = hidden_states(tiny.fresh().bfloat16(), answers, layers).float()
    # Eight bits at each of some twenty operations.
    assert float((half - wanted).norm() / wanted.norm()) < 0.03


def plain_states(tiny: Tiny, text: Encoded, layers: list[int]) -> torch.Tensor:
    """Return what enters a layer and what its attention adds, at the token before the answer."""
    seen: dict[tuple[int, str], torch.Tensor] = {}
    anatomy = architecture_of(tiny.model.config)
    handles = []
    for layer in layers:
        module = anatomy.layers_of(tiny.model)[layer]

        def entering(_: object, inputs: tuple[torch.Tensor, ...], layer: int = layer) -> None:
            seen[layer, "in"] = inputs[0]

        def added(_: object, __: object, out: torch.Tensor, layer: int = layer) -> None:
            seen[layer, "added"] = out

        handles.append(module.register_forward_pre_hook(entering))
        handles.append(anatomy.output_of(module).register_forward_hook(added))
    try:
        with torch.inference_mode():
            tiny.model(input_ids=torch.from_numpy(text.tokens)[None].to(tiny.device))
    finally:
        for handle in handles:
            handle.remove()
    place = text.answers[0][0] - 1
    return torch.stack([(seen[n, "in"] + seen[n, "added"])[0, place].cpu() for n in layers])


def test_probes_are_those_of_the_cpu(device: torch.device) -> None:
    rng = np.random.default_rng(0)
    y = torch.from_numpy(rng.integers(5, size=240))
    code = rng.normal(size=(3, 5, 16))
    h = torch.from_numpy(code[:, y] + 1.5 * rng.normal(size=(3, 240, 16))).float()
    validation = torch.arange(200) % 5 == 0

    def fitted(where: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        states, classes = h.to(where), y.to(where)
        turn = PrincipalAxes.of(states[:, :200])
        weights, chosen = fit_chosen(
            turn(states[:, :200]), classes[:200], [1e-3, 1e-2, 1e-1], validation.to(where)
        )
        return (turn(states[:, 200:]) @ weights).softmax(-1).cpu(), chosen.cpu()

    (likely, chosen), (wanted, penalties) = fitted(device), fitted(torch.device("cpu"))
    assert torch.equal(chosen, penalties)
    # Fits end when the loss can fall by a millionth: probabilities agree to about its root.
    torch.testing.assert_close(likely, wanted, rtol=0, atol=5e-3)
