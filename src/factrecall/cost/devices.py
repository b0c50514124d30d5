"""The devices that a plan is made for: what they hold, and how fast they are.

GPU numbers are those of NVIDIA's data sheets (SXM boards, dense matrices); memory is what PyTorch
reports of them. What a program reaches of them is the plan's `efficiency`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

GIB = 2**30


@dataclass(frozen=True)
class Device:
    """What computes.

    Attributes
    ----------
    name : str
        As on the command line.
    memory : int or None
        Bytes of its own; None for a CPU, which has the machine's.
    rates : mapping of str to float
        Operations a second of matrix products by precision: "bfloat16", "tf32" (inputs rounded to
        19 bits, only where PyTorch is told to) and "float32". Of a CPU those that were measured.
    bandwidth : float
        Bytes a second between the device and its memory.
    link : float
        Bytes a second between it and main memory, each way; for a CPU as `bandwidth`.
    between : float
        Bytes a second between it and others of the same machine (NVLink), each way.
    launch : float
        Seconds that a layer of a forward pass takes however little there is to do.
    """

    name: str
    memory: int | None
    rates: Mapping[str, float]
    bandwidth: float
    link: float
    between: float
    launch: float

    @property
    def is_gpu(self) -> bool:
        """Whether it has memory of its own."""
        return self.memory is not None


LAUNCH = 3e-4
"""Seconds a layer: about 40 operations of 5 to 8 µs each in Python and PyTorch, on any device."""


def _gpu(
    name: str,
    gib: float,
    bfloat16: float,
    float32: float,
    bandwidth: float,
    links: tuple[float, float],
) -> Device:
    # The matrix units take half as many numbers of TF32 as of bfloat16.
    rates = {"bfloat16": bfloat16, "tf32": bfloat16 / 2, "float32": float32}
    return Device(name, round(gib * GIB), rates, bandwidth, *links, LAUNCH)


HOPPER, AMPERE = (50e9, 400e9), (25e9, 250e9)
"""Links to main memory and between GPUs, bytes a second: of PCIe 5.0 and 4.0 x16, 64 and 32 GB/s
each way, 50 and 25 are usual; of NVLink's 450 and 300 about as large a part is taken."""

DEVICES: Mapping[str, Device] = {
    device.name: device
    for device in (
        _gpu("H200", 139.8, 989e12, 67e12, 4.8e12, HOPPER),
        _gpu("H100", 79.1, 989e12, 67e12, 3.35e12, HOPPER),
        _gpu("A100-80", 79.1, 312e12, 19.5e12, 2.04e12, AMPERE),
        _gpu("A100-40", 39.4, 312e12, 19.5e12, 1.555e12, AMPERE),
    )
}
"""By name."""

CPU = "cpu"
"""The name of the machine that the plan is made on, without its GPU."""


def this_cpu() -> Device:
    """Measure one thread of this machine's CPU, in less than a second once PyTorch is loaded.

    The clock is that of the process: other work on the machine does not count. The product is as
    large as those of small models.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        a, b = torch.ones(512, 256), torch.ones(256, 512)
        source = torch.ones(2**23)
        target = torch.empty_like(source)
        rate = 2 * 512 * 256 * 512 / _best(lambda: torch.mm(a, b), 60)
        bandwidth = 2 * source.nbytes / _best(lambda: target.copy_(source), 8)
    finally:
        torch.set_num_threads(threads)
    return Device(CPU, None, {"float32": rate}, bandwidth, bandwidth, bandwidth, LAUNCH)


SOME_CPU = Device(CPU, None, {"float32": 4e10}, 1e10, 1e10, 1e10, LAUNCH)
"""One thread of a CPU that is not slow, where jobs that are not here are asked for."""


def _best(work: Callable[[], object], times: int) -> float:
    """Return the fewest seconds of CPU time that some work took."""
    taken = []
    for _ in range(times):
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    return max(min(taken), 1e-9)
