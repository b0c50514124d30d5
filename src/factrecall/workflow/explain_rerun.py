"""Why the workflow would run jobs again: a summary of Snakemake's dry run.

Snakemake gives a reason for each job. Most run because an earlier job runs. The first ones are
listed with the difference of their parameters, key by key (`factrecall.workflow.stages`); the
others are counted. Snakemake does not compare the parameters of jobs that run anyway.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from factrecall.config.yamlfile import read_yaml
from factrecall.runtime.errors import FactRecallError

NAMED = 3
"""The number of files that are named of several."""

_FOLLOWS = "Input files updated by another job"
_PARAMETERS = "Params have changed since last execution: "
_FILES = {"Missing output files": "missing", "Updated input files": "changed since"}
_SAID = {
    "Forced execution": "its outputs are incomplete: a run was killed while it wrote them",
    "Set of input files has changed since last execution": "it has other input files",
    "Code has changed since last execution": "the shell command of all rules has changed",
    "Software environment definition has changed since last execution": "its environment file "
    "(envs/environment.yaml) has changed",
}
"""Snakemake's reasons in plain words; it may give others."""

_ABSENT = object()


@dataclass(frozen=True)
class DryRunJob:
    """A job that would run: its rule, and Snakemake's reason in one line."""

    rule: str
    reason: str

    @property
    def follows(self) -> bool:
        """Whether it runs because another job does."""
        return _FOLLOWS in self.reason.partition(_PARAMETERS)[0]


@dataclass(frozen=True)
class Cause:
    """Why a job would run that follows no other: changes; files "missing" or "changed since"."""

    changes: tuple[str, ...] = ()
    files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def explain(targets: Sequence[str], configfiles: Sequence[Path]) -> str:
    """Explain why the workflow in the current folder would make its targets again.

    Parameters
    ----------
    targets : sequence of str
        Files or rules; none: the whole study.
    configfiles : sequence of Path
        As for ``snakemake --configfile``; none: ``config.yaml``.

    Raises
    ------
    FactRecallError
        When the dry run fails: no workflow here, a mistake of the configuration, no such target.
    """
    for path in configfiles:
        if not path.is_file():
            remedy = f"targets come before --configfile; study files are looked for in {Path.cwd()}"
            raise FactRecallError(str(path), "there is no such study file", remedy)
        read_yaml(path)
    given = ["--configfile", *map(str, configfiles)] if configfiles else []
    # An incomplete file is a reason like others, not an error. Targets stand behind `--`, since
    # `--configfile` takes every word up to there.
    words = ["--dry-run", "--nocolor", "--rerun-incomplete", *given, "--", *targets]
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if done.returncode:
        raise failure(done.stdout)
    return account(list(jobs(done.stdout)), ", ".join(targets) or "the study")


def jobs(output: str) -> Iterator[DryRunJob]:
    """Yield the jobs of a dry run's output; rules without a reason, as `all`, are none."""
    blocks = re.split(r"^(?:local)?(?:rule|checkpoint) (\w+):$", output, flags=re.M)
    for rule, block in zip(blocks[1::2], blocks[2::2], strict=True):
        reason = re.search(r"^    reason: (.*)$", block, re.M)
        if reason and re.search(r"^    output: ", block, re.M):
            yield DryRunJob(rule, reason[1].strip())


def cause(reason: str) -> Cause:
    """Take Snakemake's reason of one job apart."""
    head, found, parameters = reason.partition(_PARAMETERS)
    changes: list[str] = []
    files = {}
    if found:
        parameters, also, more = parameters.rpartition("; Software environment definition")
        head, parameters = (head + also[2:] + more, parameters) if also else (head, more)
    for part in filter(None, map(str.strip, head.split(";"))):
        label, _, names = part.partition(": ")
        if label in _FILES:
            files[_FILES[label]] = tuple(names.split(", "))
        else:
            changes.append(_SAID.get(part, part))
    if found:
        changes += _parameters(parameters) or [f"its parameters: {parameters.strip()}"]
    return Cause(tuple(changes), files)


