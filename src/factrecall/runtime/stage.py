"""Declaring a stage: a step of a study, declared once, at its function.

    @stage("ablate", settings=lambda study: {...}, libraries=EXPERIMENTS, per=histories)
    def ablate(job: Job, *, base: Input, seed: int, out: Output, study_seed: int) -> None: ...

The annotations say what the command takes: `Input` and `Output` are files, `Folder` is a place
beside them, a list of a dataclass is an option given once for each run, and names in
`runs.WILDCARDS` tell jobs apart. All other arguments are settings, passed by value: a function
cannot read what its rule does not declare. Of the docstring, lines on files are the help of the
command.

Modules that declare stages import nothing heavy at their top, since the command line and the
workflow read all of them.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property, wraps
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from factrecall.runs import WILDCARDS, Wildcards, once, study_seed_of

if TYPE_CHECKING:
    from factrecall.config.study import Study
    from factrecall.runtime.job import Job

Input = Path
"""A file, or a model folder, that a stage reads."""

Output = Path
"""A file, or a model folder, that a stage writes."""

Folder = Path
"""A folder that is no output of the workflow."""

TABLES = ("pandas", "pyarrow", "numpy")
MODELS = ("torch", "transformers", "tokenizers", "safetensors", "numpy")
EXPERIMENTS = (*MODELS, "pandas", "pyarrow")
FIGURES = ("matplotlib", "seaborn", "pandas")
"""Distributions whose version may change the results of a stage."""

COMMON = {
    "base": "the model folder before fine-tuning",
    "tuned": "the fine-tuned model folder",
    "start": "the model folder to start from",
    "facts": "the three tables of facts: individuals, biographies, questions",
    "individuals": "the table of individuals",
    "bio": "the table of biographies",
    "qa": "the table of questions",
    "sets": "the shared sets of the fine-tuned model",
    "masks": "its masks, fitted to QA out",
    "outcomes": "the outcomes of these masks",
    "results": "the study's results folder",
}
"""What arguments of many stages are; docstrings describe the others."""

SETTINGS: dict[str, Callable[..., Any]] = {
    "study_seed": lambda study, seed: study_seed_of(study, int(seed)),
    "first_study_seed": lambda study: study.seed,
    "max_eval_tokens": lambda study: study.recall.max_eval_tokens,
    "precision": lambda study: study.training.precision,
    "mode": lambda study: study.training.mode,
}
"""Settings of many stages, which a function gets by naming them; declarations have the others.

They take the study and wildcards by name, as a declaration does. `study_seed` is that of the
replicate that the job is of; jobs without a seed take that of the first replicate.
"""

Settings = dict[str, Any]
Function = TypeVar("Function", bound=Callable[..., None])
FILES = {"Input": "input", "Output": "output", "Folder": "folder"}


@dataclass(frozen=True)
class Argument:
    """An argument of a stage's function.

    Attributes
    ----------
    name, help : str
        As in its signature and its docstring.
    role : str
        "input", "output" or "folder", "runs" for a list of records, "wildcard" or "setting".
    many, optional : bool
        Whether it is a list; whether it may be None.
    record : type, optional
        The dataclass of "runs".
    """

    name: str
    help: str
    role: str
    many: bool = False
    optional: bool = False
    record: type | None = None

    @property
    def option(self) -> str:
        """Its name on the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def fields(self) -> dict[str, str]:
        """The fields of a record and their types."""
        return {f.name: str(f.type) for f in fields(self.record)} if self.record else {}


