"""How a training is done on its device: what the configuration's `auto` came to.

The choice is the plan's (`factrecall.cost`); training takes it as it is. Every mode computes
the same updates, up to the order of additions; 8-bit moments alone are an approximation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Execution:
    """How a training is done.

    Attributes
    ----------
    optimiser : {"adamw", "adamw_8bit", "cpu_offload"}
        Where AdamW keeps its moments, and in which precision.
    checkpointing : bool
        Whether activations are computed twice.
    trace : {"device", "host"}
        Where the gradients of traced examples are added up.
    gpus : int
        Processes that share the training, each with a device.
    packing : bool
        Whether examples are laid end to end in place of padding them.
    compile : bool
        Whether layers are compiled first.
    """

    optimiser: Literal["adamw", "adamw_8bit", "cpu_offload"] = "adamw"
    checkpointing: bool = False
    trace: Literal["device", "host"] = "device"
    gpus: int = 1
    packing: bool = False
    compile: bool = False
