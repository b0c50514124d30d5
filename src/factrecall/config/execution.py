"""The section of the configuration that says how a training fits its device."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from factrecall.config.section import ConfigIssue, Positive, Section

Switch = Literal["auto", "always", "never"]


class ExecutionSettings(Section):
    """How trainings fit their device; `auto` takes the fastest that fits, on a CPU `adamw`.

    All compute the same updates up to rounding, but for `adamw_8bit`, which is an approximation
    that `auto` never chooses (docs/method.md). `cpu_offload` keeps weights, gradients and moments
    in main memory.
    """

    optimiser: Literal["auto", "adamw", "adamw_8bit", "cpu_offload"] = "auto"
    """Moments in float32 (`adamw`) or in 8 bits (`adamw_8bit`), or all state in main memory."""
    checkpointing: Switch = "auto"
    """Compute activations twice to save memory."""
    trace: Literal["auto", "device", "host"] = "auto"
    """Where the gradients of traced people are added up: on the device, or in main memory."""
    gpus: Positive = 1
    """GPUs that share one fine-tuning: weights, gradients and moments are split among them."""
    packing: Switch = "auto"
    """Lay examples end to end in place of padding them; auto does on a GPU."""
    compile: Switch = "auto"
    """Compile the model's layers first."""

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
                "compiled layers that are split among GPUs were never tried",
                "set auto, or gpus to 1",
            )
