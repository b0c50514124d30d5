"""Activation patching: whether the state of a statement restores the answer to the question.

The residual stream after a layer, at one token of a prompt, is replaced by that of the same fact in
another format or, as a control, by that of another person's fact of the same relation (method:
Meng et al., 2022, "Locating and editing factual associations in GPT"; Zhang and Nanda, 2024,
"Towards best practices of activation patching"). The answer is then judged by exact match of all
its tokens. Layers up to the patched one do not run again: the stream after them is kept from the
pass without a patch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from factrecall.experiments.attribution.counterfactual_prompts import FactSentences, draw_facts
from factrecall.experiments.attribution.tables import PATCHING, SOURCE_FACTS
from factrecall.experiments.attribution.tokenised_prompts import (
    POSITIONS,
    TokenisedPrompt,
    batches,
    tokenise,
)
from factrecall.experiments.common.prompts import compose
from factrecall.experiments.representations.capture import chosen_layers
from factrecall.models.architectures import architecture_of
from factrecall.runtime.progress import Watch, progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from factrecall.evaluation.batching import Batch
    from factrecall.experiments.common.model_facts import ModelFacts
    from factrecall.experiments.representations.settings import RepresentationSettings

SOURCES = {"qa": ("bio", "short"), "bio": ("qa",)}
"""The formats that states are taken from, by the format of the patched prompt; "short" is the
single sentence with the full name."""

States = dict[tuple[str, str], torch.Tensor]
"""By source format and source fact, shape (facts, layers, positions, width)."""


def patch(opened: ModelFacts, settings: RepresentationSettings) -> pd.DataFrame:
    """Patch a model's residual stream between statements and questions: columns ``PATCHING``."""
    model, limit = opened.model, opened.max_eval_tokens
    layers = chosen_layers(model, settings.layers)
    facts = draw_facts(
        opened.individuals, opened.bio, settings.patching.individuals, opened.study_seed
    )
    known = facts[["split", "individual", "relation"]]
    sentences = FactSentences.of(opened.bio, opened.qa)
    prompts = {
        (form, whose): tokenise(
            opened.tokenizer,
            [
                compose(sentences.up_to(form, person, relation))
                for person, relation in zip(facts[column], facts["relation"], strict=True)
            ],
        )
        for form in sentences.sentences
        for whose, column in zip(SOURCE_FACTS, ("individual", "source"), strict=True)
    }
    own_first, called = (np.array([p.first for p in prompts["qa", w]]) for w in SOURCE_FACTS)
    tables = []
    for target, sources in SOURCES.items():
        states: States = {
            key: states_of(model, layers, prompts[key], limit)
            for key in product(sources, SOURCE_FACTS)
        }
        own = prompts[target, "same"]
        with progress(len(facts), f"patching, {target}", "text") as watch:
            table = patched(model, layers, own, states, limit, watch)
        gold = np.array([one.first for one in own])
        likeliest, fact = table["likeliest"].to_numpy(), table["fact"].to_numpy()
        source_answer = (likeliest == called[fact]) & (likeliest != gold[fact])
        table = table.assign(target=target, source_answer=source_answer).join(known, on="fact")
        void = (table["source_fact"] == "other") & (called == own_first)[fact]
        tables.append(table[~void])
    return pd.concat(tables)[list(PATCHING)]


def states_of(
    model: PreTrainedModel,
    layers: Sequence[int],
    prompts: Sequence[TokenisedPrompt],
    max_eval_tokens: int,
) -> torch.Tensor:
    """Return the residual stream after layers of a model, where its prompts can be patched.

    Shape (prompts, layers, positions, width), at ``POSITIONS``, in the model's precision.
    """
    shape = (len(layers), len(POSITIONS), model.config.get_text_config().hidden_size)
    found = torch.empty(len(prompts), *shape, dtype=model.dtype, device=model.device)
    at = torch.tensor([[one.positions[name] for name in POSITIONS] for one in prompts])
    with torch.inference_mode():
        begun = [one.with_first_token() for one in prompts]
        for members, batch in batches(model, begun, max_eval_tokens):
            # The model below its head: `Batch.logits` leaves out much of the last layer.
            with _captured_streams(model, layers) as streams:
                model.base_model(input_ids=batch.tokens, use_cache=False)
            rows = torch.arange(len(members))[:, None]
            for number, layer in enumerate(layers):
                found[members, number] = streams[layer][rows, at[members]]
    return found


def patched(
    model: PreTrainedModel,
    layers: Sequence[int],
    prompts: Sequence[TokenisedPrompt],
    states: States,
    max_eval_tokens: int,
    watch: Watch = lambda done: None,
) -> pd.DataFrame:
    """Judge a model's answers with one state patched at a time; `states` are those of `layers`.

    Returns
    -------
    DataFrame
        Columns fact (index in `prompts`), source, source_fact, layer, position, right,
        log_probability and likeliest (first token); unpatched and unpatched_log_probability.
    """
    parts, done = [], 0
    with torch.inference_mode():
        for members, batch in batches(model, prompts, max_eval_tokens):
            with _captured_streams(model, layers) as streams:
                whole = _judge(batch, batch.logits(model))
            before = {
                "unpatched": whole["right"],
                "unpatched_log_probability": whole["log_probability"],
            }
            rows = torch.arange(len(members))
            for (number, layer), (place, position), ((source, source_fact), state) in product(
                enumerate(layers), enumerate(POSITIONS), states.items()
            ):
                stream = streams[layer].clone()
                at = torch.tensor([prompts[i].positions[position] for i in members])
                stream[rows, at] = state[members, number, place]
                with _resumed_after(model, layer, stream):
                    found = _judge(batch, batch.logits(model))
                key = {"source": source, "source_fact": source_fact, "layer": layer}
                key |= {"position": position}
                parts.append(found.assign(fact=members, **key, **before))
            done += len(members)
            watch(done)
    return pd.concat(parts, ignore_index=True)


def _judge(batch: Batch, logits: torch.Tensor) -> pd.DataFrame:
    """Judge a batch's answers; columns right, log_probability and likeliest, a row a text."""
    begins = np.flatnonzero(np.diff(batch.answer, prepend=-1))
    hits = (logits.argmax(-1) == batch.gold).cpu().numpy()
    first, gold = logits[begins].double(), batch.gold[begins]
    log_probability = first.log_softmax(-1).gather(1, gold[:, None])[:, 0]
    return pd.DataFrame(
        {
            "right": np.logical_and.reduceat(hits, begins),
            "log_probability": log_probability.cpu().numpy(),
            "likeliest": first.argmax(-1).cpu().numpy(),
        }
    )


@contextmanager
def _captured_streams(
    model: PreTrainedModel, layers: Sequence[int]
) -> Iterator[dict[int, torch.Tensor]]:
    """Keep the residual stream after layers of a pass."""
    streams: dict[int, torch.Tensor] = {}
    modules = architecture_of(model.config).layers_of(model)
    with ExitStack() as hooks:
        for layer in layers:
            handle = modules[layer].register_forward_hook(
                lambda _, __, out, layer=layer: streams.update({layer: out})
            )
            hooks.callback(handle.remove)
        yield streams


@contextmanager
def _resumed_after(model: PreTrainedModel, layer: int, stream: torch.Tensor) -> Iterator[None]:
    """Let passes begin after a layer, with the given residual stream."""
    below = architecture_of(model.config).layers_of(model)[: layer + 1]
    for module in below:
        module.forward = lambda *_, **__: stream
    try:
        yield
    finally:
        for module in below:
            del module.forward
