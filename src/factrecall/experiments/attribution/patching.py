"""Activation patching: whether the state of a fact told makes a model recall it when asked.

The residual stream behind a layer, at one token of a prompt, is exchanged for that of the same
fact in another format, or, as a control, of another person's fact of the same relation (method:
Meng et al., 2022, "Locating and editing factual associations in GPT"; Zhang and Nanda, 2024,
"Towards best practices of activation patching"). The answer is then judged as everywhere else, by
exact match of all its tokens. Layers up to the patched one need not run again: the stream behind
them is kept from the pass without a patch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from factrecall.experiments.attribution.counterfactual_prompts import Texts, draw_facts
from factrecall.experiments.attribution.tokenised_prompts import (
    POSITIONS,
    TokenisedPrompt,
    batches,
    read,
)
from factrecall.experiments.common.prompts import compose
from factrecall.experiments.representations.capture import chosen_layers
from factrecall.models.architectures import architecture_of
from factrecall.runtime.progress import progress
from factrecall.runtime.storage import write_table

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from factrecall.evaluation.batching import Batch
    from factrecall.experiments.representations.settings import RepresentationSettings

SOURCES = {"qa": ("bio", "short"), "bio": ("qa",)}
"""From which formats states are taken, by the format that they are put into; "short" is the single
sentence with the full name."""

DONORS = ("same", "other")
"""Whose state it is: of the same fact, or of another person's of the same relation."""

PATCHING = {
    "split": "string",
    "individual": "int32",
    "relation": "string",
    "source": "string",
    "target": "string",
    "layer": "int32",
    "position": "string",
    "donor": "string",
    "right": "bool",
    "unpatched": "bool",
    "log_probability": "float64",
    "unpatched_log_probability": "float64",
    "donors": "bool",
}
"""Columns of one model's table: a row a fact, pair of formats, layer, position and donor.

`right` says whether all of the answer is, `log_probability` is that of its first token; the same
without a patch are `unpatched`. `donors` says whether the likeliest first token is that of the
other person's answer, and not the fact's; where the donor is the same, how often that is anyway.
A fact has no rows of donor "other" where that person's answer has its own first token: exchanging
them is then no control.
"""

States = dict[tuple[str, str], torch.Tensor]
"""By source and donor, shape (facts, layers, positions, width)."""


def patch(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    settings: RepresentationSettings,
    study_seed: int,
    max_eval_tokens: int,
    *,
    bio: pd.DataFrame,
    qa: pd.DataFrame,
    device: torch.device,
    out: Path,
    provenance: Mapping[str, Any],
) -> None:
    """Patch a model's residual stream between its facts told and asked.

    Parameters
    ----------
    model, tokenizer
        In evaluation mode.
    settings, study_seed, max_eval_tokens
        What the configuration says.
    bio, qa : DataFrame
        The tables of facts.
    device : torch.device
        Where the model is.
    out : Path
        The table to write, columns ``PATCHING``.
    provenance : mapping
        Kept in the table's metadata.

    Raises
    ------
    FactRecallError
        When the model has not all of the configured layers.
    """
    layers = chosen_layers(model, settings.layers)
    facts = draw_facts(bio, settings.patching.individuals, study_seed)
    known = facts[["split", "individual", "relation"]]
    texts = Texts.of(bio, qa)
    asked = {
        (form, donor): read(
            tokenizer,
            [
                compose(texts.up_to(form, person, relation))
                for person, relation in zip(facts[column], facts["relation"], strict=True)
            ],
        )
        for form in texts.sentences
        for donor, column in zip(DONORS, ("individual", "donor"), strict=True)
    }
    own_first, called = (np.array([one.first for one in asked["qa", d]]) for d in DONORS)
    tables = []
    with progress(len(SOURCES) * len(facts), "patching", "text") as watch:
        for number, (target, sources) in enumerate(SOURCES.items()):
            states: States = {
                (source, donor): states_of(
                    model, layers, asked[source, donor], max_eval_tokens, device
                )
                for source in sources
                for donor in DONORS
            }
            own = asked[target, "same"]
            seen: Callable[[int], None] = lambda done, n=number: watch(n * len(facts) + done)  # type: ignore[misc]  # noqa: E731
            table = patched(model, layers, own, states, max_eval_tokens, device, seen)
            gold = np.array([one.first for one in own])
            likeliest, fact = table["likeliest"].to_numpy(), table["fact"].to_numpy()
            donors = (likeliest == called[fact]) & (likeliest != gold[fact])
            table = table.assign(target=target, donors=donors).join(known, on="fact")
            void = (table["donor"] == "other") & (called == own_first)[fact]
            tables.append(table[~void])
    write_table(out, pd.concat(tables)[list(PATCHING)], PATCHING, provenance)


