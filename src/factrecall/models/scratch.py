"""Small models of the paper's two shapes, with random weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from factrecall.runtime.quiet import quiet

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from factrecall.config.model import Scratch


def config_of(settings: Scratch, vocabulary: int) -> dict[str, Any]:
    """Return the `config.json` of a Llama (sequential blocks) or GPT-NeoX (parallel blocks) model.

    The vocabulary is rounded up to a multiple of 8, which matrix kernels like.
    """
    heads = {"num_key_value_heads": settings.key_value_heads or settings.heads}
    return {
        "model_type": settings.architecture,
        "vocab_size": -(-vocabulary // 8) * 8,
        "hidden_size": settings.hidden_size,
        "intermediate_size": settings.mlp_size,
        "num_hidden_layers": settings.layers,
        "num_attention_heads": settings.heads,
        "max_position_embeddings": settings.context,
        "tie_word_embeddings": settings.tie_embeddings,
        **(heads if settings.architecture == "llama" else {"use_parallel_residual": True}),
    }


def build_model(
    settings: Scratch, tokenizer: PreTrainedTokenizerFast, seed: int
) -> PreTrainedModel:
    """Build a model in float32, with weights that depend on `seed` alone."""
    import torch

    quiet()
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        **config_of(settings, len(tokenizer)),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=None,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.eval()
    return model
