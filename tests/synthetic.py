"""Models with random weights and texts of random tokens, as long as the study's.

Nothing here reads a configuration or a tokenizer: what is checked on a GPU needs PyTorch and
transformers alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from factrecall.models.forward import Encoded
from factrecall.training.batches import IGNORED, Example

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LLAMA_3B: Mapping[str, Any] = {
    "model_type": "llama",
    "hidden_size": 3072,
    "intermediate_size": 8192,
    "num_hidden_layers": 28,
    "num_attention_heads": 24,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 128256,
    "tie_word_embeddings": True,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5,
    "bos_token_id": 128000,
    "eos_token_id": 128001,
    "rope_parameters": {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
}
"""What the `config.json` of meta-llama/Llama-3.2-3B says: 3,212,749,824 parameters."""

TINY: Mapping[str, Mapping[str, Any]] = {
    "llama": {
        **LLAMA_3B,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "vocab_size": 512,
        "bos_token_id": 0,
        "eos_token_id": None,
    },
    "gpt_neox": {
        "model_type": "gpt_neox",
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "vocab_size": 512,
        "tie_word_embeddings": False,
        "bos_token_id": 0,
        "eos_token_id": None,
    },
}
"""Shapes of the paper's two kinds, small enough for any machine."""

ASKED, NAME = 7, 3
"""Tokens of a question before the name, and of the name (the paper's texts in Llama's tokenizer,
about: 1.3 tokens a word)."""

ANSWERS = (7, 5, 6, 4, 6, 4)
"""Tokens of the six answers, with their full stops."""

BIOGRAPHY, SPREAD = 87, 8
"""Tokens of a biography, and their standard deviation."""


@dataclass(frozen=True)
class Recipe:
    """A training run; the keys of the configuration's `Recipe`, without its checks."""

    updates: int
    batch_size: int
    learning_rate: float = 1e-4
    warmup: int = 0
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.999)
    clip: float | None = 1.0
    loss: str = "all"
    questions: str = "all"
    micro_batch_tokens: int = 4096


def build(
    shape: Mapping[str, Any], device: torch.device | str, seed: int = 0, **changes: Any
) -> PreTrainedModel:
    """Build a model with random float32 weights where it is to be, in evaluation mode."""
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = {**shape, **changes}
    config = AutoConfig.for_model(settings.pop("model_type"), **settings)
    torch.manual_seed(seed)
    with torch.device(device):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return model.eval()


def questions(people: int, vocabulary: int, seed: int = 0) -> list[Encoded]:
    """Return six questions of each person; those of a relation begin alike."""
    rng = np.random.default_rng(seed)
    begin = rng.integers(1, vocabulary, (len(ANSWERS), ASKED))
    texts = []
    for _ in range(people):
        name = rng.integers(1, vocabulary, NAME)
        for relation, length in enumerate(ANSWERS):
            parts = [[0], begin[relation], name, [1], rng.integers(1, vocabulary, length)]
            tokens = np.concatenate(parts).astype(np.int64)
            texts.append(Encoded(tokens, ((len(tokens) - length, len(tokens)),)))
    return texts


def examples(people: int, vocabulary: int, seed: int = 0) -> list[Example]:
    """Return the examples of mixed training: a biography each, and of half of them all questions.

    Six questions are one example, as in the paper's study.
    """
    rng = np.random.default_rng(seed)
    asked = questions(people, vocabulary, seed)
    found = []
    for person in range(people):
        length = max(32, round(rng.normal(BIOGRAPHY, SPREAD)))
        found.append(_example(rng.integers(1, vocabulary, length), "bio", person))
        if person % 2 == 0:
            six = asked[len(ANSWERS) * person : len(ANSWERS) * (person + 1)]
            joined = np.concatenate([[0], *(text.tokens[1:] for text in six)])
            found.append(_example(joined, "qa", person))
    return found


def _example(tokens: np.ndarray, kind: str, person: int) -> Example:
    tokens = tokens.astype(np.int64)
    return Example(tokens, np.append(tokens[1:], IGNORED), kind, person)


def answered(said: Sequence[np.ndarray], texts: Sequence[Encoded]) -> list[Encoded]:
    """Return texts with other tokens for answers."""
    found = []
    for text, words in zip(texts, said, strict=True):
        start, end = text.answers[0]
        tokens = text.tokens.copy()
        tokens[start:end] = words
        found.append(Encoded(tokens, text.answers))
    return found
