"""What many tests need: tiny models of both architectures, a few people, a recipe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import torch

from factrecall.config import Facts, Pools, Recipe, Scratch
from factrecall.facts.tables import FactTables, make_facts
from factrecall.models.scratch import build_model
from factrecall.models.tokenizer import train_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

ARCHITECTURES = ("llama", "gpt_neox")
SMALL_POOLS = Pools(first_names=8, last_names=12, cities=5, universities=5, jobs=5, companies=5)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Sums split over threads differ in their last bits; two cores are shared anyway."""
    torch.set_num_threads(1)


def recipe(**changes: Any) -> Recipe:
    """Return a short recipe with some keys changed."""
    usual = {"updates": 6, "batch_size": 8, "learning_rate": 3e-3, "warmup": 2}
    return Recipe.model_validate(usual | changes)


def scratch(architecture: str, **changes: Any) -> Scratch:
    """Return the settings of a tiny model; llama has grouped-query attention."""
    short = recipe().model_dump()
    usual = {
        "source": "scratch",
        "architecture": architecture,
        "layers": 2,
        "hidden_size": 32,
        "heads": 4,
        "key_value_heads": 2 if architecture == "llama" else None,
        "mlp_size": 48,
        "pretrain": short,
        "training": {"bio": short, "stage": short, "mix": short},
    }
    return Scratch.model_validate(usual | changes)


@dataclass(frozen=True)
class Tiny:
    """A tiny model that knows nothing yet, its tokenizer, and facts to teach it."""

    architecture: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    facts: FactTables


@pytest.fixture(scope="session")
def facts() -> FactTables:
    return make_facts(Facts(people=16, pretrain_people=4, pools=SMALL_POOLS), seed=3)


def tokenizer_for(facts: FactTables, kind: str = "words") -> PreTrainedTokenizerFast:
    """Train a tokenizer on all text of some facts."""
    texts = [*facts.bio["text"], *facts.bio["short"], *facts.qa["text"]]
    return train_tokenizer(texts, kind, 400, context=256)  # type: ignore[arg-type]


@pytest.fixture(params=ARCHITECTURES)
def tiny(request: pytest.FixtureRequest, facts: FactTables) -> Tiny:
    tokenizer = tokenizer_for(facts)
    model = build_model(scratch(request.param), tokenizer, seed=1)
    return Tiny(request.param, model, tokenizer, facts)
