"""The study: one typed object with all the settings of a run.

Every key is checked here, by itself and against the others, before any job starts. A stage takes
the sections that it reads and never the whole study: what it can read is what its workflow rule
declares as parameters, so that an edit reruns the readers of the edited key and nothing else.
The text below a key is its documentation, in `docs/configuration.md` and in messages.

The section of an experiment lies in the experiment's folder. This module is the only one that
imports upwards, from `experiments/*/settings.py`, because the study is the sum of its sections.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from factrecall.config.facts import Facts
from factrecall.config.model import Model, Scratch
from factrecall.config.section import ConfigIssue, ConfigSection, Name, Positive, Seed
from factrecall.config.training import TraceSettings, TrainingSettings
from factrecall.config.yamlfile import merge
from factrecall.experiments.ablation.settings import AblationSettings
from factrecall.experiments.circuits.settings import CircuitSettings
from factrecall.experiments.grafting.settings import GraftingSettings
from factrecall.experiments.recall.settings import RecallSettings
from factrecall.experiments.representations.settings import RepresentationSettings
from factrecall.experiments.shared_parameters.settings import SharedSettings
from factrecall.runtime.replicates import PER_REPLICATE, replicate_of
from factrecall.vocabulary import TUNINGS


class ComputeSettings(ConfigSection):
    """Where and how stages run; nothing here reruns anything."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto is a GPU if there is one."""
    threads: Positive = 1
    """CPU threads of a job."""
    pretrain_threads: Positive | None = None
    """CPU threads of pre-training, for which all else waits; null: `threads`."""
    checkpoint_interval_s: Annotated[float, Field(gt=0.0)] = 60.0
    """Seconds between checkpoints of a long job; if writing takes over a second, 50 times that."""
    cache_gb: Annotated[float, Field(ge=0.0)] = 2.0
    """Gigabytes in which interventions cache activations; with less they are slower."""


class Study(ConfigSection):
    """A whole study."""

    name: Name
    """Name of the study and of its folder in `results/`."""
    seed: Seed = 0
    """Seed of all draws except the order of examples: individuals, templates, first weights."""
    replicates: Positive = 1
    """Full replicates: people, texts, θpre and the order of examples are drawn anew in each."""
    facts: Facts
    training: TrainingSettings
    models: Annotated[dict[Name, Model], Field(min_length=1)]
    """Models, by names of your choice, which become names of folders."""
    trace: TraceSettings = TraceSettings()
    shared: SharedSettings = SharedSettings()
    ablation: AblationSettings = AblationSettings()
    grafting: GraftingSettings = GraftingSettings()
    circuits: CircuitSettings = CircuitSettings()
    representations: RepresentationSettings = RepresentationSettings()
    recall: RecallSettings = RecallSettings()
    compute: ComputeSettings = ComputeSettings()

    @model_validator(mode="before")
    @classmethod
    def _share_recipes(cls, raw: Any) -> Any:
        """Complete each model's `training` with the recipes of the section `training`."""
        if not isinstance(raw, Mapping):
            return raw
        training, models = raw.get("training"), raw.get("models")
        if not isinstance(training, Mapping) or not isinstance(models, Mapping):
            return raw
        shared = {"training": {name: training[name] for name in TUNINGS if name in training}}
        complete = {
            name: merge(shared, model) if isinstance(model, Mapping) else model
            for name, model in models.items()
        }
        return {**raw, "models": complete}

    def _issues(self) -> Iterator[ConfigIssue]:
        yield from self._name_issues()
        yield from self._seed_issues()
        yield from self._people_issues()
        yield from self._part_issues()
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

    def _name_issues(self) -> Iterator[ConfigIssue]:
        known: dict[str, str] = {}
        for name in self.models:
            if (other := known.setdefault(name.casefold(), name)) != name:
                yield ConfigIssue(
                    ("models", name),
                    f"on some disks its folder is that of {other!r}: they differ by case alone",
                    "give it another name",
                )

    def _seed_issues(self) -> Iterator[ConfigIssue]:
        limit = f"set it below {PER_REPLICATE}"
        if self.replicates > 1 and replicate_of(self.seed):
            yield ConfigIssue(
                ("seed",),
                f"each of {self.replicates} replicates has the next {PER_REPLICATE} seeds",
                f"{limit}, or replicates to 1",
            )
        numbers = {replicate_of(seed) for seed in self.training.seeds}
        if len(numbers) > 1 or (self.replicates > 1 and numbers != {0}):
            yield ConfigIssue(
                ("training", "seeds"),
                f"seeds from {PER_REPLICATE} on are those of further replicates",
                f"set all below {PER_REPLICATE}; `replicates` adds the others",
            )

    def _people_issues(self) -> Iterator[ConfigIssue]:
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
                "only one person is in distribution, but probes need some to fit and some to test",
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

    def _part_issues(self) -> Iterator[ConfigIssue]:
        case, layers = self.circuits.case, self.representations.layers
        if case.individual is not None and case.individual >= self.facts.people:
            yield ConfigIssue(
                ("circuits", "case", "individual"),
                f"there are {self.facts.people} people, counted from 0",
                "name one of them who is out of distribution, or set it to null",
            )
        for key, last, parts in (
            (("circuits", "case", "layer"), case.layer, "layers"),
            (("circuits", "case", "head"), case.head, "heads"),
            (("representations", "layers"), layers[-1] if layers else None, "layers"),
        ):
            for name, model in self.models.items():
                if isinstance(model, Scratch) and (last or 0) >= (there := getattr(model, parts)):
                    yield ConfigIssue(
                        key,
                        f"{parts} are counted from 0, and models.{name} has {there}",
                        "name another, or set it to null (circuits.case: layer and head both)",
                    )
                    break
