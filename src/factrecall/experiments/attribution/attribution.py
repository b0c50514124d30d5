"""Attribution: which parts of its prompt the answer to a fact depends on.

Two methods, because either may mislead. Integrated gradients share the answer's logit out among
the prompt's tokens, but their path leads through embeddings that are no text's. A counterfactual
prompt is a text; it shows what an answer depends on, but not how much of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from factrecall.evaluation.batching import Answers
from factrecall.experiments.attribution.counterfactual_prompts import (
    PARTS,
    FactSentences,
    counterfactual,
    draw_facts,
)
from factrecall.experiments.attribution.integrated_gradients import integrated_gradients
from factrecall.experiments.attribution.tables import ATTRIBUTION, OTHER_RELATION
from factrecall.experiments.attribution.tokenised_prompts import TokenisedPrompt, tokenise
from factrecall.experiments.common.prompts import ROLES, compose
from factrecall.models.forward import Encoded
from factrecall.runtime.progress import progress
from factrecall.vocabulary import FORMATS

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from factrecall.experiments.attribution.settings import AttributionSettings
    from factrecall.experiments.common.model_facts import ModelFacts


def attribute(opened: ModelFacts, settings: AttributionSettings) -> pd.DataFrame:
    """Attribute a model's answers to the parts of their prompts: columns ``ATTRIBUTION``."""
    facts = draw_facts(opened.individuals, opened.bio, settings.individuals, opened.study_seed)
    sentences = FactSentences.of(opened.bio, opened.qa)
    table = pd.concat([facts.assign(format=form) for form in FORMATS], ignore_index=True)
    prompts = [compose(sentences.up_to(*key)) for key in _keys(table)]
    own = tokenise(opened.tokenizer, prompts)
    limit = opened.max_eval_tokens
    with progress(len(own), "integrated gradients", "prompt") as watch:
        found = integrated_gradients(opened.model, own, settings.steps, limit, watch)
    gold = np.array([one.first for one in own])
    usual = next_tokens(opened.model, own, gold, limit)
    table = table.assign(
        total=found.totals,
        gap=[tokens.sum() for tokens in found.tokens] - found.totals,
        logit=usual["logit"],
        log_probability=usual["log_probability"],
        right=usual["likeliest"] == gold,
    )
    changed = _counterfactuals(opened.tokenizer, sentences, table)
    gold = gold[changed["number"]]
    answers = [compose(sentences.up_to("qa", *fact)) for fact in changed["fact"]]
    called = tokenise(opened.tokenizer, answers)
    replaced = tokenise(opened.tokenizer, changed["prompt"].tolist())
    after = next_tokens(opened.model, replaced, gold, limit)
    likeliest = after["likeliest"].to_numpy()
    outcomes = changed[["number", "role"]].assign(
        replaced_logit=after["logit"],
        replaced_log_probability=after["log_probability"],
        replaced_right=likeliest == gold,
        source_answer=(likeliest == [one.first for one in called]) & (likeliest != gold),
    )
    table = _by_role(own, found.tokens).join(table, on="number")
    table = table.merge(outcomes, on=["number", "role"], how="left")
    for column, otherwise in (("replaced_right", table["right"]), ("source_answer", False)):
        table[column] = table[column].where(table["replaced_logit"].notna(), otherwise).astype(bool)
    return table[list(ATTRIBUTION)]


def _keys(table: pd.DataFrame) -> Iterator[tuple[str, int, str]]:
    return zip(table["format"], table["individual"], table["relation"], strict=True)


def _by_role(own: Sequence[TokenisedPrompt], tokens: Sequence[np.ndarray]) -> pd.DataFrame:
    """Add up attributions; columns number (of the prompt), role, tokens and attribution."""
    rows = []
    for number, (one, weights) in enumerate(zip(own, tokens, strict=True)):
        for role in ROLES:
            members = one.roles == role
            rows.append((number, role, members.sum(), weights[members].sum()))
        rows.append((number, OTHER_RELATION, (one.roles == "relation").sum(), np.nan))
    return pd.DataFrame(rows, columns=["number", "role", "tokens", "attribution"])


def _counterfactuals(
    tokenizer: PreTrainedTokenizerBase, sentences: FactSentences, table: pd.DataFrame
) -> pd.DataFrame:
    """Replace each part of each prompt, where that makes another text that fits the model.

    Columns number (of the prompt), role, prompt, and fact: the individual and relation that the
    replaced part is from.
    """
    rows = []
    for number, row in enumerate(table.itertuples()):
        form, relation = row.format, row.relation
        own, source = (sentences.up_to(form, who, relation) for who in (row.individual, row.source))
        versions = {
            part: (counterfactual(part, own, source), (row.source, relation)) for part in PARTS
        }
        reworded = sentences.reworded(form, row.individual, relation, row.other)
        versions[OTHER_RELATION] = reworded, (row.individual, row.other)
        before = compose(own).text
        for role, (text, fact) in versions.items():
            prompt = compose(text)
            if prompt.text != before:
                rows.append((number, role, prompt, fact))
    ids = tokenizer([prompt.whole[0] for _, _, prompt, _ in rows])["input_ids"]
    fits = [len(tokens) <= tokenizer.model_max_length for tokens in ids]
    changed = pd.DataFrame(rows, columns=["number", "role", "prompt", "fact"])
    return changed[fits].reset_index(drop=True)


def next_tokens(
    model: PreTrainedModel,
    prompts: Sequence[TokenisedPrompt],
    gold: np.ndarray,
    max_eval_tokens: int,
) -> pd.DataFrame:
    """Predict the token after each prompt.

    Columns logit and log_probability of the tokens in `gold`, and the likeliest token.
    """
    ends = [len(one.roles) for one in prompts]
    texts = [
        Encoded(np.append(one.tokens[:end], token), ((end, end + 1),))
        for one, end, token in zip(prompts, ends, gold, strict=True)
    ]
    found = np.empty((len(prompts), 3))
    with torch.inference_mode():
        for batch in Answers.of(texts, max_eval_tokens, model.device).batches:
            logits = batch.logits(model).double()
            logit = logits.gather(1, batch.gold[:, None])[:, 0]
            columns = (logit, logit - logits.logsumexp(1), logits.argmax(1))
            found[batch.answer] = torch.stack(columns, 1).cpu().numpy()
    table = pd.DataFrame(found, columns=["logit", "log_probability", "likeliest"])
    return table.astype({"likeliest": "int64"})
