"""What the parts of the GPU benchmark share: a model on a device, a clock, and what they find."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from factrecall.training.execution import Execution
from tests import synthetic
from tests.benchmarks.predicted import Predictions
from tests.benchmarks.table import MARKS

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Scale:
    """How much is asked of a model.

    Attributes
    ----------
    shape : mapping
        Of the model, as in its `config.json`.
    matrix : int
        Rows and columns of the matrices whose product is timed.
    people : int
        Whose questions are asked.
    batch, micro_batch_tokens : int
        Examples of an update and tokens of a pass, those of the paper's mixed training.
    updates : int
        That are timed; a few come before.
    max_eval_tokens : int
        Of a pass without gradients.
    grafted : float
        Share of all parameters that is grafted.
    steps : int
        Of a sweep that are timed.
    """

    shape: Mapping[str, Any]
    matrix: int
    people: int
    batch: int
    micro_batch_tokens: int
    updates: int
    max_eval_tokens: int
    grafted: float
    steps: int


PAPER = Scale(synthetic.LLAMA_3B, 8192, 1000, 32, 4096, 10, 16384, 0.005, 10)
SMALL = Scale(synthetic.TINY["llama"], 256, 12, 8, 512, 3, 512, 0.05, 3)


@dataclass(frozen=True)
class Found:
    """A line of the table.

    Attributes
    ----------
    part, what : str
        What was measured.
    value : float
        NaN if it could not be.
    unit : str
        Of `value`, `goal` and `predicted`.
    goal : float or None
        What it is to reach, or to stay below (`least`).
    predicted : float or None
        By the plan.
    note : str
        How, or why not.
    """

    part: str
    what: str
    value: float
    unit: str
    goal: float | None = None
    least: bool = False
    predicted: float | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None without one, or without a measurement."""
        if self.goal is None or math.isnan(self.value):
            return None
        return self.value >= self.goal if self.least else self.value <= self.goal

    def cells(self) -> tuple[str, ...]:
        """Return the line as text."""
        value = "not measured" if math.isnan(self.value) else f"{self.value:.4g} {self.unit}"
        goal = "" if self.goal is None else f"{'≥' if self.least else '≤'} {self.goal:g}"
        predicted = "n/a" if self.predicted is None else f"{self.predicted:.4g}"
        return self.part, self.what, value, predicted, goal, MARKS[self.met], self.note


@dataclass
class Bench:
    """A device, a model on it, and how much is asked of it."""

    scale: Scale
    device: torch.device
    rate: float | None = None
    """Measured operations a second of a product of bfloat16 matrices."""
    updates: dict[Execution, float] = field(default_factory=dict)
    """Measured seconds of an update without trace."""

    @cached_property
    def model(self) -> PreTrainedModel:
        """The model, made where it is to be; it is trained on by the parts."""
        return synthetic.build(self.scale.shape, self.device)

    @cached_property
    def expected(self) -> Predictions:
        """What the plan says of this model on this device."""
        return Predictions(self.scale.shape, self.device)

    @property
    def vocabulary(self) -> int:
        """Tokens there are."""
        return int(self.scale.shape["vocab_size"])

    def now(self) -> float:
        """Return the time when the device has done all it was told."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def seconds(self, run: Callable[[], object]) -> float:
        """Return what a call takes, to the end of what it started on the device."""
        begin = self.now()
        run()
        return self.now() - begin

    def clear(self) -> None:
        """Give back what is not used, and forget the peak of memory."""
        if "model" in self.__dict__:
            self.model.zero_grad(set_to_none=True)  # a part that failed may have left gradients
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    @property
    def asks(self) -> str:
        """What models are asked in: as `workflow.execution.device_of` has it."""
        return "tf32" if self.device.type == "cuda" else "float32"

    def peak(self, part: str, what: str = "", predicted: float | None = None) -> Iterator[Found]:
        """Yield the most memory of a GPU taken since `clear`."""
        if self.device.type == "cuda":
            taken = torch.cuda.max_memory_allocated() / 1e9
            yield Found(part, f"peak memory{what}", taken, "GB", predicted=predicted)


@contextmanager
def precision(name: str) -> Iterator[None]:
    """Compute products of float32 matrices so (see PyTorch's function of this name)."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
