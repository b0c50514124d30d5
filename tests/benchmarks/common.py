"""What the benchmarks share: the laptop study's model, and contestants in turns."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerFast

from factrecall.config.reading import read_study
from factrecall.config.training import Recipe
from factrecall.data.tables import FactTables, make_facts
from factrecall.models.scratch import build_model
from factrecall.models.tokenizers import train_tokenizer
from factrecall.training.batches import Example
from factrecall.training.examples import training_set
from factrecall.training.loop import train

ROOT = Path(__file__).parents[2]
STUDY = read_study(ROOT / "config.yaml")
MODEL = STUDY.models["small"]


@cache
def setting() -> tuple[PreTrainedModel, PreTrainedTokenizerFast, FactTables]:
    """Return the laptop study's facts and its model, trained for a while."""
    facts = make_facts(STUDY.facts, STUDY.seed)
    texts = [*facts.bio["text"], *facts.qa["text"]]
    tokenizer = train_tokenizer(texts, "words", 4096, context=MODEL.context)
    model = build_model(MODEL, tokenizer, 0)
    train(
        model, examples(facts, tokenizer), recipe(600).model_copy(update={"learning_rate": 3e-3}), 0
    )
    return model, tokenizer, facts


def recipe(updates: int, batch_size: int = 16) -> Recipe:
    """Return the laptop study's mix recipe, shortened."""
    changes = {"updates": updates, "batch_size": batch_size, "warmup": min(20, updates - 1)}
    return MODEL.training.mix.model_copy(update=changes)


def examples(facts: FactTables, tokenizer: PreTrainedTokenizerFast) -> list[Example]:
    """Return the examples of mixed training."""
    return training_set("mix", recipe(2), facts.bio, facts.qa, tokenizer)


def seconds(run: Callable[[], Any]) -> float:
    """Return the CPU time of a call, in all threads of this process."""
    begin = time.process_time()
    run()
    return time.process_time() - begin


def ratios(turns: int, slow: Callable[[], Any], fast: Callable[[], Any]) -> list[float]:
    """Run both in turns; return CPU time of `slow` over that of `fast`, turn by turn."""
    return [seconds(slow) / seconds(fast) for _ in range(turns)]
