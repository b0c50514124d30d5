"""GGUF files of random tiny models, as llama.cpp writes them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Format
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
from tokenizers.normalizers import NFC
from tokenizers.pre_tokenizers import ByteLevel, Digits, PreTokenizer, Sequence, Split
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

TEXTS = [
    "Ann Lee was born on May 3, 1987 in Oslo. It's 12345 km from B2B,  isn't it?\n",
    "\u00c0\u00c9 \u6771\u4eac \U0001f44d 9.  (Zoe\u0308 I'M)\n\n1 a",
    "One <end> two<think>three.",
]
QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PUBLISHED: dict[str, Callable[[], PreTokenizer]] = {
    "gpt-2": lambda: ByteLevel(add_prefix_space=False),
    "smollm": lambda: Sequence([Digits(individual_digits=True), ByteLevel(add_prefix_space=False)]),
    "qwen2": lambda: Sequence(
        [Split(Regex(QWEN2), "isolated"), ByteLevel(add_prefix_space=False, use_regex=False)]
    ),
}
"""How published tokenizers of each kind split text."""


def tokenizer_of(kind: str) -> Tokenizer:
    """Train a byte-level tokenizer, in which merges within numbers and words were learnt."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = PUBLISHED[kind]()
    core.normalizer = NFC() if kind == "qwen2" else None
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        # The library gives tokenizers of Qwen 2 the third if they lack it.
        special_tokens=["<end>", "<think>", *["<|endoftext|>"] * (kind == "qwen2")],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator([*TEXTS, "1987 1987 12345 12345 born born"], trainer)
    return core


@dataclass
class Source:
    """A random model and tokenizer, and what a file says of them beside or instead of the truth."""

    architecture: str = "llama"
    split: str = "smollm"
    tied: bool = True
    format: Format = Format.F32
    settings: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, np.ndarray | None] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    tokens: Callable[[list[str]], list[str]] = list

    def model(self) -> PreTrainedModel:
        """Build the model: 2 layers of width 64, numbers that no default happens to be."""
        config = AutoConfig.for_model(
            self.architecture,
            vocab_size=self.tokenizer().get_vocab_size(),
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=4 if self.architecture != "qwen3" else 2,
            num_key_value_heads=2,
            max_position_embeddings=128,
            rms_norm_eps=3e-5,
            rope_parameters={"rope_theta": 50_000.0, "rope_type": "default"},
            tie_word_embeddings=self.tied,
        )
        torch.manual_seed(0)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
        with torch.no_grad():
            for parameter in model.parameters():  # norms and biases, too
                parameter.add_(0.05 * torch.randn_like(parameter))
        return model.eval()

    def tokenizer(self) -> Tokenizer:
        return tokenizer_of(self.split)

    def stored(self, model: PreTrainedModel) -> dict[str, np.ndarray]:
        """Return tensors by their names in a file, as llama.cpp orders their rows."""
        config: Any = model.config
        (kind,) = (k for k, name in gguf.MODEL_ARCH_NAMES.items() if name == self.architecture)
        names = gguf.get_tensor_name_map(kind, config.num_hidden_layers)
        heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
        found = {}
        for name, parameter in model.named_parameters():
            stem, _, suffix = name.rpartition(".")
            array, place = parameter.detach().numpy(), str(names.get_name(stem))
            if self.architecture == "llama" and (count := heads.get(place.rpartition(".")[2])):
                halves = array.reshape(count, 2, -1, *array.shape[1:])
                array = halves.swapaxes(1, 2).reshape(array.shape)
            found[f"{place}.{suffix}"] = array
        return found

    def write(self, path: Path) -> PreTrainedModel:
        """Write the file; return the model."""
        model, core = self.model(), self.tokenizer()
        config: Any = model.config
        vocabulary = core.get_vocab()
        writer = gguf.GGUFWriter(path, self.architecture)
        settings: dict[str, Any] = {
            "block_count": config.num_hidden_layers,
            "context_length": config.max_position_embeddings,
            "embedding_length": config.hidden_size,
            "feed_forward_length": config.intermediate_size,
            "attention.head_count": config.num_attention_heads,
            "attention.head_count_kv": config.num_key_value_heads,
            "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
            "rope.freq_base": config.rope_parameters["rope_theta"],
        }
        if self.architecture == "qwen3":
            settings["attention.key_length"] = config.head_dim
        values: dict[str, Any] = {
            "tokenizer.ggml.model": "gpt2",
            "tokenizer.ggml.pre": self.split,
            "tokenizer.ggml.tokens": self.tokens(sorted(vocabulary, key=vocabulary.__getitem__)),
            "tokenizer.ggml.merges": [
                " ".join(m) for m in json.loads(core.to_str())["model"]["merges"]
            ],
            "tokenizer.ggml.eos_token_id": 0,
            # Control, defined by the user, normal.
            "tokenizer.ggml.token_type": [3, 4, *[1] * (len(vocabulary) - 2)],
        }
        stated = {f"{self.architecture}.{k}": v for k, v in (settings | self.settings).items()}
        for key, value in (stated | values | self.values).items():
            if isinstance(value, list):
                writer.add_array(key, value)
            elif value is not None:
                add = {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string,
                       bool: writer.add_bool}[type(value)]  # fmt: skip
                add(key, value)
        for name, array in (self.stored(model) | self.tensors).items():
            if array is not None:
                kind = self.format if array.ndim == 2 else Format.F32
                writer.add_tensor(name, gguf.quantize(array, kind), raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return model