def _parameters(text: str) -> list[str]:
    """Return the differences of parameters, as Snakemake shows those before and now."""
    _, found, text = text.partition("before: ")
    for split in re.finditer(" now: ", text) if found else ():
        before, now = (_values(part) for part in (text[: split.start()], text[split.end() :]))
        if before is None or now is None:
            continue  # the user's own words, in a setting
        olds, news = (_without_command(part) or [_ABSENT] for part in (before, now))
        lines = [line for old in olds for new in news for line in differences(old, new)]
        command = olds == news == [_ABSENT]
        return [*dict.fromkeys(lines), *(["its command line: other files or runs"] * command)]
    return []


def _values(text: str) -> list[Any] | None:
    if text.strip() == "<nothing exclusive>":
        return []
    try:
        return list(ast.literal_eval(f"({text.strip()},)"))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None


def _without_command(values: list[Any]) -> list[Any]:
    """Leave out the command line: what else it names is a reason of its own."""
    return [value for value in values if not (isinstance(value, str) and " --" in value)]


def differences(before: Any, now: Any, key: str = "") -> Iterator[str]:
    """Yield what differs between two parameters, a line each; nested keys are dotted."""
    if isinstance(before, dict) and isinstance(now, dict):
        for name in sorted({*before, *now}, key=str):
            if key == "" and name == "code" and before.get(name) != now.get(name):
                yield f"the code of {now.get('stage', 'its stage')}"
                continue
            below = f"{key}.{name}" if key else str(name)
            yield from differences(before.get(name, _ABSENT), now.get(name, _ABSENT), below)
    elif before != now:
        library = key.removeprefix("libraries.")
        name = f"{key or 'a parameter'}:" if library == key else library
        yield f"{name} {_show(before)} → {_show(now)}"


def _show(value: Any) -> str:
    if value is _ABSENT:
        return "(nothing)"
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def account(planned: Sequence[DryRunJob], what: str) -> str:
    """Summarise a dry run: the first jobs with their causes, and how many follow."""
    if not planned:
        return f"{what}: nothing would run, all is there and up to date"
    groups: dict[tuple[str, tuple[str, ...], tuple[str, ...]], list[Cause]] = {}
    for job in planned:
        if not job.follows:
            one = cause(job.reason)
            groups.setdefault((job.rule, one.changes, tuple(one.files)), []).append(one)
    lines = [f"{what}: {_count(len(planned))} would run", ""]
    for (rule, changes, labels), causes in sorted(groups.items()):
        lines.append(f"{rule} ({_count(len(causes))}), because of")
        lines += [f"  {change}" for change in changes]
        for label in labels:
            names = sorted({name for one in causes for name in one.files[label]})
            more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
            lines.append(f"  {label}: {', '.join(names[:NAMED])}{more}")
    following = Counter(job.rule for job in planned if job.follows)
    if following:
        told = ", ".join(f"{rule} {count}" for rule, count in sorted(following.items()))
        lines += ["", f"{_count(following.total())} would follow: {told}"]
    return "\n".join(lines)


def _count(number: int) -> str:
    return f"{number} job" if number == 1 else f"{number} jobs"


def failure(output: str) -> FactRecallError:
    """Return the error of a failed dry run: the workflow's own message, or Snakemake's."""
    _, found, message = output.partition("factrecall: ")
    where, why, rest = message.partition("\n  why:    ")
    if found and why:
        # Several mistakes are one message.
        why, _, remedy = rest.rpartition("\n  remedy: ")
        return FactRecallError(where, why, remedy.strip())
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    said = lines[-1] if lines else "it says nothing"
    if said.startswith("No rule to produce "):
        target = said.removeprefix("No rule to produce ").partition(" (if you use")[0]
        remedy = "name a file as results/README.md lists them, with the study's name in its path"
        return FactRecallError(target, "no rule of the workflow makes it", remedy)
    if said.startswith("Error: No Snakefile found"):
        remedy = "go to the folder of factrecall's Snakefile and ask there"
        return FactRecallError(str(Path.cwd()), "there is no workflow here", remedy)
    return FactRecallError(
        "snakemake --dry-run",
        f"it fails: {said}",
        "options before targets end with `--`: factrecall explain-rerun --configfile FILE -- "
        "TARGET; `snakemake --dry-run` with the same words says more",
    )
