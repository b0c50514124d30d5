"""Small models of the paper's two shapes, with random weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from factrecall.runtime.quiet import quiet

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

    from factrecall.config.model import Scratch


def build_model(
    settings: Scratch, tokenizer: PreTrainedTokenizerFast, seed: int
) -> PreTrainedModel:
    """Build a Llama (sequential blocks) or GPT-NeoX (parallel blocks) model in float32.

    The weights depend on `seed` alone. The vocabulary is rounded up to a multiple of 8, which
    matrix kernels like.
    """
    quiet()
    from transformers import AutoModelForCausalLM, GPTNeoXConfig, LlamaConfig

    common = {
        "vocab_size": -(-len(tokenizer) // 8) * 8,
        "hidden_size": settings.hidden_size,
        "intermediate_size": settings.mlp_size,
        "num_hidden_layers": settings.layers,
        "num_attention_heads": settings.heads,
        "max_position_embeddings": settings.context,
        "tie_word_embeddings": settings.tie_embeddings,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": None,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config: PreTrainedConfig
    if settings.architecture == "llama":
        heads = settings.key_value_heads or settings.heads
        config = LlamaConfig(**common, num_key_value_heads=heads)
    else:
        config = GPTNeoXConfig(**common, use_parallel_residual=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.eval()
    return model
