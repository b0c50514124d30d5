"""The input-level signature: which parts of its prompt a fact is read from.

Twice, because either way may mislead. Integrated gradients (Sundararajan et al., 2017, "Axiomatic
attribution for deep networks") share out what the prompt adds to the logit of the answer's first
token among the prompt's tokens; they follow a straight path through embeddings that are no text's.
Exchanging one part for that of another person stays among texts, and shows what an answer depends
on, but not how much of it (see `exchange`).

The path begins at the mean of all input embeddings, at every position. It stands for no token and
no role. Zero, the other common choice, lies where a norm's gradient is without bound and far from
all embeddings, so that a few points of the path say little.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from factrecall.evaluation.batching import Answers, Batch
from factrecall.experiments.attribution.counterfactual_prompts import (
    ANOTHER,
    PARTS,
    Texts,
    draw_facts,
    exchange,
)
from factrecall.experiments.attribution.tokenised_prompts import TokenisedPrompt, batches, read
from factrecall.experiments.common.prompts import FORMATS, ROLES, compose
from factrecall.models.forward import Encoded
from factrecall.runtime.progress import Watch, progress
from factrecall.runtime.storage import write_table

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from factrecall.experiments.attribution.settings import AttributionSettings

BATCH_TOKENS = 2048
"""Largest padded size of a batch on the path: its passes keep what their gradients need."""

SIGNATURE = {
    "split": "string",
    "individual": "int32",
    "relation": "string",
    "format": "string",
    "role": "string",
    "tokens": "int32",
    "attribution": "float64",
    "total": "float64",
    "gap": "float64",
    "logit": "float64",
    "log_probability": "float64",
    "right": "bool",
    "replaced_logit": "float64",
    "replaced_log_probability": "float64",
    "replaced_right": "bool",
    "donors": "bool",
}
"""Columns of one model's table: a row a fact, format and role (`ROLES` and ``ANOTHER``).

