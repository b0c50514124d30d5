"""Devices of a plan: memory and speed.

GPU numbers are those of NVIDIA's data sheets (SXM boards, dense matrices); memory is what PyTorch
reports. The share of these rates that a program reaches is the plan's `efficiency`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

LAUNCH = 3e-4
"""Seconds a layer: about 40 operations of 5 to 8 µs each in Python and PyTorch, on any device."""


@dataclass(frozen=True)
class Device:
    """A GPU, or one thread of a CPU; speeds are bytes and operations a second."""

    name: str
    memory: int | None  # bytes of its own; None for a CPU, which has the machine's
    rates: Mapping[str, float]  # of products by precision: bfloat16, tf32, float32; a CPU: float32
    bandwidth: float  # between the device and its memory
    link: float  # between it and main memory, each way; of a CPU as `bandwidth`
    between: float  # between it and others of the same machine (NVLink), each way
    launch: float = LAUNCH  # seconds of a layer of a forward pass, however little there is to do

    @property
    def is_gpu(self) -> bool:
        """Whether it has memory of its own."""
        return self.memory is not None


# Links to main memory and between GPUs: of PCIe 5.0 and 4.0 x16, 64 and 32 GB/s each way, 50 and 25
# are usual; of NVLink's 450 and 300 about as large a part is taken.
_HOPPER, _AMPERE = (50e9, 400e9), (25e9, 250e9)
_GPUS = (  # name, GiB, bfloat16 and float32 operations, bandwidth, links
    ("H200", 139.8, 989e12, 67e12, 4.8e12, _HOPPER),
    ("H100", 79.1, 989e12, 67e12, 3.35e12, _HOPPER),
    ("A100-80", 79.1, 312e12, 19.5e12, 2.04e12, _AMPERE),
    ("A100-40", 39.4, 312e12, 19.5e12, 1.555e12, _AMPERE),
)

DEVICES: Mapping[str, Device] = {
    # The matrix units take half as many numbers of TF32 as of bfloat16.
    name: Device(
        name,
        round(gib * 2**30),
        {"bfloat16": bfloat16, "tf32": bfloat16 / 2, "float32": float32},
        bandwidth,
        *links,
    )
    for name, gib, bfloat16, float32, bandwidth, links in _GPUS
}
"""GPUs by name."""

CPU = "cpu"
"""The name of the machine that the plan is made on, without its GPU."""

SOME_CPU = Device(CPU, None, {"float32": 4e10}, 1e10, 1e10, 1e10)
"""One thread of an average CPU, for jobs that run on another machine."""


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
        rate = 2 * 512 * 256 * 512 / _fastest(lambda: torch.mm(a, b), 60)
        bandwidth = 2 * source.nbytes / _fastest(lambda: target.copy_(source), 8)
    finally:
        torch.set_num_threads(threads)
    return Device(CPU, None, {"float32": rate}, bandwidth, bandwidth, bandwidth)


def _fastest(work: Callable[[], object], times: int) -> float:
    """Return the fewest seconds of CPU time that a function took."""
    taken = []
    for _ in range(times):
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    return max(min(taken), 1e-9)
