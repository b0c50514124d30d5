"""Cost of a job: passes, bytes and numbers, and the seconds they take on a device.

A job's seconds are a sum: start-up; passes of its model, each as long as the slowest of its
arithmetic, reading its weights and launching its kernels; work that is limited by the memory of the
device, by the link to the host or by the host; and the disk. Nothing overlaps but these three
parts of a pass on a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from factrecall.cost.memory import Memory

if TYPE_CHECKING:
    from factrecall.cost.devices import Device
    from factrecall.cost.shapes import Shape

Kind = Literal["forward", "inputs", "train", "checkpointed"]

TIMES: dict[Kind, float] = {"forward": 1.0, "inputs": 2.0, "train": 3.0, "checkpointed": 4.0}
"""Operations of a pass over those of a forward pass: backward to the inputs only is as much again,
with the weights' gradients twice as much; checkpointing passes forward twice."""

# Seconds of start-up: a process and the libraries of tables; PyTorch; transformers and opening a
# model, however small (docs/benchmarks.md); a GPU's context.
START, TORCH, OPEN, CUDA = 1.0, 1.5, 4.5, 8.0
# Bytes a second: an NVMe drive, or a job's part of a parallel file system; a thread that copies and
# checksums (CRC-32) files; from the hub.
DISK, CHECKSUM, NETWORK = 1e9, 1e9, 1e8
SORT = 1e-7  # seconds a number, with the order, by numpy: 1.2e8 take 12 s
TEXT = 3e-4  # seconds in which Python splits, locates and packs a text: 4,200 take 1.2 s

SELECTED = 4.0  # bytes a parameter that selecting the largest scores reads: all of them once

# Share of a GPU's rate that large matrix products reach by themselves. What else a pass does takes
# as long in any precision: it is what `efficiency` lacks of this in bfloat16.
PRODUCTS = 0.75
# Share of the data sheet's rate in bfloat16 that passes are thought to reach: an assumption, and
# higher than the goal of docs/benchmarks.md, a share of the measured rate and of whole updates.
EFFICIENCY = 0.45
# Share of a CPU's measured matrix rate that passes of a small model reach: the rest is norms,
# activations and soft-max (2 layers of width 192: 59 of 100 GFLOP/s).
CPU_EFFICIENCY = 0.6
THREAD = 0.35  # what each further thread adds to the speed of small models, on a shared machine


def seconds_each(device: Device, precision: str, efficiency: float) -> float:
    """Return the seconds of one operation of a pass; on a CPU all are in float32."""
    if not device.is_gpu:
        return 1 / (device.rates["float32"] * CPU_EFFICIENCY)
    products = max(PRODUCTS, efficiency)
    beside = (1 / efficiency - 1 / products) / device.rates["bfloat16"]
    return 1 / (device.rates[precision] * products) + beside


@dataclass(frozen=True)
class Passes:
    """Passes of one model, all alike."""

    count: float
    tokens: float  # of each pass
    targets: float  # of these, the tokens at which logits are made
    length: float  # of a text, which attention is quadratic in
    kind: Kind = "forward"
    precision: str = "float32"  # of matrix products
    depth: float = 1.0  # share of layers that compute
    short: bool = (
        False  # whether the last layer computes at targets only (ArchitectureSpec.last_of)
    )
    split: int = 1  # devices that share the tokens

    def operations(self, shape: Shape) -> float:
        """Return the floating-point operations of all of them together."""
        layers = shape.layers * self.depth
        # Two for each parameter and token; attention's scores and sums over half of the length,
        # since a token sees only those before it.
        each = 2 * shape.matrices + 4 * shape.queries * self.length / 2
        body = self.tokens * layers * each
        if self.short:
            left = shape.matrices - 2 * shape.width * shape.keys
            body -= 2 * left * max(0.0, self.tokens - self.targets)
        head = 2 * shape.embedding * self.targets
        return TIMES[self.kind] * self.count * (body + head)

    def busy(self, shape: Shape, device: Device, efficiency: float) -> float:
        """Return how long the device computes."""
        operations = self.operations(shape) / self.split
        compute = operations * seconds_each(device, self.precision, efficiency)
        if not device.is_gpu:
            return compute
        item = 2 if self.precision == "bfloat16" else 4
        return max(compute, self._rounds * item * shape.parameters / device.bandwidth)

    def seconds(self, shape: Shape, device: Device, efficiency: float) -> float:
        """Return how long all of them take."""
        busy = self.busy(shape, device, efficiency)
        launched = self._rounds * (shape.layers + 1) * device.launch
        # A CPU's arithmetic waits for Python.
        return max(busy, launched) if device.is_gpu else busy + launched

    @property
    def _rounds(self) -> float:
        """How often all layers are gone through."""
        return TIMES[self.kind] * self.count * self.depth


@dataclass(frozen=True)
class JobCost:
    """All that a job takes."""

    memory: Memory
    shape: Shape | None = None  # of its model; None for jobs without one
    passes: tuple[Passes, ...] = ()
    texts: float = 0.0  # texts that are split into tokens
    device_bytes: float = 0.0  # moved between device and its memory beside passes
    link_bytes: float = 0.0  # moved between device and host
    sorted: float = 0.0  # numbers that the host sorts
    read: float = 0.0  # bytes of files
    written: float = 0.0  # bytes of files that stay
    scratch: float = 0.0  # bytes of states that are deleted at the end, each time counted
    held: float = 0.0  # bytes of the largest state at a time, beside what stays
    fetched: float = 0.0  # bytes from the hub
    more: float = 0.0  # seconds beside all that, on any device
    operations_beside: float = 0.0  # floating-point operations in float32 that are no passes
    models: int = 0  # models that are opened
    light: bool = False  # whether it does without PyTorch
    threads: int = 1

    @property
    def tokens(self) -> float:
        """Tokens that pass through the model."""
        return sum(p.count * p.tokens for p in self.passes)

    @property
    def operations(self) -> float:
        """Floating-point operations."""
        passes = sum(p.operations(self.shape) for p in self.passes) if self.shape else 0.0
        return passes + self.operations_beside

    @property
    def on_gpu(self) -> bool:
        """Whether it asks for a GPU where there is one."""
        return self.shape is not None or self.operations_beside > 0

    def seconds(self, device: Device, efficiency: float) -> float:
        """Return how long the job takes."""
        gpu = device.is_gpu and self.on_gpu
        faster = 1.0 if gpu else 1 + THREAD * (self.threads - 1)
        start = START + TORCH * (not self.light) + OPEN * bool(self.models) + CUDA * gpu + self.more
        files = self.read + self.written + self.scratch
        disk = files / DISK + files / CHECKSUM + self.fetched / NETWORK
        host = TEXT * self.texts + SORT * self.sorted
        link = self.link_bytes / device.link if gpu else 0.0
        beside = self._beside(device, efficiency)
        passes = 0.0
        if self.shape is not None:
            passes = sum(p.seconds(self.shape, device, efficiency) for p in self.passes)
        return start + disk + host + link + (beside + passes) / faster

    def busy(self, device: Device, efficiency: float) -> float:
        """Return how long the job keeps a device computing."""
        if not self.on_gpu:
            return 0.0
        beside = self._beside(device, efficiency)
        if self.shape is None:
            return beside
        return beside + sum(p.busy(self.shape, device, efficiency) for p in self.passes)

    def _beside(self, device: Device, efficiency: float) -> float:
        computed = self.operations_beside * seconds_each(device, "float32", efficiency)
        return computed + self.device_bytes / device.bandwidth
