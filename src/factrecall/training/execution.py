"""Resolved execution settings of a training: what the configuration's `auto` stands for.

The plan chooses them (`factrecall.cost`). All compute the same updates, up to the order of
additions, but for 8-bit moments.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Execution:
    """How a training is executed.

    Attributes
    ----------
    optimiser : {"adamw", "adamw_8bit", "cpu_offload"}
        Where AdamW keeps its moments, in which precision.
    checkpointing : bool
        Whether activations are recomputed.
    trace : {"device", "host"}
        Where the gradients of traced examples are summed.
    gpus : int
        Processes that share the training, each with a device.
    packing : bool
        Whether examples are packed, not padded.
    compile : bool
        Whether layers are compiled first.
    """

    optimiser: Literal["adamw", "adamw_8bit", "cpu_offload"] = "adamw"
    checkpointing: bool = False
    trace: Literal["device", "host"] = "device"
    gpus: int = 1
    packing: bool = False
    compile: bool = False
