"""The sections of the configuration on models: built here, or fetched from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from factrecall.config.section import ConfigIssue, ConfigSection, Location, Positive
from factrecall.config.training import Recipe, Recipes

REPOSITORY = r"^[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)?$"
COMMIT = r"^[0-9a-f]{40}$"


class Scratch(ConfigSection):
    """A small model, built here and pre-trained on other synthetic individuals."""

    source: Literal["scratch"]
    """The model is built here."""
    architecture: Literal["llama", "gpt_neox"]
    """Llama (attention, then MLP) or GPT-NeoX (both side by side, as in Pythia)."""
    layers: Positive
    """Number of layers."""
    hidden_size: Annotated[int, Field(ge=8)]
    """Width of the residual stream."""
    heads: Positive
    """Query heads of a layer."""
    key_value_heads: Positive | None = None
    """Key and value heads of a layer (llama only); null has one for each query head."""
    mlp_size: Annotated[int, Field(ge=8)]
    """Hidden units of a layer's MLP."""
    context: Annotated[int, Field(ge=32)] = 512
    """Maximum length of a text in tokens."""
    tie_embeddings: bool = False
    """Whether the embedding matrix is the output matrix, too."""
    tokenizer: Literal["words", "bpe"] = "words"
    """Whole words, or byte-level byte-pair encoding as in the large models."""
    vocabulary: Annotated[int, Field(ge=300)] = 4096
    """Maximum number of tokens of a `bpe` tokenizer; `words` has one for every word."""
    pretrain: Recipe
    """Pre-training on `facts.pretrain_people`; takes nothing from `training`."""
    training: Recipes
    """Recipe keys in which this model differs from the section `training`."""

    def _issues(self) -> Iterator[ConfigIssue]:
        if self.hidden_size % (2 * self.heads):
            yield ConfigIssue(
                ("hidden_size",),
                f"it is no even multiple of heads ({self.heads}), but rotary position embeddings "
                "pair the coordinates of a head",
                f"take a multiple of {2 * self.heads}, or change heads",
            )
        if self.architecture == "gpt_neox" and self.key_value_heads not in (None, self.heads):
            yield ConfigIssue(
                ("key_value_heads",),
                "gpt_neox has one key and value head for each query head",
                "set it to null, or architecture to llama",
            )
        elif self.heads % (self.key_value_heads or self.heads):
            yield ConfigIssue(
                ("key_value_heads",),
                f"heads ({self.heads}) is no multiple of it, but query heads share key and value "
                "heads evenly",
                f"take a divisor of {self.heads}, or null",
            )


class Hub(ConfigSection):
    """A pre-trained model of the Hugging Face hub."""

    source: Literal["hub"]
    """The model is fetched from the hub."""
    repository: Annotated[str, Field(pattern=REPOSITORY)]
    """Its name there, e.g. `EleutherAI/pythia-2.8b`."""
    revision: Annotated[str, Field(pattern=COMMIT)] | None = None
    """Commit of the repository; null takes the latest, and the models lock keeps to it."""
    training: Recipes
    """Recipe keys in which this model differs from the section `training`."""


class Folder(ConfigSection):
    """A pre-trained model in a folder that `save_pretrained` wrote."""

    source: Literal["folder"]
    """The model is read from a folder."""
    path: Location
    """The folder; it holds `config.json`, the weights as safetensors and `tokenizer.json`."""
    training: Recipes
    """Recipe keys in which this model differs from the section `training`."""

    def _issues(self) -> Iterator[ConfigIssue]:
        if not (self.path / "config.json").is_file():
            yield ConfigIssue(
                ("path",),
                "there is no such folder" if not self.path.is_dir() else "it has no config.json",
                f"name a folder that save_pretrained wrote (the path starts at {Path.cwd()})",
            )


class Gguf(ConfigSection):
    """A pre-trained model in a GGUF file, the format of llama.cpp.

    Its weights, quantised as a rule, are turned into float32 once, when the model is fetched.
    """

    source: Literal["gguf"]
    """The model is read from a GGUF file."""
    path: Location
    """The file."""
    training: Recipes
    """Recipe keys in which this model differs from the section `training`."""

    def _issues(self) -> Iterator[ConfigIssue]:
        if not self.path.is_file():
            yield ConfigIssue(
                ("path",),
                "there is no such file",
                f"name a GGUF file (the path starts at {Path.cwd()}); `make pretrained` fetches "
                "that of the preset smollm2",
            )


Fetched = Hub | Folder | Gguf
"""Models that were pre-trained elsewhere."""

Model = Annotated[Scratch | Fetched, Field(discriminator="source")]
