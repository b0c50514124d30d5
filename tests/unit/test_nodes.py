"""Heads and neurons of every known architecture: disjoint, complete, where hooks say they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, BloomConfig

from factrecall.evaluation.batching import Answers
from factrecall.evaluation.early_exit import EarlyExit
from factrecall.evaluation.incremental_forward import IncrementalForward
from factrecall.models.architectures import ARCHITECTURES, PROJECTIONS, architecture_of, heads_of
from factrecall.models.forward import Encoded
from factrecall.parameters.nodes import Nodes
from factrecall.parameters.sets import ParameterSet
from factrecall.parameters.space import ParameterSpace
from factrecall.runtime.errors import FactRecallError
from factrecall.runtime.seeds import generator
from factrecall.vocabulary import NODE_KINDS, NodeKind

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

WIDTH, HEADS, INNER = 24, 4, 20
GROUPED = {"llama", "mistral", "qwen2", "qwen3", "olmo2", "gemma2"}
TOKENS = torch.arange(7)[None]


def build(name: str) -> PreTrainedModel:
    """Build a random tiny model; all biases and scales differ from 0 and 1."""
    torch.manual_seed(0)
    settings: dict[str, Any] = {
        "vocab_size": 32,
        "hidden_size": WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": HEADS,
        "intermediate_size": INNER,
        "max_position_embeddings": 32,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 1,
    }
    settings["num_key_value_heads"] = 2 if name in GROUPED else HEADS
    if name in {"qwen3", "gemma", "gemma2"}:
        settings["head_dim"] = 8  # not width / heads
    if name == "gpt2":
        settings["n_inner"] = INNER
    config = AutoConfig.for_model(name, **settings)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model


@pytest.fixture(params=sorted(ARCHITECTURES))
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return build(request.param)


def node_set(nodes: Nodes, node: int) -> ParameterSet:
    starts = dict(nodes.space.offsets())
    everything = ~ParameterSet.empty(nodes.space)
    every = ParameterSet.of(nodes.space, np.arange(len(everything)))
    parts = [starts[name] + local[of == node] for name, local, of in nodes.members(every)]
    return ParameterSet.of(nodes.space, np.concatenate(parts))


@pytest.mark.parametrize("kind", NODE_KINDS)
def test_nodes_are_disjoint_and_cover_their_tensors(model: PreTrainedModel, kind: NodeKind) -> None:
    nodes = Nodes.of(model, kind)
    sets = [node_set(nodes, i) for i in range(len(nodes))]
    assert sum(map(len, sets)) == len(nodes.everything())
    together = ParameterSet.of(nodes.space, np.concatenate([s.index for s in sets]))
    assert together == nodes.everything() and len(together) == sum(map(len, sets))
    assert nodes.sizes().tolist() == [len(s) for s in sets] and min(nodes.sizes()) > 0
    chosen = (~ParameterSet.empty(nodes.space)).sample(500, generator(1))
    assert nodes.counts(chosen).tolist() == [len(s & chosen) for s in sets]


def test_what_is_no_node_is_no_heads_and_no_neurons(model: PreTrainedModel) -> None:
    lines = {name for kind in NODE_KINDS for name in Nodes.of(model, kind).lines}
    left = {name for name in dict(model.named_parameters()) if name not in lines}
    # Embeddings, norms over whole states, and biases that are added to what all heads or units say.
    ends = ("o_proj.bias", "attention.dense.bias", "c_proj.bias", "dense_4h_to_h.bias")
    shared = ("norm", "embed", "lm_head", ".ln_", ".wte.", ".wpe.")
    assert all(any(part in name for part in shared) or name.endswith(ends) for name in left)


def test_as_many_nodes_as_the_architecture_has(model: PreTrainedModel) -> None:
    heads = heads_of(model.config)
    attention = Nodes.of(model, "attention")
    found = attention.table.groupby(["layer", "projection"]).size()
    assert all(found[layer, p] == heads[p] for layer in (0, 1) for p in PROJECTIONS)
    weights = attention.table.groupby("projection")["weight"].first()
    assert weights.to_dict() == {p: HEADS / heads[p] for p in PROJECTIONS}
    matrices = len(architecture_of(model.config).mlp)
    columns = 2 * ((matrices - 1) * WIDTH + INNER)
    assert len(Nodes.of(model, "column")) == columns
    assert len(Nodes.of(model, "unit")) == 2 * INNER


def module(model: PreTrainedModel, layer: int, name: str) -> nn.Module:
    return model.get_submodule(f"{architecture_of(model.config).layers}.{layer}.{name}")


def logits(model: PreTrainedModel, hook: Callable[[], Any] | None = None) -> torch.Tensor:
    handle = hook() if hook else None
    with torch.inference_mode():
        found: torch.Tensor = model(input_ids=TOKENS, use_cache=False).logits
    if handle:
        handle.remove()
    return found


def zeroed(model: PreTrainedModel, nodes: Nodes, node: int) -> torch.Tensor:
    """Run the model with a node's parameters at zero."""
    live = dict(model.named_parameters())
    kept = {name: p.detach().clone() for name, p in live.items()}
    with torch.no_grad():
        for name, local in node_set(nodes, node).by_tensor():
            live[name].view(-1)[torch.from_numpy(local.astype(np.int64))] = 0.0
        found = logits(model)
        for name, parameter in live.items():
            parameter.copy_(kept[name])
    return found


