"""Cost of evaluations: passes over questions and biographies, and the memory they take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from factrecall.cost.job_cost import JobCost, Kind, Passes
from factrecall.cost.memory import CONTEXT, CUDA, PROCESS, Memory, activation_bytes, text_bytes
from factrecall.parameters.amounts import absolute_count
from factrecall.parameters.placement import PAIR, SPARE
from factrecall.vocabulary import RELATIONS

if TYPE_CHECKING:
    from factrecall.config.study import Study
    from factrecall.cost.devices import Device
    from factrecall.cost.jobs import StageJob
    from factrecall.cost.models import ModelInfo

SIX = len(RELATIONS)
PADDED = 1.1  # tokens that pass over those of texts: questions of like length share batches
MOVED = 12.0  # bytes a parameter that setting another set of parameters reads and writes
FETCHED = 8.0  # … that each set takes over the link, where θpre and θtask are in main memory


@dataclass(frozen=True)
class JobContext:
    """A job on a device: what a stage's cost function gets."""

    study: Study
    model: ModelInfo
    job: StageJob
    device: Device

    @property
    def n(self) -> int:
        """The model's parameters."""
        return self.model.shape.parameters

    @property
    def kept(self) -> int:
        """Parameters that each ranking of a trace keeps."""
        return absolute_count(self.study.trace.top_fraction, self.n)

    @property
    def precision(self) -> str:
        """Precision of evaluations on a GPU (`execution.device_of`); a CPU has float32."""
        return "float32" if self.study.training.precision == "float32" else "tf32"

    def people(self, individuals: int | None) -> float:
        """Count the people of both sides of whom an analysis takes so many each."""
        return float(sum(min(side, individuals or side) for side in self.study.facts.sides))

    def cost(self, memory: Memory, *passes: Passes, **quantities: Any) -> JobCost:
        """Return the cost of a job that runs the model, on the study's threads."""
        quantities = {"threads": self.study.compute.threads, **quantities}
        return JobCost(memory, self.model.shape, passes, **quantities)

    def questions(self, count: float, times: float, kind: Kind = "forward") -> Passes:
        """Return the passes of so many questions, each a number of times."""
        texts = self.model.texts
        length = float(texts.question.mean())
        return self._passes(
            count * texts.per_question * PADDED, count * texts.answer, length, times, kind
        )

    def all_facts(self, times: float) -> tuple[Passes, Passes]:
        """Return the passes of all biographies and of all questions, each a number of times."""
        people, texts = self.study.facts.people, self.model.texts
        length = float(texts.bio.mean())
        targets = people * SIX * texts.answer
        statements = self._passes(people * length * PADDED, targets, length, times)
        return statements, self.questions(SIX * people, times)

    def _passes(
        self, tokens: float, targets: float, length: float, times: float, kind: Kind = "forward"
    ) -> Passes:
        count = max(1.0, tokens / self.study.recall.max_eval_tokens)
        each = tokens / count, targets / count, length
        return Passes(times * count, *each, kind, self.precision, short=True)

    def memory(
        self, copies: float, questions: float, biographies: float = 0.0, **more: float
    ) -> Memory:
        """Return the peak memory of evaluating so many texts (see `pass_memory`).

        Passes have `recall.max_eval_tokens` tokens, or `backward`, if gradients are taken.
        """
        texts = self.model.texts
        total = questions * float(texts.question.mean()) + biographies * float(texts.bio.mean())
        tokens = more.get("backward") or min(float(self.study.recall.max_eval_tokens), total)
        prepared = text_bytes(questions + biographies, total)
        return self.pass_memory(
            tokens, tokens * (texts.answer / texts.per_question), copies, prepared, **more
        )

    def pass_memory(
        self,
        tokens: float,
        targets: float,
        copies: float,
        prepared: float,
        backward: float = 0.0,
        device_bytes: float = 0.0,
        host_bytes: float = 0.0,
    ) -> Memory:
        """Return the peak memory of passes in float32, at whose `targets` logits are made.

        `copies` are tensors as large as the model: itself, θpre, θtask, changes, scores. `prepared`
        are bytes of the texts; `device_bytes` and `host_bytes` (sets) are kept beside. If there is
        a `backward` pass, each gradient is freed at once.
        """
        n, shape = self.n, self.model.shape
        parts = {"weights": 4.0 * n}
        if copies > 1:
            parts["copies of weights"] = 4.0 * n * (copies - 1)
        if backward:
            # The embedding's gradient waits for that of the head where they are tied.
            parts["gradients"] = 4.0 * (shape.largest + shape.embedding * shape.tied)
            layers = shape.layers + 0.5
            parts["activations"] = activation_bytes(shape, "float32") * tokens * layers
            parts["logits"] = 12.0 * targets * shape.vocabulary
        else:
            # Residual stream, normalised, query to output, gate, up and product, of one layer.
            wide = 6 * shape.width + 2 * shape.keys + 3 * shape.mlp_size
            parts["activations"] = 4.0 * wide * tokens
            parts["logits"] = 4.0 * targets * shape.vocabulary
        if device_bytes:
            parts["kept"] = device_bytes
        host = {"process": PROCESS, "texts": prepared}
        if host_bytes:
            host["sets"] = host_bytes
        if not self.device.is_gpu:
            return Memory({}, {**host, **parts})
        # One model at a time is read there.
        return Memory({"context": CONTEXT, **parts}, {**host, "CUDA": CUDA, "reading": 4.0 * n})

    def placement(self, beside: float = PAIR, spare: float = 0.0) -> tuple[float, float]:
        """Return the bytes a parameter kept beside the model, and those fetched for each set.

        One of the two is 0 (see `parameters.placement.choose_place`). What is in main memory are
        pages of the models' files, which the system takes back where it has to.
        """
        if self.device.memory is None:
            return beside, 0.0
        free = self.device.memory - CONTEXT - 4.0 * self.n
        return (beside, 0.0) if self.n * beside + SPARE + spare <= free else (0.0, FETCHED)
