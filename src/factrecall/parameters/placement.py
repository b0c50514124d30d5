"""Where a job keeps the weights that a model is composed of: on the model's device, or not.

Beside the live model, θpre and θtask are needed, and by some jobs what changed between the two. On
the device all of it is at hand. Where the device has no room for it, θpre and θtask are left in
main memory, as pages of the model folders' files where these hold them as the model does; tensors
are fetched one at a time, and changes are computed when they are asked for. Results are the same.

Bytes a parameter of float32, on the device, beside twice to three times the largest tensor:

=====================  ========  ======  =============================================
a job                  "device"  "host"  of these
=====================  ========  ======  =============================================
ablate, intervene            12       4  the model, 4; θpre and θtask, 8
graft, dual averaging        20       8  … changes, 4; scores, 4
graft, sigmoid               25      13  … changes, 4; logits and slopes, 8; γbase, 1
=====================  ========  ======  =============================================

In main memory, for "host": 8, which are pages of files that the system takes back when it has to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

Place = Literal["device", "host"]

PAIR, DUAL_AVERAGING, SIGMOID = 8, 16, 21
"""What jobs keep on the device beside the model, in bytes a float32 parameter, if it has room."""

SPARE = 4e9
"""Bytes that are left for activations and for the largest tensors on their way."""


def free_memory(device: torch.device) -> float:
    """Return the bytes that are free on a GPU."""
    import torch

    free, _ = torch.cuda.mem_get_info(device)
    reserved = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return float(free + reserved)


def choose_place(
    device: torch.device, parameters: int, held: float = PAIR, spare: float = 0.0
) -> Place:
    """Choose where θpre and θtask are kept.

    Parameters
    ----------
    device : device
        Of the live model, which is there already. On a CPU the choice is "device".
    parameters : int
        Of the model.
    held : float
        Bytes a parameter that the job keeps on the device if it has room.
    spare : float
        Bytes that the job needs there besides, beside what every job does.
    """
    if device.type == "cpu" or parameters * held + SPARE + spare <= free_memory(device):
        return "device"
    return "host"
