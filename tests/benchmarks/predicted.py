"""What `factrecall.cost` says of the parts of the GPU benchmark, where it can say anything."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch

from factrecall.training.execution import Execution

if TYPE_CHECKING:
    from factrecall.cost.devices import Device
    from factrecall.cost.shapes import Shape

AUTO: Any = SimpleNamespace(
    optimiser="auto", checkpointing="auto", trace="auto", gpus=1, packing="auto", compile="auto"
)
"""The configuration's `training.mode` as it is by default."""


class Predictions:
    """Seconds and memory of one model on one device.

    Parameters
    ----------
    shape : mapping
        The model's `config.json`.
    device : torch.device
        Its GPU should be one that the plan knows.
    """

    def __init__(self, shape: Mapping[str, Any], device: torch.device) -> None:
        self.gpu = device.type == "cuda"
        self.shape = self.shape_of(shape)
        self.device = self._device()
        self.precision = "bfloat16" if self.gpu else "float32"
        self.asked = "tf32" if self.gpu else "float32"

    @staticmethod
    def shape_of(config: Mapping[str, Any]) -> Shape:
        """Return the plan's description of a model."""
        from factrecall.cost.shapes import Shape

        return Shape.of_config(config)

    def _device(self) -> Device | None:
        from factrecall.cost.devices import DEVICES, this_cpu

        if not self.gpu:
            return this_cpu()
        name, memory = torch.cuda.get_device_name(), self.memory
        # Of two kinds of one name the one whose memory is nearest.
        fitting = [d for d in DEVICES.values() if d.name.split("-")[0] in name]
        return min(fitting, key=lambda d: abs((d.memory or 0) - (memory or 0)), default=None)

    @property
    def memory(self) -> int | None:
        """Bytes of the GPU, None for a CPU."""
        return torch.cuda.get_device_properties(0).total_memory if self.gpu else None

    def mode(self, tokens: int, tasks: int) -> Execution:
        """Return how the plan would train, with so many tokens a pass and traced tasks."""
        from factrecall.cost.execution_choice import choose

        return choose(AUTO, self.shape, tokens, tasks, self.memory, self.precision)

    def training(
        self, mode: Execution, tokens: float, passes: float, length: float
    ) -> float | None:
        """Return the seconds of an update of so many tokens, all of them targets."""
        from factrecall.cost.training import CASTS, UPDATE

        kind = "checkpointed" if mode.checkpointing else "train"
        each = tokens / passes
        spent = self._seconds(passes, each, each, length, kind, self.precision)
        return self._moved(spent, UPDATE + (CASTS if self.gpu else 0.0))

    def training_memory(self, mode: Execution, tokens: int, tasks: int) -> float:
        """Return the peak memory of the device in GB, with so many tokens a pass."""
        from factrecall.cost.memory import training_memory

        found = training_memory(self.shape, mode, tokens, tasks, self.precision, gpu=self.gpu)
        return found.device / 1e9

    def operations(self, tokens: float, length: float) -> float:
        """Return the operations of an update, without those that checkpointing repeats."""
        from factrecall.cost.job_cost import Passes

        return Passes(1, tokens, tokens, length, "train").operations(self.shape)

    def asking(self, tokens: float, targets: float, length: float, depth: float) -> float | None:
        """Return the seconds in which questions pass through so much of the layers."""
        return self._seconds(1, tokens, targets, length, "forward", self.asked, depth, True)

    def descending(self, tokens: float, targets: float, length: float) -> float | None:
        """Return the seconds of forward and backward passes of questions."""
        from factrecall.cost.evaluation import MOVED
        from factrecall.cost.job_cost import SELECTED
        from factrecall.experiments.grafting.cost import SCORED

        spent = self._seconds(1, tokens, targets, length, "train", self.asked, 1.0, True)
        return self._moved(spent, MOVED + SCORED + SELECTED)

    def _moved(self, seconds: float | None, each: float) -> float | None:
        """Add the time in which so many bytes a parameter move."""
        if seconds is None or self.device is None:
            return None
        return seconds + each * self.shape.parameters / self.device.bandwidth

    def _seconds(self, *passes: Any) -> float | None:
        from factrecall.cost.job_cost import EFFICIENCY, Passes

        count, tokens, targets, length, kind, precision, *more = passes
        if self.device is None:
            return None
        said = Passes(count, tokens, targets, length, kind, precision, *more)
        return said.seconds(self.shape, self.device, EFFICIENCY)
