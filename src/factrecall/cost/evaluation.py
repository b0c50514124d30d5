"""Cost of evaluations: passes over questions and biographies, and the memory they take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from factrecall.cost.job_cost import JobCost, Kind, Passes
from factrecall.cost.memory import CONTEXT, Memory, evaluation_memory, text_bytes
from factrecall.parameters.amounts import absolute_count
from factrecall.parameters.placement import PAIR, SPARE
from factrecall.vocabulary import RELATIONS

if TYPE_CHECKING:
    from factrecall.config.study import Study
    from factrecall.cost.devices import Device
    from factrecall.cost.jobs import Job
    from factrecall.cost.models import ModelInfo
    from factrecall.cost.shapes import Shape
    from factrecall.cost.texts import TextLengths

SIX = len(RELATIONS)
PADDED = 1.1  # tokens that pass over those of texts: questions of like length share batches

MOVED = 12.0
"""Bytes a parameter that setting another set of parameters moves: read and written."""

FETCHED = 8.0
"""Bytes a parameter over the link for each set, where θpre and θtask are in main memory."""


@dataclass(frozen=True)
class JobContext:
    """A job on a device: what a stage's cost function gets."""

    study: Study
    info: ModelInfo | None  # of its model; None for jobs without one
    job: Job
    device: Device

    @property
    def model(self) -> ModelInfo:
        """The job's model."""
        assert self.info is not None
        return self.info

    @property
    def shape(self) -> Shape:
        """The model's dimensions."""
        return self.model.shape

    @property
    def n(self) -> int:
        """The model's parameters."""
        return self.model.shape.parameters

    @property
    def texts(self) -> TextLengths:
        """Lengths of the study's texts in the model's tokens."""
        return self.model.texts

    @property
    def gpu(self) -> bool:
        """Whether the device is a GPU."""
        return self.device.is_gpu

    @property
    def precision(self) -> str:
        """Precision of evaluations on a GPU (`cli.common.device_of`); a CPU has float32 only."""
        return "float32" if self.study.training.precision == "float32" else "tf32"

    @property
    def kept(self) -> int:
        """Parameters that each ranking of a trace keeps."""
        return absolute_count(self.study.trace.top_fraction, self.n)

    def people(self, individuals: int | None) -> float:
        """Count the people of both sides of whom an analysis takes so many each."""
        return float(sum(min(side, individuals or side) for side in self.study.facts.sides))

    def cost(self, memory: Memory, *passes: Passes, **quantities: Any) -> JobCost:
        """Return the cost of a job that runs the model, on the study's threads."""
        quantities = {"threads": self.study.compute.threads, **quantities}
        return JobCost(memory, self.shape, passes, **quantities)

    def questions(self, count: float, times: float, kind: Kind = "forward") -> Passes:
        """Return the passes of so many questions, each a number of times."""
        texts = self.texts
        total = count * texts.asked * PADDED
        passes = max(1.0, total / self.study.recall.max_eval_tokens)
        targets, length = count * texts.answer / passes, float(texts.question.mean())
        return self._passes(times * passes, total / passes, targets, length, kind)

    def all_facts(self, times: float) -> tuple[Passes, Passes]:
        """Return the passes of all biographies and of all questions, each a number of times."""
        people, length = self.study.facts.people, float(self.texts.bio.mean())
        total = people * length * PADDED
        passes = max(1.0, total / self.study.recall.max_eval_tokens)
        targets = people * SIX * self.texts.answer / passes
        statements = self._passes(times * passes, total / passes, targets, length, "forward")
        return statements, self.questions(SIX * people, times)

    def _passes(
        self, count: float, tokens: float, targets: float, length: float, kind: Kind
    ) -> Passes:
        return Passes(count, tokens, targets, length, kind, self.precision, short=True)

    def memory(
        self,
        copies: float,
        questions: float,
        biographies: float = 0.0,
        *,
        backward: float = 0.0,
        device_bytes: float = 0.0,
        host_bytes: float = 0.0,
    ) -> Memory:
        """Return the peak memory of evaluating so many texts (see `evaluation_memory`).

        Passes have `recall.max_eval_tokens` tokens, or `backward`, if gradients are taken.
        """
        texts = self.texts
        total = questions * float(texts.question.mean()) + biographies * float(texts.bio.mean())
        tokens = backward or min(float(self.study.recall.max_eval_tokens), total)
        return evaluation_memory(
            self.shape,
            tokens,
            tokens * (texts.answer / texts.asked),
            copies,
            gpu=self.gpu,
            backward=bool(backward),
            prepared=text_bytes(questions + biographies, total),
            device_bytes=device_bytes,
            host_bytes=host_bytes,
        )

    def placement(self, beside: float = PAIR, spare: float = 0.0) -> tuple[float, float]:
        """Return the bytes a parameter kept beside the model, and those fetched for each set.

        One of the two is 0 (see `parameters.placement.choose_place`). What is in main memory are
        pages of the models' files, which the system takes back where it has to.
        """
        if self.device.memory is None:
            return beside, 0.0
        free = self.device.memory - CONTEXT - 4.0 * self.n
        return (beside, 0.0) if self.n * beside + SPARE + spare <= free else (0.0, FETCHED)
