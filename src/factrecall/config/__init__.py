"""The study: one typed object that says all a run needs to know.

Every key is checked here, by itself and against the others, before any job starts. Stages
never see the whole study: each takes the sections it reads, so that what a stage can read is
what its workflow rule declares as parameters, and an edit reruns its readers and nothing else.
The text below a key is its documentation, in `docs/configuration.md` and in error messages too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from factrecall.config.circuits import Adaptive, Case, Circuits, Each, Steps
from factrecall.config.grafting import DualAveraging, Grafting, SigmoidSGD
from factrecall.config.model import Folder, Hub, Model, Recipe, Recipes, Scratch
from factrecall.config.section import Amount, Location, Mistake, Name, Natural, Positive, Section

__all__ = [
    "TUNINGS",
    "Adaptive",
    "Amount",
    "Case",
    "Circuits",
    "Compute",
    "DualAveraging",
    "Each",
    "Facts",
    "Folder",
    "Grafting",
    "Hub",
    "Influence",
    "Model",
    "Name",
    "Pools",
    "Recall",
    "Recipe",
    "Recipes",
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


class Pools(Section):
    """How many values each attribute is drawn from (defaults: the paper's, appendix A.2.1)."""

    first_names: Annotated[int, Field(ge=1, le=600)] = 400
    """First names."""
    last_names: Annotated[int, Field(ge=1, le=1000)] = 1000
    """Last names; a full name is a first and a last name, and names one person."""
    cities: Annotated[int, Field(ge=2, le=2000)] = 200
    """Invented cities, each with one US state or territory."""
    universities: Annotated[int, Field(ge=2, le=300)] = 300
    """Real US institutions of higher education."""
    jobs: Annotated[int, Field(ge=2, le=600)] = 100
    """Jobs."""
    companies: Annotated[int, Field(ge=2, le=5000)] = 263
    """Invented companies."""
    first_year: Annotated[int, Field(ge=1000, le=9999)] = 1900
    """Earliest year of birth."""
    last_year: Annotated[int, Field(ge=1000, le=9999)] = 2099
    """Latest year of birth, itself included."""

    def _mistakes(self) -> Iterator[Mistake]:
        if self.first_year > self.last_year:
            yield Mistake(
                ("last_year",),
                f"it is before first_year ({self.first_year})",
                "swap the two, or make them equal for a single year",
            )


class Facts(Section):
    """Who is invented, and what is told about them."""

    people: Annotated[int, Field(ge=2)]
    """People of the study; with `individuals`, the number of rows of that file."""
    pretrain_people: Natural = 0
    """Other invented people, on whom models built from scratch are pre-trained."""
    pretrain_biographies: Positive = 1
    """Biographies of each of them, which tell the same facts in other words."""
    in_distribution: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.5
    """Share of the people whose questions are trained on; the others' are only asked."""
    pools: Pools = Pools()
    individuals: Location | None = None
    """Your own people, a `.csv` or `.parquet` file; null invents them."""
    templates: Location | None = None
    """Your own sentences and questions, a YAML file; null takes those of the package."""

    @property
    def sides(self) -> tuple[int, int]:
        """How many people are in and out of distribution; each side has at least one."""
        inside = min(max(round(self.people * self.in_distribution), 1), self.people - 1)
        return inside, self.people - inside

    def _mistakes(self) -> Iterator[Mistake]:
        pools = self.pools
        names = pools.first_names * pools.last_names
        invented = self.people if self.individuals is None else 0
        if invented + self.pretrain_people > names:
            key = "people" if invented else "pretrain_people"
            yield Mistake(
                (key,),
                f"{invented} people and {self.pretrain_people} pretrain_people need unique names, "
                f"{pools.first_names} first and {pools.last_names} last names make {names}",
                "ask for fewer people, or raise facts.pools.first_names or facts.pools.last_names",
            )
        for key in ("individuals", "templates"):
            path = getattr(self, key)
            if path is not None and not path.is_file():
                yield Mistake(
                    (key,),
                    "there is no such file",
                    f"mend the path (it starts at {Path.cwd()}), or remove the key",
                )


class Training(Recipes):
    """What the fine-tunings have in common; the recipes hold for every model."""

    seeds: Annotated[list[Natural], Field(min_length=1)]
    """Every fine-tuning is done once with each; a seed orders the examples."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """bfloat16 is autocast over float32 weights; auto is bfloat16 on a GPU, else float32."""

    def _mistakes(self) -> Iterator[Mistake]:
        if len(set(self.seeds)) < len(self.seeds):
            yield Mistake(
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
    keep: Amount = 0.2
    """Parameters kept of every ranking, a count or a fraction of all: the largest `shared.k`."""


class Shared(Section):
    """Which parameters count as shared: the top `k` of both tasks (definition 3.1)."""

    k: Amount = 0.03
    """How many top parameters of a task, a count or a fraction, in the unit of `trace.keep`."""
    influence: Influence = "absolute"
    """Ranked by Σ|lr·g|, by |Σ lr·g| (`magnitude`), or by Σ lr·g (`signed`, equation 2)."""


class Recall(Section):
    """How answers are checked."""

    batch_tokens: Annotated[int, Field(ge=64)] = 16384
    """Tokens in one pass, padding included; lower it when memory is short."""


class Compute(Section):
    """Where stages run; nothing here determines a result's meaning, so nothing reruns."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto takes a GPU if there is one."""
    threads: Positive = 1
    """CPU threads of a job."""
    save_seconds: Annotated[float, Field(gt=0.0)] = 60.0
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

    def _mistakes(self) -> Iterator[Mistake]:
        yield from self._name_mistakes()
        yield from self._people_mistakes()
        yield from self._case_mistakes()
        keep, k = self.trace.keep, self.shared.k
        if isinstance(keep, int) != isinstance(k, int):
            yield Mistake(
                ("shared", "k"),
                f"of it and trace.keep ({keep}) one is a count and one a fraction of all "
                "parameters, so they cannot be compared before the model is there",
                "give both as counts (whole numbers), or both as fractions (up to 1.0)",
            )
        elif k > keep:
            yield Mistake(
                ("shared", "k"),
                f"the trace keeps only {keep} (trace.keep)",
                f"set it to {keep} or less, or raise trace.keep, which trains all models again",
            )

    def _name_mistakes(self) -> Iterator[Mistake]:
        known: dict[str, str] = {}
        for name in self.models:
            if (other := known.setdefault(name.casefold(), name)) != name:
                yield Mistake(
                    ("models", name),
                    f"on some disks its folder is that of {other!r}: they differ by case alone",
                    "give it another name",
                )

    def _people_mistakes(self) -> Iterator[Mistake]:
        scratch = [name for name, m in self.models.items() if isinstance(m, Scratch)]
        if scratch and not self.facts.pretrain_people:
            yield Mistake(
                ("facts", "pretrain_people"),
                f"models built from scratch ({', '.join(scratch)}) are pre-trained on other people",
                "set it to about as many as facts.people",
            )
        if self.facts.individuals is not None:
            return  # the file may say itself who is on which side
        traced = (self.trace.in_distribution, self.trace.out_of_distribution)
        keys = ("in_distribution", "out_of_distribution")
        for key, wanted, there in zip(keys, traced, self.facts.sides, strict=True):
            if wanted > there:
                yield Mistake(
                    ("trace", key),
                    f"only {there} of {self.facts.people} people are on that side "
                    f"(facts.in_distribution = {self.facts.in_distribution})",
                    f"set it to {there} or less, or change facts.people or facts.in_distribution",
                )

    def _case_mistakes(self) -> Iterator[Mistake]:
        case = self.circuits.case
        if case.individual is not None and case.individual >= self.facts.people:
            yield Mistake(
                ("circuits", "case", "individual"),
                f"there are {self.facts.people} people, counted from 0",
                "name one of them who is out of distribution, or set it to null",
            )
        scratch = {name: m for name, m in self.models.items() if isinstance(m, Scratch)}
        for key, attribute in (("layer", "layers"), ("head", "heads")):
            there = {name: getattr(m, attribute) for name, m in scratch.items()}
            lacking = [name for name, count in there.items() if (getattr(case, key) or 0) >= count]
            if lacking:
                yield Mistake(
                    ("circuits", "case", key),
                    f"{attribute} are counted from 0, and models.{lacking[0]} has "
                    f"{there[lacking[0]]}",
                    "name another, or set layer and head to null",
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