def silence(where: nn.Module, spans: list[slice], *, before: bool) -> Callable[[], Any]:
    """Return what puts some coordinates into or out of a module to zero."""

    def cleared(state: torch.Tensor) -> torch.Tensor:
        state = state.clone()
        for span in spans:
            state[..., span] = 0.0
        return state

    if before:
        return lambda: where.register_forward_pre_hook(lambda _, i: (cleared(i[0]), *i[1:]))
    return lambda: where.register_forward_hook(lambda _, __, out: cleared(out))


def test_an_attention_node_is_that_head(model: PreTrainedModel) -> None:
    nodes = Nodes.of(model, "attention")
    anatomy, heads = architecture_of(model.config), heads_of(model.config)
    whole = logits(model)
    for node, row in enumerate(nodes.table.itertuples()):
        layer, projection, head = int(row.layer), str(row.projection), int(row.head)
        where = module(model, layer, anatomy.attention[projection])
        inside = module(model, layer, anatomy.attention["O"])
        width = int(inside.weight.shape[anatomy.transposed ^ 1]) // HEADS
        place = "QKV".find(projection)
        if projection == "O":
            start = head * width
        elif anatomy.fused == "heads":
            start = (3 * head + place) * width
        else:
            start = head * width + (place * HEADS * width if anatomy.fused == "blocks" else 0)
        span = slice(start, start + width)
        # A scale behind the projection (OLMo 2) is at zero too, where there is nothing to scale.
        expected = logits(model, silence(where, [span], before=projection == "O"))
        found = zeroed(model, nodes, node)
        assert not torch.allclose(expected, whole, atol=1e-4), (layer, projection, head)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert len(nodes) == 2 * sum(heads.values())


def test_a_unit_is_a_hidden_unit_and_a_column_one_input(model: PreTrainedModel) -> None:
    anatomy = architecture_of(model.config)
    down = anatomy.mlp["down"]
    units = Nodes.of(model, "unit")
    for node in (0, 7, INNER - 1, INNER, 2 * INNER - 1):
        layer, unit = divmod(node, INNER)
        assert tuple(units.table[["layer", "head"]].iloc[node]) == (layer, unit)
        hook = silence(module(model, layer, down), [slice(unit, unit + 1)], before=True)
        found = zeroed(model, units, node)
        torch.testing.assert_close(found, logits(model, hook), rtol=0, atol=1e-5)
    columns = Nodes.of(model, "column")
    for node in (0, 5, WIDTH, len(columns) - 1):
        row = columns.table.iloc[node]
        where = module(model, int(row["layer"]), anatomy.mlp[row["projection"]])
        hook = silence(where, [slice(int(row["head"]), int(row["head"]) + 1)], before=True)
        found = zeroed(model, columns, node)
        torch.testing.assert_close(found, logits(model, hook), rtol=0, atol=1e-5)


def test_an_unknown_architecture_is_refused_with_the_known_ones() -> None:
    with pytest.raises(FactRecallError) as error:
        architecture_of(BloomConfig())
    assert all(
        name in str(error.value) for name in ("bloom", "gpt_neox", "llama", "architectures.py")
    )


def test_members_of_a_complement_are_not_listed() -> None:
    nodes = Nodes.of(build("llama"), "attention")
    with pytest.raises(ValueError, match="complement"):
        list(nodes.members(~ParameterSet.empty(nodes.space)))
    assert isinstance(nodes.space, ParameterSpace)


def questions() -> list[Encoded]:
    """Return texts that begin alike by threes, with answers of one to three tokens."""
    rng = generator(3, "questions")
    texts = []
    for start in range(3):
        shared = np.r_[start + 2, rng.integers(2, 32, size=4)]
        for _ in range(3):
            tokens = np.r_[shared, rng.integers(2, 32, size=rng.integers(4, 7))]
            end = len(tokens)
            texts.append(Encoded(tokens, ((end - int(rng.integers(1, 4)), end),)))
    return texts


def test_rows_and_restarts_give_the_logits_of_whole_passes(model: PreTrainedModel) -> None:
    texts = questions()
    answers = Answers.of(texts, 64)
    assert any(batch.attends is not None for batch in answers.batches)
    with torch.inference_mode():
        for batch in answers.batches:
            found = batch.logits(model)
            for number in set(batch.answer.tolist()):
                tokens = torch.from_numpy(texts[number].tokens)[None]
                start, end = texts[number].answers[0]
                alone = model(input_ids=tokens).logits[0, start - 1 : end - 1]
                own = found[torch.from_numpy(batch.answer == number)]
                torch.testing.assert_close(own, alone, rtol=0, atol=2e-5)

    said: list[torch.Tensor] = []
    handle = model.get_output_embeddings().register_forward_hook(
        lambda _, __, out: said.append(out.clone())
    )
    layers = architecture_of(model.config).layers_of(model)
    with IncrementalForward(model, layers, EarlyExit(texts, 64), 1e9) as asked:
        asked.right(0)
        with torch.no_grad():
            rng = torch.Generator().manual_seed(0)
            for parameter in layers[1].parameters():  # so little that no answer changes
                parameter.add_(torch.randn(parameter.shape, generator=rng) * 0.01)
        said.clear()
        asked.right(1)
        restarted, parts = list(said), len(asked.asked.answers.batches)
        asked._wasted = 0  # nothing is cut anew in between
        said.clear()
        asked.right(0)
    handle.remove()
    assert parts <= len(restarted)
    for one, other in zip(restarted[:parts], said[:parts], strict=True):
        # What is kept was computed in rows of another length: some units in the last place.
        torch.testing.assert_close(one, other, rtol=0, atol=2e-5)
