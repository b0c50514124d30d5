"""The study: one typed object that says all a run needs to know.

Every key is checked here, by itself and against the others, before any job starts. Stages
never see the whole study: each takes the sections it reads, so that what a stage can read is
what its workflow rule declares as parameters, and an edit reruns its readers and nothing else.
The text below a key is its documentation, in `docs/configuration.md` and in error messages too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from factrecall.config.circuits import Adaptive, Case, Circuits, Each, Steps
from factrecall.config.execution import ExecutionSettings
from factrecall.config.facts import Facts, Pools
from factrecall.config.grafting import DualAveraging, Grafting, SigmoidSGD
from factrecall.config.model import Folder, Hub, Model, Recipe, Recipes, Scratch
from factrecall.config.representations import (
    Attribution,
    GradientSimilarity,
    Patching,
    Probes,
    Representations,
)
from factrecall.config.section import Amount, ConfigIssue, Name, Natural, Positive, Section

__all__ = [
    "TUNINGS",
    "Adaptive",
    "Amount",
    "Attribution",
    "Case",
    "Circuits",
    "Compute",
    "DualAveraging",
    "Each",
    "ExecutionSettings",
    "Facts",
    "Folder",
    "GradientSimilarity",
    "Grafting",
    "Hub",
    "Influence",
    "Model",
    "Name",
    "Patching",
    "Pools",
    "Probes",
    "Recall",
    "Recipe",
    "Recipes",
    "Representations",
    "Scratch",
    "Section",
    "Shared",
    "SigmoidSGD",
    "Steps",
    "Study",
    "Trace",
    "Training",
    "Tuning",
]

Tuning = Literal["bio", "stage", "mix"]
TUNINGS: tuple[Tuning, ...] = ("bio", "stage", "mix")
Influence = Literal["absolute", "magnitude", "signed"]


class Training(Recipes):
    """What the fine-tunings have in common; the recipes hold for every model."""

    seeds: Annotated[list[Natural], Field(min_length=1)]
    """Every fine-tuning is done once with each; a seed orders the examples."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """bfloat16 is autocast over float32 weights; auto is bfloat16 on a GPU, else float32. There,
    models are asked with products in TF32, unless this is float32."""
    mode: ExecutionSettings = ExecutionSettings()
    """How trainings fit their device; `auto` takes the fastest that fits."""

    def _issues(self) -> Iterator[ConfigIssue]:
        if len(set(self.seeds)) < len(self.seeds):
            yield ConfigIssue(
                ("seeds",),
                "a seed is there twice, but would give the same model again",
                f"keep each once: {list(dict.fromkeys(self.seeds))}",
            )


class Trace(Section):
    """Whose gradients are recorded, and how much of the ranking is kept."""

    in_distribution: Positive = 10
    """People traced among those in distribution (their biographies and questions)."""
    out_of_distribution: Positive = 10
    """People traced among those out of distribution (their biographies)."""
    top_fraction: Amount = 0.2
    """Parameters kept of every ranking, a count or a fraction of all: the largest `shared.k`."""
    checkpoints: Natural = 2
    """Moments between start and end of a fine-tuning, evenly spaced, whose weights are kept."""


class Shared(Section):
    """Which parameters count as shared: the top `k` of both tasks (definition 3.1)."""

    k: Amount = 0.03
    """Top parameters of a task: a count or a fraction of all, as `trace.top_fraction` is."""
    influence: Influence = "absolute"
    """Ranked by Σ|lr·g|, by |Σ lr·g| (`magnitude`), or by Σ lr·g (`signed`, equation 2)."""


class Recall(Section):
    """How answers are checked."""

    max_eval_tokens: Annotated[int, Field(ge=64)] = 16384
    """Tokens in one pass, padding included; lower it when memory is short."""


class Compute(Section):
    """Where stages run; nothing here determines a result's meaning, so nothing reruns."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto takes a GPU if there is one."""
    threads: Positive = 1
    """CPU threads of a job."""
    pretrain_threads: Positive | None = None
    """CPU threads of pre-training, before which nothing else can run; null: `threads`."""
    checkpoint_interval_s: Annotated[float, Field(gt=0.0)] = 60.0
    """Seconds between saves of a long job's state, from which it resumes."""
    cache_gb: Annotated[float, Field(ge=0.0)] = 2.0
    """Memory for what interventions need not compute again; less makes them slower."""