@dataclass(frozen=True)
class Stage:
    """A step of a study.

    Attributes
    ----------
    name : str
        Its command; the rule has underscores.
    function : callable
        What it does.
    settings : callable
        From the study and wildcards by name to the function's settings but for those of `SETTINGS`.
    libraries : tuple of str
        Distributions whose version may change its results.
    per : callable
        From the study to the wildcards of its jobs (see `runs`).
    device : {"none", "model", "exact"}
        Whether it runs a model, and whether in full float32 on a GPU, too.
    resumes : bool
        Whether it goes on from a saved state.
    setup, after : str
        A function, as "module:name", that adjusts its settings to the device, and one that checks
        its outputs. They are no part of the stage: a change of them reruns nothing.
    """

    name: str
    function: Callable[..., None]
    settings: Callable[..., Settings]
    libraries: tuple[str, ...]
    per: Callable[[Study], list[Wildcards]]
    device: Literal["none", "model", "exact"]
    resumes: bool
    setup: str
    after: str

    @property
    def module(self) -> str:
        """Where its function is, below the package; the code fingerprint starts there."""
        return self.function.__module__.partition(".")[2]

    @property
    def rule(self) -> str:
        """The workflow's name of it."""
        return self.name.replace("-", "_")

    @property
    def summary(self) -> str:
        """The first sentence of its docstring."""
        text = inspect.getdoc(self.function) or ""
        return " ".join(text.partition("\n\n")[0].split())

    @cached_property
    def arguments(self) -> list[Argument]:
        """What its function takes beside the job."""
        told = COMMON | _described(inspect.getdoc(self.function) or "")
        annotations = self.function.__annotations__
        named = [name for name in annotations if name not in ("job", "return")]
        return [self._argument(name, annotations[name], told.get(name, "")) for name in named]

    def _argument(self, name: str, annotation: str, text: str) -> Argument:
        if name in WILDCARDS:
            return Argument(name, WILDCARDS[name], "wildcard")
        inner = annotation.removeprefix("list[").removesuffix("]").removesuffix(" | None")
        many, optional = annotation.startswith("list["), annotation.endswith(" | None")
        if inner in FILES:
            return Argument(name, text, FILES[inner], many, optional)
        record = self.function.__globals__.get(inner) if many else None
        if isinstance(record, type):
            return Argument(name, text, "runs", many, record=record)
        return Argument(name, text, "setting")

    def of(self, *roles: str) -> list[Argument]:
        """Return its arguments of some roles."""
        return [argument for argument in self.arguments if argument.role in roles]

    @cached_property
    def wildcards(self) -> dict[str, str]:
        """The wildcards that its function or its settings depend on, with their descriptions."""
        known = {argument.name for argument in self.of("wildcard")} | set(self.setting_wildcards)
        return {name: text for name, text in WILDCARDS.items() if name in known}

    @cached_property
    def setting_wildcards(self) -> tuple[str, ...]:
        """The wildcards that its settings depend on."""
        known = {*_wildcards(self.settings), *chain(*map(_wildcards, self._common.values()))}
        return tuple(name for name in WILDCARDS if name in known)

    @property
    def _common(self) -> dict[str, Callable[..., Any]]:
        """Those of `SETTINGS` that its function names."""
        named = {argument.name for argument in self.of("setting")}
        return {name: value for name, value in SETTINGS.items() if name in named}

    def settings_of(self, study: Study, wildcards: Mapping[str, Any]) -> Settings:
        """Return all settings of a job."""

        def of(settings: Callable[..., Any]) -> Any:
            return settings(study, **{name: wildcards[name] for name in _wildcards(settings)})

        own: Settings = of(self.settings)
        return {name: of(value) for name, value in self._common.items()} | own

    def call(self, job: Job, **given: Any) -> None:
        """Run its function as a job."""
        inputs, outputs = (self._files(role, given) for role in ("input", "output"))
        values = {a.name: repr(given.get(a.name)) for a in self.of("wildcard", "setting")}
        self.function(replace(job, inputs=inputs, outputs=outputs, values=values), **given)

    def _files(self, role: str, given: Mapping[str, Any]) -> tuple[Path, ...]:
        """Return the files among given arguments; of records those in their fields."""
        found: list[Path] = []
        for argument in self.of(role, "runs") if role == "input" else self.of(role):
            value: Any = given.get(argument.name)
            for one in value if argument.many else [value]:
                parts = vars(one).values() if argument.record else [one]
                found += [part for part in parts if isinstance(part, Path)]
        return tuple(found)


def stage(
    name: str,
    *,
    settings: Callable[..., Settings] = lambda study: {},
    libraries: tuple[str, ...] = (),
    per: Callable[[Study], list[Wildcards]] = once,
    device: Literal["none", "model", "exact"] = "none",
    resumes: bool = False,
    setup: str = "",
    after: str = "",
) -> Callable[[Function], Function]:
    """Declare a function to be a stage (see `Stage`)."""

    def declare(function: Function) -> Function:
        declared = Stage(name, function, settings, libraries, per, device, resumes, setup, after)

        @wraps(function)
        def run(job: Job, **given: Any) -> None:
            declared.call(job, **given)

        vars(run)["stage"] = declared
        return cast("Function", run)

    return declare


def _wildcards(settings: Callable[..., Any]) -> tuple[str, ...]:
    """Return the wildcards that settings depend on: what their function takes after the study."""
    return tuple(inspect.signature(settings).parameters)[1:]


def _described(text: str) -> dict[str, str]:
    """Return what a docstring in numpy's form says of each parameter."""
    section = re.search(r"^Parameters\n-+\n(.*?)(?=^\S[^\n]*\n---|\Z)", text, re.M | re.S)
    found: dict[str, str] = {}
    parts = re.split(r"^(\S.*)\n", section[1] if section else "", flags=re.M)
    for names, words in zip(parts[1::2], parts[2::2], strict=True):
        said = " ".join(words.split())
        found |= {n.strip(): said for n in names.partition(" : ")[0].split(",")}
    return found
