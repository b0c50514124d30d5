"""Tiny models that know some facts, stated and asked, so that verdicts on them differ."""

from __future__ import annotations

from functools import cache

import pandas as pd
import torch

from factrecall.config.facts import Facts
from factrecall.data.tables import make_facts
from factrecall.experiments.attribution.counterfactual_prompts import FactSentences, draw_facts
from factrecall.experiments.attribution.tokenised_prompts import tokenise
from factrecall.experiments.common.prompts import compose
from tests.conftest import SMALL_POOLS, Tiny, tiny_of

FACTS = make_facts(Facts(people=16, pretrain_people=4, pools=SMALL_POOLS), seed=3)
TEXTS = FactSentences.of(FACTS.bio, FACTS.qa)
DRAWN: pd.DataFrame = draw_facts(FACTS.individuals, FACTS.bio, 2, 5)
"""The facts of two people of each side."""

STEPS = 60


@cache
def taught(architecture: str) -> Tiny:
    """Teach a tiny model the facts of two people of each side, and half of their sources'.

    Nobody changes it.
    """
    tiny = tiny_of(architecture, FACTS)
    keys = list(zip(DRAWN["individual"], DRAWN["relation"], strict=True))
    keys += list(zip(DRAWN["source"], DRAWN["relation"], strict=True))[::2]
    texts = tokenise(
        tiny.tokenizer, [compose(TEXTS.up_to(f, *k)) for k in keys for f in ("short", "qa")]
    )
    length = max(len(text.tokens) for text in texts)
    tokens = torch.zeros(len(texts), length, dtype=torch.long)
    targets = torch.full((len(texts), length), -100)
    for row, text in enumerate(texts):
        tokens[row, : len(text.tokens)] = torch.as_tensor(text.tokens)
        targets[row, len(text.roles) : len(text.tokens)] = torch.as_tensor(
            text.tokens[len(text.roles) :]
        )
    optimiser = torch.optim.AdamW(tiny.model.parameters(), lr=1e-2)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for _ in range(STEPS):
            rows = torch.randperm(len(texts))[:32]
            tiny.model(input_ids=tokens[rows], labels=targets[rows]).loss.backward()
            optimiser.step()
            optimiser.zero_grad()
    tiny.model.eval()
    return tiny