`attribution` is the sum over the `tokens` of the role; all roles' add up to `total`, the logit of
the answer's first token minus that at the beginning of the path, but for `gap`, the error of
integration. `logit`, `log_probability` and `right` (whether it is the likeliest) are that token's
with the prompt as it is, `replaced_…` with the role's tokens exchanged; `donors` says whether then
the answer that these would call for has the likeliest first token, and another than the fact's.
Where nothing is exchanged (`exchange` has no such part, the fact's prompt has no such tokens, the
other's are the same, or the text would not fit the model) numbers are missing, `replaced_right` is
`right` and `donors` false. ``ANOTHER`` has no attribution: its tokens are those of relation.
"""


def attribute(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    settings: AttributionSettings,
    study_seed: int,
    max_eval_tokens: int,
    *,
    bio: pd.DataFrame,
    qa: pd.DataFrame,
    device: torch.device,
    out: Path,
    provenance: Mapping[str, Any],
) -> None:
    """Write the input-level signature of a model's facts, told and asked.

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
        The table to write, columns ``SIGNATURE``.
    provenance : mapping
        Kept in the table's metadata.
    """
    facts = draw_facts(bio, settings.individuals, study_seed)
    texts = Texts.of(bio, qa)
    asked = pd.concat([facts.assign(format=form) for form in FORMATS], ignore_index=True)
    own = read(tokenizer, [compose(texts.up_to(*key)) for key in _keys(asked)])
    with progress(len(own), "integrated gradients", "prompt") as watch:
        found = integrate(model, own, settings.steps, max_eval_tokens, device, watch)
    gold = np.array([one.first for one in own])
    said = say(model, own, gold, max_eval_tokens, device)
    asked = asked.assign(
        total=found.totals,
        gap=[tokens.sum() for tokens in found.tokens] - found.totals,
        logit=said["logit"],
        log_probability=said["log_probability"],
        right=said["likeliest"] == gold,
    )
    changed = _changed(tokenizer, texts, asked)
    gold = gold[changed["number"]]
    called = read(tokenizer, [compose(texts.up_to("qa", *key)) for key in changed["calls"]])
    said = say(model, read(tokenizer, changed["prompt"].tolist()), gold, max_eval_tokens, device)
    likeliest = said["likeliest"].to_numpy()
    replaced = changed[["number", "role"]].assign(
        replaced_logit=said["logit"],
        replaced_log_probability=said["log_probability"],
        replaced_right=likeliest == gold,
        donors=(likeliest == [one.first for one in called]) & (likeliest != gold),
    )
    table = _by_role(own, found.tokens).join(asked, on="number")
    table = table.merge(replaced, on=["number", "role"], how="left")
    for column, otherwise in (("replaced_right", table["right"]), ("donors", False)):
        table[column] = table[column].where(table["replaced_logit"].notna(), otherwise).astype(bool)
    write_table(out, table[list(SIGNATURE)], SIGNATURE, provenance)


def _keys(asked: pd.DataFrame) -> Iterator[tuple[str, int, str]]:
    return zip(asked["format"], asked["individual"], asked["relation"], strict=True)


def _by_role(own: Sequence[TokenisedPrompt], tokens: Sequence[np.ndarray]) -> pd.DataFrame:
    """Add up attributions; columns number (of the prompt), role, tokens and attribution."""
    rows = []
    for number, (one, weights) in enumerate(zip(own, tokens, strict=True)):
        for role in ROLES:
            members = one.roles == role
            rows.append((number, role, members.sum(), weights[members].sum()))
        rows.append((number, ANOTHER, (one.roles == "relation").sum(), np.nan))
    return pd.DataFrame(rows, columns=["number", "role", "tokens", "attribution"])


def _changed(tokenizer: PreTrainedTokenizerBase, texts: Texts, asked: pd.DataFrame) -> pd.DataFrame:
    """Exchange each part of each prompt, where that makes another text that the model can take.

    Columns number (of the prompt), role, prompt, and calls: the individual and relation that the
    exchanged part speaks of.
    """
    rows = []
    for number, fact in enumerate(asked.itertuples()):
        form, relation = fact.format, fact.relation
        own, donor = (texts.up_to(form, who, relation) for who in (fact.individual, fact.donor))
        versions = {part: (exchange(part, own, donor), (fact.donor, relation)) for part in PARTS}
        worded = texts.worded(form, fact.individual, relation, fact.other)
        versions[ANOTHER] = worded, (fact.individual, fact.other)
        before = compose(own).text
        for role, (sentences, calls) in versions.items():
            prompt = compose(sentences)
            if prompt.text != before:
                rows.append((number, role, prompt, calls))
    ids = tokenizer([prompt.whole[0] for _, _, prompt, _ in rows])["input_ids"]
    fits = [len(tokens) <= tokenizer.model_max_length for tokens in ids]
    table = pd.DataFrame(rows, columns=["number", "role", "prompt", "calls"])
    return table[fits].reset_index(drop=True)


def say(
    model: PreTrainedModel,
    asked: Sequence[TokenisedPrompt],
    gold: np.ndarray,
    max_eval_tokens: int,
    device: torch.device | str,
) -> pd.DataFrame:
    """Ask a model for the token behind each prompt.

    Parameters
    ----------
    model, max_eval_tokens, device
        See `attribute`.
    asked : sequence of Asked
        The prompts.
    gold : int64 ndarray, shape (prompts,)
        The tokens that are looked at.

    Returns
    -------
    DataFrame
        Columns logit and log_probability of these, and the likeliest token.
    """
    ends = [len(one.roles) for one in asked]
    texts = [
        Encoded(np.append(one.tokens[:end], token), ((end, end + 1),))
        for one, end, token in zip(asked, ends, gold, strict=True)
    ]
    found = np.empty((len(asked), 3))
    with torch.inference_mode():
        for batch in Answers.of(texts, max_eval_tokens, device).batches:
            logits = batch.logits(model).double()
            logit = logits.gather(1, batch.gold[:, None])[:, 0]
            said = (logit, logit - logits.logsumexp(1), logits.argmax(1))
            found[batch.answer] = torch.stack(said, 1).cpu().numpy()
    table = pd.DataFrame(found, columns=["logit", "log_probability", "likeliest"])
    return table.astype({"likeliest": "int64"})


class Integrated(NamedTuple):
    """Attributions to each prompt's tokens, float64, and the differences that they add up to."""

    tokens: list[np.ndarray]
    totals: np.ndarray


def integrate(
    model: PreTrainedModel,
    asked: Sequence[TokenisedPrompt],
    steps: int,
    max_eval_tokens: int,
    device: torch.device | str,
    watch: Watch = lambda done: None,
) -> Integrated:
    """Attribute the logits of answers' first tokens to the tokens of their prompts.

    Parameters
    ----------
    model, max_eval_tokens, device
        See `attribute`.
    asked : sequence of Asked
        Prompts and answers.
    steps : int
        Points of the path, those of Gauss-Legendre quadrature.
    watch : callable
        Called with the number of prompts done.
    """
    from captum.attr import IntegratedGradients  # slow to import

    embed: Any = model.get_input_embeddings()
    with torch.no_grad():  # asked of the module: some scale what is in its matrix
        begin = embed(torch.arange(embed.num_embeddings, device=device)).mean(0)
    tokens, totals = [np.empty(0)] * len(asked), np.empty(len(asked))
    done = 0
    size = min(max_eval_tokens, BATCH_TOKENS)
    for members, batch in batches([one.begun() for one in asked], size, device):
        with torch.no_grad():
            embedded = embed(batch.tokens)
        with _frozen(model):
            found, gaps = IntegratedGradients(_from_embeddings(model, batch)).attribute(
                embedded,
                begin.expand_as(embedded),
                target=batch.gold,
                n_steps=steps,
                method="gausslegendre",
                internal_batch_size=len(members),  # a pass a point, as large as a batch may be
                return_convergence_delta=True,
            )
        weights = found.detach().double().sum(-1).cpu().numpy()
        totals[members] = weights.sum(1) - gaps.detach().double().cpu().numpy()
        for i, row in zip(members, weights, strict=True):
            tokens[i] = row[: len(asked[i].roles)]
        done += len(members)
        watch(done)
    return Integrated(tokens, totals)


@contextmanager
def _frozen(model: PreTrainedModel) -> Iterator[None]:
    """Let parameters ask for no gradients, for which passes would have to keep more."""
    asking = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in asking:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in asking:
            parameter.requires_grad_(True)


def _from_embeddings(
    model: PreTrainedModel, batch: Batch
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a batch's logits as a function of its input embeddings."""

    def logits(embedded: torch.Tensor) -> torch.Tensor:
        handle = model.get_input_embeddings().register_forward_hook(lambda *_: embedded)
        try:
            return batch.logits(model)
        finally:
            handle.remove()

    return logits
