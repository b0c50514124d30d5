"""The shape of a model: all that memory and time depend on, from its `config.json` alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from factrecall.models.scratch import config_of
from factrecall.runtime.errors import FactRecallError

if TYPE_CHECKING:
    from factrecall.config.model import Scratch

Architecture = Literal["llama", "gpt_neox"]


@dataclass(frozen=True)
class Shape:
    """A model's dimensions: with gates and without biases, or, as GPT-NeoX, the reverse."""

    architecture: Architecture
    layers: int
    width: int  # of the residual stream
    heads: int
    key_value_heads: int
    head_size: int
    mlp_size: int
    vocabulary: int
    tied: bool  # whether the embedding matrix is the output matrix, too
    attention_bias: bool = False
    mlp_bias: bool = False

    @classmethod
    def of_config(cls, config: Mapping[str, Any]) -> Self:
        """Return the shape that a `config.json` of transformers describes.

        Raises
        ------
        FactRecallError
            When a number is missing, or the architecture is none of the two.
        """
        kind = config.get("model_type")
        if kind not in ("llama", "gpt_neox"):
            raise FactRecallError(
                f"config.json: model_type {kind!r}",
                "plans know the shapes of llama and gpt_neox only",
                "the workflow runs other models, too; their plan is guessed from their size",
            )
        neox = kind == "gpt_neox"
        try:
            width, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
            return cls(
                architecture=kind,
                layers=int(config["num_hidden_layers"]),
                width=width,
                heads=heads,
                key_value_heads=heads if neox else int(config.get("num_key_value_heads") or heads),
                head_size=int(config.get("head_dim") or width // heads),
                mlp_size=int(config["intermediate_size"]),
                vocabulary=int(config["vocab_size"]),
                tied=bool(config.get("tie_word_embeddings", False)),
                attention_bias=bool(config.get("attention_bias", neox)),
                mlp_bias=neox or bool(config.get("mlp_bias", False)),
            )
        except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
            raise FactRecallError(
                "config.json",
                f"it does not describe a model ({error!r})",
                "take the file that save_pretrained wrote",
            ) from error

    @classmethod
    def of_file(cls, path: Path) -> Self:
        """Return the shape that a model folder's `config.json` describes (see `of_config`)."""
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise FactRecallError(
                str(path), f"it cannot be read ({error})", "name a folder of a model"
            ) from error
        return cls.of_config(config if isinstance(config, dict) else {})

    @classmethod
    def of_scratch(cls, model: Scratch, vocabulary: int) -> Self:
        """Return the shape of a model to be built, whose tokenizer has so many tokens."""
        return cls.of_config(config_of(model, vocabulary))

    @classmethod
    def guessed(cls, parameters: int) -> Self:
        """Return a likely shape of a model of so many parameters, of which no more is known.

        A layer of a Llama-like model with an MLP of 8/3 the width has 12 times the width squared;
        models from a hundred million to ten billion parameters have about width / 100 layers, and
        some 50,000 tokens.
        """
        width = max(64, round((parameters / 0.12) ** (1 / 3) / 64) * 64)
        vocabulary = min(50_304, parameters // (3 * width))
        layers = max(1, round((parameters - vocabulary * width) / (12 * width**2)))
        heads = width // 64
        return cls("llama", layers, width, heads, heads, 64, width * 8 // 3, vocabulary, tied=True)

    @cached_property
    def queries(self) -> int:
        """Width of all queries of a layer together."""
        return self.heads * self.head_size

    @cached_property
    def keys(self) -> int:
        """Width of all keys of a layer together; that of its values is the same."""
        return self.key_value_heads * self.head_size

    @cached_property
    def matrices(self) -> int:
        """Parameters of a layer's matrices, which every token is multiplied by."""
        attention = self.width * (2 * self.queries + 2 * self.keys)
        return attention + self.width * self.mlp_size * (3 if self.architecture == "llama" else 2)

    @cached_property
    def layer(self) -> int:
        """Parameters of a layer, norms and biases included."""
        neox = self.architecture == "gpt_neox"
        small = self.width * (4 if neox else 2)
        if self.attention_bias:
            small += self.queries + 2 * self.keys + self.width
        if self.mlp_bias:
            small += self.width + self.mlp_size * (1 if neox else 2)
        return self.matrices + small

    @cached_property
    def embedding(self) -> int:
        """Parameters of the embedding matrix; the output head has as many."""
        return self.vocabulary * self.width

    @cached_property
    def ends(self) -> int:
        """Parameters outside the layers: embeddings, output head, last norm."""
        norm = self.width * (2 if self.architecture == "gpt_neox" else 1)
        return self.embedding * (1 if self.tied else 2) + norm

    @cached_property
    def parameters(self) -> int:
        """All parameters, a tied matrix counted once."""
        return self.layers * self.layer + self.ends

    @cached_property
    def largest(self) -> int:
        """Parameters of the largest tensor."""
        neox = self.architecture == "gpt_neox"
        return max(
            self.embedding,
            self.width * self.mlp_size,
            self.width * self.queries * (3 if neox else 1),
        )


PUBLISHED = {
    "meta-llama/Llama-3.2-3B": Shape("llama", 28, 3072, 24, 8, 128, 8192, 128256, tied=True),
    "EleutherAI/pythia-2.8b": Shape(
        *("gpt_neox", 32, 2560, 32, 32, 80, 10240, 50304),
        tied=False,
        attention_bias=True,
        mlp_bias=True,
    ),
}
"""The paper's two models, so that a plan needs no network."""
