"""The stages of a study for the workflow, the command line and notebooks alike.

A stage's settings are the arguments its function gets *and* the parameters of its rule: it cannot
read what its rule does not declare, so an edit of the configuration reruns its readers and nothing
else.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from factrecall.experiments.registry import stages
from factrecall.runtime.errors import FactRecallError
from factrecall.runtime.fingerprint import code_fingerprint, versions
from factrecall.runtime.job import Job
from factrecall.runtime.stage import Argument, Settings, Stage

if TYPE_CHECKING:
    from factrecall.config.study import Study

STAGES = stages()


def settings(study: Study, stage: str, **wildcards: Any) -> Settings:
    """Return what a stage is to know of the configuration, as its function takes it."""
    return STAGES[stage].settings_of(study, wildcards)


def parameters(study: Study, stage: str, **wildcards: Any) -> dict[str, Any]:
    """Return all that determines a stage beside its input files, as plain sorted values.

    This is a rule's parameter, and the provenance in the metadata of what the stage writes:
    settings, the code's fingerprint and the versions of the libraries that matter.
    """
    chosen = STAGES[stage]
    plain = {n: _plain(value) for n, value in settings(study, stage, **wildcards).items()}
    return {
        "code": code_fingerprint(chosen.module, chosen.function.__name__),
        "libraries": versions(chosen.libraries),
        "settings": dict(sorted(plain.items())),
        "stage": stage,
    }


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json") if hasattr(value, "model_dump") else value


# --- command lines -----------------------------------------------------------------------------


def command_line(stage: str, given: Mapping[str, Any]) -> list[str]:
    """Return the words of a stage's command, but for the study.

    Parameters
    ----------
    stage : str
        Its name.
    given : mapping
        Wildcards and files by the name of the argument; of runs, a sequence of sequences; "state",
        if it is to be kept elsewhere than usual.
    """
    words = [stage]
    for name in STAGES[stage].wildcards:
        words += [f"--{name}", str(given[name])]
    for argument in STAGES[stage].of("input", "output", "folder", "runs"):
        value = given[argument.name]
        if argument.record:
            words += [str(word) for run in value for word in (argument.option, *run)]
        elif argument.many:
            words += [argument.option, *map(str, value)]
        elif value is not None:
            words += [argument.option, str(value)]
    return words + (["--state", str(given["state"])] if "state" in given else [])


def job_command(
    stage: str, wildcards: Any, input: Any, output: Any, fixed: Mapping[str, Any]
) -> str:
    """Return a job's command line, quoted for a shell.

    Parameters
    ----------
    stage : str
        Its name.
    wildcards, input, output
        The job's, as the workflow has them: with attributes named like the stage's arguments (of
        runs like their fields).
    fixed : mapping
        Arguments that are no files of the job; of runs, their wildcards.
    """
    given = dict(fixed)
    for name in STAGES[stage].wildcards:
        given[name] = getattr(wildcards, name)
    for argument in STAGES[stage].of("input", "output", "runs"):
        if argument.record:
            given[argument.name] = list(_runs(argument, fixed[argument.name], input))
        elif argument.name not in fixed:
            files = getattr(input if argument.role == "input" else output, argument.name)
            alone = argument.optional and not isinstance(files, str)
            given[argument.name] = None if alone else files
    return shlex.join(command_line(stage, given))


def _runs(argument: Argument, members: Sequence[Any], input: Any) -> Iterator[list[Any]]:
    """Yield the values of records, with the files that the job's inputs list in their order."""
    for number, member in enumerate(members):
        yield [
            member[name] if name in member else getattr(input, name)[number]
            for name in argument.fields
        ]


def rule_parameters(study: Study, state: Path, stage: str, **fixed: Any) -> dict[str, Any]:
    """Return the parameters of a stage's rule, as functions that Snakemake calls for each job.

    Parameters
    ----------
    study : Study
        The configuration.
    state : Path
        Folder where interrupted jobs keep their states.
    stage : str
        Its name.
    **fixed
        Arguments that are no files of the rule (see `job_command`), or functions of the wildcards.
    """
    chosen = STAGES[stage]
    # Hundreds of jobs differ in wildcards that their settings do not depend on.
    declared = cache(partial(parameters, study, stage))
    if chosen.resumes:
        fixed["state"] = state

    def of_job(wildcards: Any) -> dict[str, Any]:
        return declared(**{name: getattr(wildcards, name) for name in chosen.setting_wildcards})

    def command(wildcards: Any, input: Any, output: Any) -> str:
        given = {k: value(wildcards) if callable(value) else value for k, value in fixed.items()}
        return job_command(stage, wildcards, input, output, given)

    return {"stage": of_job, "command": command}


# --- running -----------------------------------------------------------------------------------


