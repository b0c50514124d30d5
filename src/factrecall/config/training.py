"""The sections of the configuration on training: recipes, execution and traces."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from factrecall.config.section import Amount, ConfigIssue, ConfigSection, Natural, Positive, Seed

Beta = Annotated[float, Field(ge=0.0, lt=1.0)]
Switch = Literal["auto", "always", "never"]


class ExecutionSettings(ConfigSection):
    """How a training fits its device; `auto` takes the fastest that fits, on a CPU `adamw`.

    Each update is the same up to rounding, which training amplifies; `adamw_8bit` is an
    approximation that `auto` never chooses (docs/method.md). `cpu_offload` keeps weights, gradients
    and moments in main memory.
    """

    optimiser: Literal["auto", "adamw", "adamw_8bit", "cpu_offload"] = "auto"
    """Moments in float32 (`adamw`) or in 8 bits (`adamw_8bit`), or all state in main memory."""
    checkpointing: Switch = "auto"
    """Activation checkpointing: activations are computed twice to save memory."""
    trace: Literal["auto", "device", "host"] = "auto"
    """Where gradients of traced individuals are added up: on the device, or in main memory."""
    gpus: Positive = 1
    """GPUs that share one fine-tuning; each holds a part of weights, gradients and moments."""
    packing: Switch = "auto"
    """Concatenate examples instead of padding them; auto does on a GPU."""
    compile: Switch = "auto"
    """Compile the model's layers."""

    def _issues(self) -> Iterator[ConfigIssue]:
        if self.optimiser == "adamw_8bit" and self.gpus > 1:
            yield ConfigIssue(
                ("optimiser",),
                "moments in 8 bits are for a training on a single GPU",
                "set adamw: several GPUs share the moments anyway",
            )
        if self.compile == "always" and self.gpus > 1:
            yield ConfigIssue(
                ("compile",),
                "compiled layers that are split among GPUs are not tested",
                "set auto, or gpus to 1",
            )


class Recipe(ConfigSection):
    """One training run (paper, appendix A.3; what the paper leaves open is in docs/method.md)."""

    updates: Positive
    """Optimiser steps."""
    batch_size: Positive
    """Examples in a step; if it exceeds the number of examples, they repeat."""
    learning_rate: Annotated[float, Field(gt=0.0, lt=1.0)]
    """Peak of AdamW's learning rate, which falls to 0 along a cosine."""
    warmup: Natural = 0
    """Steps over which the learning rate first rises linearly."""
    weight_decay: Annotated[float, Field(ge=0.0, le=1.0)] = 0.1
    """AdamW's weight decay, not of norms and biases."""
    betas: Annotated[tuple[Beta, Beta], Field(strict=False)] = (0.9, 0.999)
    """AdamW's decay rates of the two moments."""
    clip: Annotated[float, Field(gt=0.0)] | None = 1.0
    """Maximum norm of the gradient; null does not clip."""
    loss: Literal["all", "answer"] = "all"
    """Tokens in the loss: all of a text, or only its attributes and their terminators."""
    questions_per_example: Literal["one", "all"] = "one"
    """Questions in an example: one, or all six of an individual."""
    micro_batch_tokens: Annotated[int, Field(ge=16)] = 16384
    """Maximum tokens of a pass, padding included; lower it when memory is short."""

    def _issues(self) -> Iterator[ConfigIssue]:
        if self.warmup >= self.updates:
            yield ConfigIssue(
                ("warmup",),
                f"the learning rate would not be up after all updates ({self.updates})",
                f"set warmup below {self.updates}, or raise updates",
            )


class Recipes(ConfigSection):
    """The three fine-tunings of a model; two-stage training is `bio` and then `stage`."""

    bio: Recipe
    """On the biographies of all individuals."""
    stage: Recipe
    """On the in-distribution questions, from the weights that `bio` ends with."""
    mix: Recipe
    """On all biographies and the in-distribution questions, shuffled together."""


class TrainingSettings(Recipes):
    """Settings of all fine-tunings; the recipes hold for every model."""

    seeds: Annotated[list[Seed], Field(min_length=1)]
    """Seeds of the order of examples; every fine-tuning runs once with each, in each replicate."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """bfloat16 is autocast over float32 weights; auto is bfloat16 on a GPU, else float32. On a GPU,
    models are evaluated in TF32, unless this is float32."""
    mode: ExecutionSettings = ExecutionSettings()
    """How a training fits its device; `auto` takes the fastest that fits."""

    def _issues(self) -> Iterator[ConfigIssue]:
        if len(set(self.seeds)) < len(self.seeds):
            yield ConfigIssue(
                ("seeds",),
                "a seed is there twice, but would give the same model again",
                f"keep each once: {list(dict.fromkeys(self.seeds))}",
            )


class TraceSettings(ConfigSection):
    """Gradient trace of fine-tuning, from which parameters are ranked."""

    in_distribution: Positive = 10
    """Traced individuals in distribution (their biographies and questions)."""
    out_of_distribution: Positive = 10
    """Traced individuals out of distribution (their biographies)."""
    top_fraction: Amount = 0.2
    """Top of each ranking that is kept, a count or a fraction of all: the largest `shared.k`."""
    checkpoints: Natural = 2
    """Checkpoints between start and end of a fine-tuning, evenly spaced."""
