"""Captured states are those between attention and MLP, whatever batch they were read in."""

from __future__ import annotations

import copy
from operator import attrgetter

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    Olmo2Config,
    Olmo2ForCausalLM,
    PreTrainedModel,
)

from factrecall.evaluation.batching import Answers
from factrecall.evaluation.hidden_states import hidden_states
from factrecall.experiments.common.model_facts import ModelFacts
from factrecall.experiments.representations.capture import (
    capture_states,
    first_tokens,
    probed_people,
)
from factrecall.experiments.representations.settings import RepresentationSettings
from factrecall.models.architectures import architecture_of
from factrecall.models.forward import Encoded
from factrecall.runtime.errors import FactRecallError
from factrecall.vocabulary import RELATIONS, STATE_FORMATS
from tests.conftest import Tiny

CLOSE = {"atol": 1e-5, "rtol": 1e-5}


def facts_of(tiny: Tiny) -> tuple[pd.DataFrame, pd.DataFrame]:
    bio, qa = (t[t["split"] != "pretrain"] for t in (tiny.facts.bio, tiny.facts.qa))
    return bio, qa


def rest_of_layer(
    model: PreTrainedModel, layer: int, state: torch.Tensor, entered: torch.Tensor
) -> torch.Tensor:
    """Do what a layer does after its attention."""
    module = architecture_of(model.config).layers_of(model)[layer]
    mlp = architecture_of(model.config).mlp_of(module)
    kind = model.config.model_type
    parallel = kind == "gpt_neox" and model.config.use_parallel_residual
    before = {"gpt2": "ln_2", "gemma2": "pre_feedforward_layernorm", "olmo2": None}
    behind = "post_feedforward_layernorm" if kind in ("gemma2", "olmo2") else None
    norm = before.get(kind, "post_attention_layernorm")
    found = entered if parallel else state
    found = mlp(attrgetter(norm)(module)(found) if norm else found)
    return state + (attrgetter(behind)(module)(found) if behind else found)


def check_layers(model: PreTrainedModel, texts: list[Encoded]) -> None:
    layers = range(model.config.num_hidden_layers)
    states = hidden_states(model, Answers.of(texts, 512), list(layers))
    number = 0
    for text in texts:
        with torch.inference_mode():
            found = model(torch.from_numpy(text.tokens)[None], output_hidden_states=True)
            for start, _ in text.answers:
                for layer in layers:
                    entered, left = (
                        found.hidden_states[n][0, start - 1] for n in (layer, layer + 1)
                    )
                    out = rest_of_layer(model, layer, states[layer, number], entered)
                    if layer == layers[-1]:
                        out = architecture_of(model.config).norm_of(model)(out)
                    torch.testing.assert_close(out, left, **CLOSE)
                number += 1
    assert number == states.shape[1]


def test_state_and_mlp_make_the_layers_output(tiny: Tiny) -> None:
    bio, qa = facts_of(tiny)
    for texts in first_tokens(tiny.tokenizer, bio[:24], qa[:24]).values():
        check_layers(tiny.model, texts)


@pytest.mark.parametrize("kind", ["gpt_neox", "gemma2", "olmo2", "gpt2"])
def test_other_architectures(kind: str) -> None:
    torch.manual_seed(0)
    shape = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "intermediate_size": 24}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "pad_token_id": 0}
    if kind == "gpt_neox":
        from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

        config = GPTNeoXConfig(**shape, num_attention_heads=2, use_parallel_residual=False)
        model = GPTNeoXForCausalLM(config)
    elif kind == "gemma2":
        model = Gemma2ForCausalLM(Gemma2Config(**shape, **heads, head_dim=8))
    elif kind == "olmo2":
        model = Olmo2ForCausalLM(Olmo2Config(**shape, **heads))
    else:
        model = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=16, n_layer=2, n_head=2))
    rng = np.random.default_rng(0)
    with torch.no_grad():  # norms of ones and biases of zero would hide mistakes
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    ends = [(3, 4), (6, 7)]
    texts = [Encoded(rng.integers(50, size=9), tuple(ends[: i % 2 + 1])) for i in range(5)]
    check_layers(model.eval(), texts)


