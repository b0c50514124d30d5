"""The gradient trace against a naive loop, and that it only watches."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from factrecall.config.training import TraceSettings
from factrecall.data.traced import traced_individuals
from factrecall.parameters.space import ParameterSpace
from factrecall.runtime.errors import FactRecallError
from factrecall.runtime.safetensors_writer import read_tensors
from factrecall.training.batches import batch_indices
from factrecall.training.loop import train
from factrecall.training.optimisers import learning_rate
from factrecall.training.trace import GradientTrace, pieces, write_trace
from factrecall.vocabulary import INFLUENCES
from tests.conftest import Tiny, recipe
from tests.unit.test_training import example_loss, mix_of

INDIVIDUALS = {0: "in", 1: "in", 2: "out", 5: "out"}


def sides(tiny: Tiny) -> dict[int, str]:
    """Trace two individuals of each side."""
    people = tiny.facts.individuals
    return traced_individuals(
        people, TraceSettings(in_distribution=2, out_of_distribution=2), seed=0
    )


@pytest.mark.parametrize("questions", ["one", "all"])
def test_the_trace_equals_a_naive_loop(tiny: Tiny, questions: str) -> None:
    settings = recipe(updates=5, batch_size=24, questions_per_example=questions)
    examples = mix_of(tiny, questions_per_example=questions)
    traced = sides(tiny)
    model = copy.deepcopy(tiny.model).double()
    trace = GradientTrace(model, traced)
    train(model, examples, settings, seed=2, trace=trace)

    # The same run again, one update at a time, so that the weights before each step are at hand.
    naive: dict[tuple[str, str], torch.Tensor] = {}
    counts: dict[str, int] = {}
    weights: list[dict[str, torch.Tensor]] = []
    again = copy.deepcopy(tiny.model).double()
    train(
        again,
        examples,
        settings,
        seed=2,
        watch=lambda update, loss: weights.append(copy.deepcopy(again.state_dict())),
    )
    probe = copy.deepcopy(tiny.model).double()
    beta, moment = settings.betas[1], torch.zeros(1)

    def gradient_of(loss: torch.Tensor) -> torch.Tensor:
        parts = torch.autograd.grad(loss, list(probe.parameters()))
        return torch.cat([g.reshape(-1) for g in parts])

    for update in range(settings.updates):
        probe.load_state_dict(weights[update])
        batch = [
            examples[i] for i in batch_indices(len(examples), settings.batch_size, update, seed=2)
        ]
        targets = sum(int((e.targets >= 0).sum()) for e in batch)
        for example in batch:
            side = traced.get(example.individual)
            if side is None:
                continue
            assert not (example.kind == "qa" and side == "out")  # never trained on
            task = f"{example.kind.upper()}_{side}"
            loss = example_loss(probe, example) / (example.targets >= 0).sum()
            gradient, rate = gradient_of(loss), learning_rate(settings, update)
            part = gradient * (example.targets >= 0).sum() / targets
            second = (beta * moment + (1 - beta) * part**2) / (1 - beta ** (update + 1))
            counts[task] = counts.get(task, 0) + 1
            for kind, value in (
                ("signed", rate * gradient),
                ("absolute", (rate * gradient).abs()),
                ("adam", rate * part / (second.sqrt() + 1e-8)),
            ):
                naive[task, kind] = naive.get((task, kind), 0) + value
        whole = gradient_of(sum(example_loss(probe, e) for e in batch) / targets)
        whole *= min(1.0, (settings.clip or torch.inf) / (float(whole.norm()) + 1e-6))
        moment = beta * moment + (1 - beta) * whole**2
    assert trace.counts == counts
    assert set(counts) == {"BIO_in", "BIO_out", "QA_in"}
    for task in counts:
        for influence in INFLUENCES:
            found = torch.cat([t.reshape(-1) for t in trace.influence(task, influence)])
            expected = naive[task, "signed" if influence == "magnitude" else influence]
            expected = expected.abs() if influence in ("magnitude", "adam") else expected
            # float64 sums of a few gradients, added in the same order.
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("block", [1, 700, 5000])
def test_large_gradients_are_added_piece_by_piece_to_the_same_bits(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    def sums() -> dict[str, torch.Tensor]:
        model = copy.deepcopy(tiny.model)
        trace = GradientTrace(model, sides(tiny))
        train(model, mix_of(tiny), recipe(updates=3), 2, trace=trace)
        return trace.sums

    whole = sums()
    monkeypatch.setattr("factrecall.training.trace.LARGE", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    monkeypatch.setattr("factrecall.training.trace.BLOCK", block)
    assert max(len(pieces(p.detach())) for p in tiny.model.parameters()) > 1
    found = sums()
    assert found.keys() == whole.keys()
    assert all(torch.equal(found[key], whole[key]) for key in whole)


def test_the_trace_only_watches(tiny: Tiny) -> None:
    examples = mix_of(tiny)
    watched, alone = copy.deepcopy(tiny.model), copy.deepcopy(tiny.model)
    first = train(watched, examples, recipe(), 2, trace=GradientTrace(watched, sides(tiny)))
    second = train(alone, examples, recipe(), 2)
    assert all(
        torch.equal(a, b) for a, b in zip(watched.parameters(), alone.parameters(), strict=True)
    )
    np.testing.assert_array_equal(first, second)


def test_questions_of_people_out_of_distribution_are_not_traced(tiny: Tiny) -> None:
    trace = GradientTrace(tiny.model, INDIVIDUALS)
    assert trace.task("qa", 0) == "QA_in" and trace.task("bio", 2) == "BIO_out"
    assert trace.task("qa", 2) is None and trace.task("bio", 3) is None


def test_tied_embeddings_are_one_tensor() -> None:
    from factrecall.config.facts import Facts
    from factrecall.data.tables import make_facts
    from factrecall.models.scratch import build_model
    from tests.conftest import scratch, tokenizer_for

    tokenizer = tokenizer_for(make_facts(Facts(people=4), 0))
    tied, free = (
        ParameterSpace.of(build_model(scratch("llama", tie_embeddings=tie), tokenizer, 0))
        for tie in (True, False)
    )
    vocabulary = -(-len(tokenizer) // 8) * 8
    assert free.size - tied.size == vocabulary * 32
    assert free.fingerprint != tied.fingerprint
    assert dict(free.offsets())[free.names[1]] == free.sizes[0]


def test_the_file_keeps_the_top_of_each_ranking(tiny: Tiny, tmp_path: Path) -> None:
    model = copy.deepcopy(tiny.model)
    trace = GradientTrace(model, sides(tiny))
    train(model, mix_of(tiny), recipe(batch_size=48), 2, trace=trace)
    write_trace(tmp_path / "t.safetensors", trace, TraceSettings(top_fraction=0.1), {"a": 1})
    tensors, metadata = read_tensors(tmp_path / "t.safetensors")
    n = sum(p.numel() for p in model.parameters())
    assert metadata["n"] == n and metadata["keep"] == round(0.1 * n)
    assert metadata["space"] == ParameterSpace.of(model).fingerprint
    assert len(tensors) == 3 * len(INFLUENCES) * 2
    flat = torch.cat([t.reshape(-1) for t in trace.influence("QA_in", "absolute")])
    index, value = tensors["QA_in/absolute/index"], tensors["QA_in/absolute/value"]
    assert index.dtype == torch.uint32 and len(index) == metadata["keep"]
    assert torch.equal(flat[index.long()], value)
    assert (value[:-1] >= value[1:]).all() and value[-1] >= flat.sort(descending=True)[0][
        len(index) - 1
    ]


def test_parameters_without_influence_have_no_rank(tiny: Tiny, tmp_path: Path) -> None:
    model = copy.deepcopy(tiny.model)
    trace = GradientTrace(model, sides(tiny))
    train(model, mix_of(tiny), recipe(batch_size=48), 2, trace=trace)
    write_trace(tmp_path / "t.safetensors", trace, TraceSettings(top_fraction=1.0), {})
    tensors, metadata = read_tensors(tmp_path / "t.safetensors")
    # Embeddings of words the traced people never use get no gradient.
    assert 0 < len(tensors["BIO_in/absolute/index"]) < metadata["n"]
    assert len(tensors["BIO_in/signed/index"]) == metadata["n"]


def test_too_few_people_to_trace_is_told(tiny: Tiny) -> None:
    with pytest.raises(FactRecallError, match="out_of_distribution = 99"):
        traced_individuals(
            tiny.facts.individuals, TraceSettings(in_distribution=1, out_of_distribution=99), seed=0
        )


def test_the_trace_only_watches_a_model_with_dropout(tiny: Tiny) -> None:
    settings = GPTNeoXConfig(
        vocab_size=len(tiny.tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        hidden_dropout=0.3,
    )
    models = [GPTNeoXForCausalLM(settings)]
    models += [copy.deepcopy(models[0]) for _ in range(2)]
    examples = mix_of(tiny)
    train(models[0], examples, recipe(), 2, trace=GradientTrace(models[0], sides(tiny)))
    train(models[1], examples, recipe(), 2)
    train(models[2], examples, recipe(), 3)
    watched, alone, other = ([p.detach() for p in m.parameters()] for m in models)
    assert all(torch.equal(a, b) for a, b in zip(watched, alone, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(watched, other, strict=True))


def test_at_least_one_parameter_is_kept(tiny: Tiny, tmp_path: Path) -> None:
    model = copy.deepcopy(tiny.model)
    trace = GradientTrace(model, sides(tiny))
    train(model, mix_of(tiny), recipe(updates=3, batch_size=48), 2, trace=trace)
    write_trace(tmp_path / "t.safetensors", trace, TraceSettings(top_fraction=1e-9), {})
    tensors, metadata = read_tensors(tmp_path / "t.safetensors")
    assert metadata["keep"] == 1
    assert {len(tensor) for tensor in tensors.values()} == {1}
