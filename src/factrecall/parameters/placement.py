"""Placement of θpre and θtask beside a live model: on its device or in main memory ("host").

On the host they are pages of the model folders' files, where these hold them as the model does;
tensors are fetched one at a time, and changes are computed when they are asked for. Results are the
same. Bytes a float32 parameter on the device, beside two to three times the largest tensor:

=====================  ========  ======  =============================================
a job                  "device"  "host"  of these
=====================  ========  ======  =============================================
ablate, intervene            12       4  the model, 4; θpre and θtask, 8
graft, dual averaging        20       8  … changes, 4; scores, 4
graft, sigmoid               25      13  … changes, 4; logits and slopes, 8; γbase, 1
=====================  ========  ======  =============================================

The host then has 8, which are pages of files that the system takes back when it has to.
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
    """Choose where θpre and θtask of a model on a device are kept; on a CPU "device".

    Parameters
    ----------
    parameters : int
        Of the model.
    held : float
        Bytes a parameter that the job keeps on the device if it has room.
    spare : float
        Further bytes that the job needs there, beside `SPARE`.
    """
    if device.type == "cpu" or parameters * held + SPARE + spare <= free_memory(device):
        return "device"
    return "host"