class Study(Section):
    """A whole study."""

    name: Name
    """Name of the study and of its folder in `results/`."""
    seed: Natural = 0
    """Of everything drawn but the order of examples: people, templates, first weights."""
    facts: Facts
    training: Training
    models: Annotated[dict[Name, Model], Field(min_length=1)]
    """The models, by names of your choice that become names of folders."""
    trace: Trace = Trace()
    shared: Shared = Shared()
    grafting: Grafting = Grafting(
        alphas=[0.001, 0.002, 0.005, 0.01, 0.02, 0.05],
        optimiser=DualAveraging(method="dual_averaging"),
    )
    circuits: Circuits = Circuits()
    representations: Representations = Representations()
    recall: Recall = Recall()
    compute: Compute = Compute()

    @model_validator(mode="before")
    @classmethod
    def _share_recipes(cls, raw: Any) -> Any:
        """Complete each model's `training` with the recipes of the section `training`."""
        if not isinstance(raw, Mapping):
            return raw
        training, models = raw.get("training"), raw.get("models")
        if not isinstance(training, Mapping) or not isinstance(models, Mapping):
            return raw
        shared: dict[str, Any] = {
            tuning: training[tuning] for tuning in TUNINGS if tuning in training
        }
        return {**raw, "models": {name: _complete(m, shared) for name, m in models.items()}}

    def _issues(self) -> Iterator[ConfigIssue]:
        yield from self._name_mistakes()
        yield from self._people_mistakes()
        yield from self._layer_mistakes()
        yield from self._case_mistakes()
        keep, k = self.trace.top_fraction, self.shared.k
        if isinstance(keep, int) != isinstance(k, int):
            yield ConfigIssue(
                ("shared", "k"),
                f"of it and trace.top_fraction ({keep}) one is a count and one a fraction of all "
                "parameters, so they cannot be compared before the model is there",
                "give both as counts (whole numbers), or both as fractions (up to 1.0)",
            )
        elif k > keep:
            yield ConfigIssue(
                ("shared", "k"),
                f"the trace keeps only {keep} (trace.top_fraction)",
                f"set it to {keep} or less, or raise trace.top_fraction, which reruns all training",
            )

    def _name_mistakes(self) -> Iterator[ConfigIssue]:
        known: dict[str, str] = {}
        for name in self.models:
            if (other := known.setdefault(name.casefold(), name)) != name:
                yield ConfigIssue(
                    ("models", name),
                    f"on some disks its folder is that of {other!r}: they differ by case alone",
                    "give it another name",
                )

    def _people_mistakes(self) -> Iterator[ConfigIssue]:
        scratch = [name for name, m in self.models.items() if isinstance(m, Scratch)]
        if scratch and not self.facts.pretrain_people:
            yield ConfigIssue(
                ("facts", "pretrain_people"),
                f"models built from scratch ({', '.join(scratch)}) are pre-trained on other people",
                "set it to about as many as facts.people",
            )
        if self.facts.individuals is not None:
            return  # the file may say itself who is on which side
        if self.facts.sides[0] < 2:
            few = self.facts.people < 3
            share = f"set it to {2 / self.facts.people:.2g} or more, or raise facts.people"
            yield ConfigIssue(
                ("facts", "people" if few else "in_distribution"),
                "only one person is in distribution: probes are fitted to some, tested on others",
                "set it to 3 or more" if few else share,
            )
        traced = (self.trace.in_distribution, self.trace.out_of_distribution)
        keys = ("in_distribution", "out_of_distribution")
        for key, wanted, there in zip(keys, traced, self.facts.sides, strict=True):
            if wanted > there:
                yield ConfigIssue(
                    ("trace", key),
                    f"only {there} of {self.facts.people} people are on that side "
                    f"(facts.in_distribution = {self.facts.in_distribution})",
                    f"set it to {there} or less, or change facts.people or facts.in_distribution",
                )

    def _case_mistakes(self) -> Iterator[ConfigIssue]:
        case = self.circuits.case
        if case.individual is not None and case.individual >= self.facts.people:
            yield ConfigIssue(
                ("circuits", "case", "individual"),
                f"there are {self.facts.people} people, counted from 0",
                "name one of them who is out of distribution, or set it to null",
            )
        for key, attribute in (("layer", "layers"), ("head", "heads")):
            yield from self._beyond(("circuits", "case", key), getattr(case, key), attribute)

    def _layer_mistakes(self) -> Iterator[ConfigIssue]:
        layers = self.representations.layers
        if layers:
            yield from self._beyond(("representations", "layers"), layers[-1], "layers")

    def _beyond(self, key: tuple[str, ...], value: int | None, there: str) -> Iterator[ConfigIssue]:
        """Yield a mistake if a model has not as many layers or heads as a value asks for."""
        counts = {
            name: getattr(model, there)
            for name, model in self.models.items()
            if isinstance(model, Scratch)
        }
        lacking = [name for name, count in counts.items() if (value or 0) >= count]
        if lacking:
            yield ConfigIssue(
                key,
                f"{there} are counted from 0, and models.{lacking[0]} has {counts[lacking[0]]}",
                "name another, or set it to null (circuits.case: layer and head both)",
            )


def _complete(model: Any, shared: Mapping[str, Any]) -> Any:
    own = model.get("training", {}) if isinstance(model, Mapping) else None
    if not isinstance(own, Mapping):
        return model
    recipes = dict(shared)
    for tuning, recipe in own.items():
        default = shared.get(tuning)
        if isinstance(default, Mapping) and isinstance(recipe, Mapping):
            recipe = {**default, **recipe}
        recipes[tuning] = recipe
    return {**model, "training": recipes}