def test_one_pass_equals_six_prompts(tiny: Tiny) -> None:
    bio, qa = facts_of(tiny)
    encoded = first_tokens(tiny.tokenizer, bio, qa)
    together = encoded["bio_long"]
    assert len(together) == len(qa) // 6 and all(len(t.answers) == 6 for t in together)
    alone = [Encoded(t.tokens[: s + 1], ((s, s + 1),)) for t in together for s, _ in t.answers]
    ours = hidden_states(tiny.model, Answers.of(together, 512), [0, 1])
    for number, prompt in enumerate(alone):
        theirs = hidden_states(tiny.model, Answers.of([prompt], 512), [0, 1])
        torch.testing.assert_close(ours[:, number], theirs[:, 0], **CLOSE)


def test_prompts_end_before_the_attribute(tiny: Tiny) -> None:
    bio, qa = facts_of(tiny)
    encoded = first_tokens(tiny.tokenizer, bio, qa)
    decode = tiny.tokenizer.decode
    for name, table, prefix in (("bio_short", bio, "short_"), ("qa", qa, "")):
        column = "short" if prefix else "text"
        for text, row in zip(encoded[name], table.to_dict("records"), strict=True):
            ((start, end),) = text.answers
            attribute = row[column][row[f"{prefix}attribute_start"] :]
            assert end == start + 1
            assert attribute.startswith(decode(text.tokens[start:end]).strip())
    firsts = {
        name: [int(t.tokens[s]) for t in texts for s, _ in t.answers]
        for name, texts in encoded.items()
    }
    assert firsts["bio_long"] == firsts["bio_short"] == firsts["qa"]


def test_captured_tensors(tiny: Tiny) -> None:
    settings = RepresentationSettings.model_validate({"layers": [1], "precision": "bfloat16"})

    def write(settings: RepresentationSettings, batch: int = 512) -> dict[str, torch.Tensor]:
        facts = (tiny.facts.individuals, tiny.facts.bio, tiny.facts.qa)
        return capture_states(ModelFacts(tiny.model, tiny.tokenizer, *facts, 0, batch), settings)

    found = write(settings)
    _, qa = facts_of(tiny)
    assert set(found) == {*STATE_FORMATS, "individual", "relation", "in", "first", "layers"}
    assert found["layers"].tolist() == [1]
    assert found["individual"].tolist() == qa["individual"].tolist()
    assert [RELATIONS[i] for i in found["relation"]] == qa["relation"].tolist()
    assert found["in"].tolist() == (qa["split"] == "in").tolist()
    whole = write(RepresentationSettings())
    for name in STATE_FORMATS:
        assert found[name].dtype == torch.bfloat16
        assert whole[name].shape == (2, len(qa), 32) and whole[name].dtype == torch.float32
        torch.testing.assert_close(found[name][0], whole[name][1].bfloat16())
    small = write(RepresentationSettings(), batch=64)
    for name in STATE_FORMATS:
        torch.testing.assert_close(small[name], whole[name], **CLOSE)
    with pytest.raises(FactRecallError, match="2 layers, counted from 0"):
        write(RepresentationSettings.model_validate({"layers": [0, 2]}))


def test_the_model_is_left_as_it_was(tiny: Tiny) -> None:
    model = copy.deepcopy(tiny.model)
    tokens = torch.arange(6)[None]
    before = model(input_ids=tokens).logits
    text = Encoded(np.arange(6), ((3, 4),))
    first = hidden_states(model, Answers.of([text], 64), [0])
    assert torch.equal(first, hidden_states(model, Answers.of([text], 64), [0, 1])[:1])
    assert torch.equal(model(input_ids=tokens).logits, before)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_people_are_drawn_by_side() -> None:
    qa = pd.DataFrame(
        {"individual": range(60), "split": ["in"] * 20 + ["out"] * 30 + ["pretrain"] * 10}
    )
    assert probed_people(qa, None, 0).tolist() == list(range(50))
    some = probed_people(qa, 10, 0)
    assert (some < 20).sum() == 10 and len(some) == 20 and sorted(some) == some.tolist()
    assert probed_people(qa.sample(frac=1, random_state=1), 10, 0).tolist() == some.tolist()
    assert probed_people(qa, 10, 1).tolist() != some.tolist()
    assert len(probed_people(qa, 25, 0)) == 45