def states_of(
    model: PreTrainedModel,
    layers: Sequence[int],
    asked: Sequence[TokenisedPrompt],
    max_eval_tokens: int,
    device: torch.device | str,
) -> torch.Tensor:
    """Return the residual stream behind layers of a model where its prompts can be patched.

    Parameters
    ----------
    model, max_eval_tokens, device
        See `patch`.
    layers : sequence of int
        Behind which.
    asked : sequence of Asked
        The prompts.

    Returns
    -------
    tensor, shape (prompts, layers, positions, width)
        At ``POSITIONS``; in the model's precision.
    """
    width = model.config.get_text_config().hidden_size
    found = torch.empty(
        len(asked), len(layers), len(POSITIONS), width, dtype=model.dtype, device=device
    )
    at = torch.tensor([[one.positions[name] for name in POSITIONS] for one in asked])
    with torch.inference_mode():
        for members, batch in batches([one.begun() for one in asked], max_eval_tokens, device):
            # The model below its head: `Batch.logits` leaves out much of the last layer.
            with _keeping(model, layers) as streams:
                model.base_model(input_ids=batch.tokens, use_cache=False)
            rows = torch.arange(len(members))[:, None]
            for number, layer in enumerate(layers):
                found[members, number] = streams[layer][rows, at[members]]
    return found


def patched(
    model: PreTrainedModel,
    layers: Sequence[int],
    asked: Sequence[TokenisedPrompt],
    states: States,
    max_eval_tokens: int,
    device: torch.device | str,
    watch: Callable[[int], None] = lambda done: None,
) -> pd.DataFrame:
    """Ask a model for its facts with one state patched at a time.

    Parameters
    ----------
    model, max_eval_tokens, device
        See `patch`.
    layers : sequence of int
        Behind which layers; those of `states`.
    asked : sequence of Asked
        Prompts and answers.
    states : States
        What is put in (see `states_of`), for each of `asked`.
    watch : callable
        Called with the number of texts done.

    Returns
    -------
    DataFrame
        Columns fact (which of `asked`), source, donor, layer, position, right, log_probability and
        likeliest (first token); unpatched and unpatched_log_probability.
    """
    parts, done = [], 0
    with torch.inference_mode():
        for members, batch in batches(asked, max_eval_tokens, device):
            with _keeping(model, layers) as streams:
                whole = _judge(batch, batch.logits(model))
            rows = torch.arange(len(members))
            for (number, layer), (place, position), ((source, donor), put) in product(
                enumerate(layers), enumerate(POSITIONS), states.items()
            ):
                stream = streams[layer].clone()
                at = torch.tensor([asked[i].positions[position] for i in members])
                stream[rows, at] = put[members, number, place]
                with _resuming(model, layer, stream):
                    found = _judge(batch, batch.logits(model))
                labels = {"source": source, "donor": donor, "layer": layer, "position": position}
                parts.append(
                    found.assign(
                        **labels,
                        fact=members,
                        unpatched=whole["right"],
                        unpatched_log_probability=whole["log_probability"],
                    )
                )
            done += len(members)
            watch(done)
    return pd.concat(parts, ignore_index=True)


def _judge(batch: Batch, logits: torch.Tensor) -> pd.DataFrame:
    """Judge a batch's answers; columns right, log_probability and likeliest, a row a text."""
    begins = np.flatnonzero(np.diff(batch.answer, prepend=-1))
    hits = (logits.argmax(-1) == batch.gold).cpu().numpy()
    first, gold = logits[begins].double(), batch.gold[begins]
    said = first.log_softmax(-1).gather(1, gold[:, None])[:, 0]
    return pd.DataFrame(
        {
            "right": np.logical_and.reduceat(hits, begins),
            "log_probability": said.cpu().numpy(),
            "likeliest": first.argmax(-1).cpu().numpy(),
        }
    )


@contextmanager
def _keeping(model: PreTrainedModel, layers: Sequence[int]) -> Iterator[dict[int, torch.Tensor]]:
    """Keep the residual stream behind layers of a pass."""
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
def _resuming(model: PreTrainedModel, layer: int, stream: torch.Tensor) -> Iterator[None]:
    """Let passes begin behind a layer, with a residual stream of ours."""
    below = architecture_of(model.config).layers_of(model)[: layer + 1]
    for module in below:
        module.forward = lambda *_, **__: stream
    try:
        yield
    finally:
        for module in below:
            del module.forward