def run_stage(
    name: str, study: Study | Path | str, *, state: Path | str = "state", **given: Any
) -> None:
    """Run a stage in this process, as its command does.

    Parameters
    ----------
    name : str
        The stage, e.g. "ablate".
    study : Study or path
        The configuration, or its file.
    state : path
        Folder where an interrupted job keeps its state.
    **given
        What the command takes, by the name of the option: files as paths, of runs a list of
        records (see the module of the stage).

    Raises
    ------
    FactRecallError
        When there is no such stage, or an argument is missing, unknown or cannot be used.
    """
    from factrecall.config.reading import read_study

    stage = STAGES.get(name)
    if stage is None:
        raise FactRecallError(f"stage {name!r}", "there is no such stage", ", ".join(STAGES))
    wanted = [argument for argument in stage.arguments if argument.role != "setting"]
    names = [*stage.wildcards, *(a.name for a in wanted if not a.optional)]
    if wrong := [n for n in names if n not in given] or [
        n for n in given if n not in (*stage.wildcards, *(a.name for a in wanted))
    ]:
        why = "it is missing" if wrong[0] in names else "the stage takes no such argument"
        raise FactRecallError(f"{name}: {wrong[0]}", why, f"it takes {', '.join(names)}")
    values = given | {a.name: _files(a, given.get(a.name)) for a in wanted if a.role != "wildcard"}
    file = study if isinstance(study, Path | str) else None
    opened = read_study(Path(file)) if file is not None else study
    words = {a.name: [[*vars(r).values()] for r in values[a.name]] for a in stage.of("runs")}
    argv = [*command_line(name, {**values, **words, "state": state}), "--study", str(file)]
    run(stage, cast("Study", opened), values, state=Path(state), argv=argv)


def _files(argument: Argument, value: Any) -> Any:
    """Return an argument's paths or records; refuse what is neither."""
    if value is None and argument.optional:
        return None
    kind, expected = argument.record or (str, Path), "path"
    if argument.record:
        expected = f"{argument.record.__name__} of {argument.record.__module__}"
    many = argument.many and isinstance(value, list | tuple)
    for one in value if many else [value]:
        if not isinstance(one, kind) or many != argument.many:
            remedy = f"give a list, each: {expected}" if argument.many else f"give one {expected}"
            raise FactRecallError(f"{argument.name} = {value!r}", "it cannot be used", remedy)
    if argument.record:
        return value
    return [Path(one) for one in value] if many else Path(value)


def run(
    stage: Stage, study: Study, given: Mapping[str, Any], *, state: Path, argv: Sequence[str]
) -> None:
    """Run a stage; its command line is `argv`, for processes that share a training."""
    known = {n: given[n] for n in stage.wildcards}
    _check_wildcards(stage, study, known)
    values = settings(study, stage.name, **known)
    job = Job(
        provenance=parameters(study, stage.name, **known),
        state=state,
        checkpoint_interval_s=study.compute.checkpoint_interval_s,
        cache_gb=study.compute.cache_gb,
    )
    arguments = {a.name: given[a.name] for a in stage.arguments if a.role != "setting"}
    if stage.device == "none":
        stage.call(job, **arguments, **values)
    else:
        _run_model(stage, study, job, arguments, values, argv)
    if stage.after:
        _named(stage.after)(**arguments)


def _run_model(
    stage: Stage,
    study: Study,
    job: Job,
    arguments: Mapping[str, Any],
    values: Settings,
    argv: Sequence[str],
) -> None:
    from factrecall.workflow import execution

    count = execution.processes_of(stage, study)
    device = execution.device_of(study, stage)
    job = replace(job, device=device)
    with execution.shared(argv, device, count) as here:
        if not here:
            return
        if stage.setup:
            mode = _named(stage.setup)(study, values, arguments, device)
            job = replace(job, provenance={**job.provenance, "mode": asdict(mode)})
            values = {**values, "mode": mode}
        stage.call(job, **arguments, **values)


def _named(name: str) -> Callable[..., Any]:
    module, _, function = name.partition(":")
    found: Callable[..., Any] = getattr(import_module(f"factrecall.{module}"), function)
    return found


def _check_wildcards(stage: Stage, study: Study, known: Mapping[str, Any]) -> None:
    """Refuse what is not of this study or this stage; seeds are free."""
    for name, value in known.items():
        there = list(dict.fromkeys(run[name] for run in stage.per(study)))
        if name == "seed" or value in there:
            continue
        if name == "model":
            there = list(study.models)
        if value in study.models:
            why = f"its source is {study.models[value].source}, {stage.name} does not take it"
            remedy = "fetch-model fetches pre-trained models, pretrain builds those from scratch"
        else:
            why = f"the study has no such {name} (it has: {', '.join(there)})"
            remedy = "name one of them"
        raise FactRecallError(f"--{name} {value}", why, remedy)
