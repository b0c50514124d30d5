"""The command line: one subcommand a stage, made from its declaration, and a few beside.

Everything heavy is imported by the command that needs it, so that ``--help`` and ``validate``
answer at once. A user's mistake ends with one message and exit code 2, never a traceback.
"""

from __future__ import annotations

import argparse
import errno
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from factrecall.runtime.errors import EXIT_CODE, DamagedFile, FactRecallError, out_of_memory
from factrecall.runtime.lease import HELD, Lease
from factrecall.runtime.signals import TAKEN_OVER, Interrupted, handle_signals
from factrecall.runtime.stage import Argument, Stage
from factrecall.runtime.storage import disk_error
from factrecall.workflow.stages import STAGES, run

if TYPE_CHECKING:
    from factrecall.config.study import Study
    from factrecall.cost.devices import Device

REFUSED = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""A full or read-only disk may show wherever a command writes, and is never its defect."""

FORMER = {
    "why": "explain-rerun",
    "study-case": "attention-case-study",
    "compare-gradients": "gradient-similarity",
    "represent": "capture",
}
"""Former names of commands, and what they are called now."""

PLAIN: dict[str, tuple[Callable[[str], Any], str]] = {
    "str": (str, "a word"),
    "int": (int, "a whole number"),
    "float": (float, "a number"),
}
"""What turns the fields of a run into values (paths, if not here), and what they have to be."""

CONFIGFILE: dict[str, Any] = {"type": Path, "nargs": "+", "metavar": "FILE"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        if arguments and arguments[0] in FORMER:
            remedy = f"its name is {FORMER[arguments[0]]} now"
            raise FactRecallError(f"command {arguments[0]}", "there is no such command", remedy)
        options = _parser().parse_args(arguments)
        options.arguments = arguments
        with handle_signals(), _lease(options):
            try:
                options.run(options)
            except DamagedFile as error:
                raise _moved_aside(error) from error
    except FactRecallError as error:
        return _refuse(error)
    except Interrupted as left:
        remedy = "" if left.code == TAKEN_OVER else "; run again to resume"
        return _refuse(f"{left.reason}{remedy}", left.code)
    except RuntimeError as error:
        if not (told := out_of_memory(error)):
            raise
        return _refuse(told)
    except KeyboardInterrupt:
        return _refuse("interrupted (from the keyboard); run again to resume", 130)
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except OSError as error:
        if error.errno not in REFUSED:
            raise
        return _refuse(disk_error(error.filename or "its files", error))
    return 0


def _refuse(told: object, code: int = EXIT_CODE) -> int:
    print(f"factrecall: {told}", file=sys.stderr)
    return code


# --- the parser ----------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="factrecall",
        description="How do language models come to recall facts, and which weights do it? "
        "Each command is a stage of a study; `make run` or `snakemake` runs them all in order.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for stage in STAGES.values():
        _add_stage(commands, stage)
    validate = _command(commands, "validate", _validate, "check study files and report every error")
    validate.add_argument("study", type=Path, nargs="+", help="study files (YAML)")
    text = "explain why the workflow would run jobs again"
    explain = _command(commands, "explain-rerun", _explain_rerun, text)
    explain.add_argument("target", nargs="*", help="files of the study; none: all of it")
    text = "study files, as for snakemake, behind the targets; none: config.yaml"
    explain.add_argument("--configfile", **CONFIGFILE, default=[], help=text)
    text = "say what a study costs: jobs, memory, disk and hours, from its settings alone"
    plan = _command(commands, "plan", _plan, text)
    text = "study files, as for snakemake; none: config.yaml"
    plan.add_argument("--configfile", **CONFIGFILE, default=[Path("config.yaml")], help=text)
    text = "H200, H100, A100-80, A100-40 or cpu, which is this machine's and measured; of several "
    text += "the first is told in full, and all are compared"
    plan.add_argument("--device", nargs="+", metavar="DEVICE", help=text)
    text = "of a GPU's matrix rate that passes reach (default 0.45)"
    plan.add_argument("--efficiency", type=float, metavar="SHARE", help=text)
    plan.add_argument("--json", type=Path, metavar="FILE", help="write everything there, too")
    return parser


def _command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], None], text: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(run=run)
    return parser


def _add_stage(commands: Any, stage: Stage) -> None:
    parser = _command(commands, stage.name, _run_stage, stage.summary)
    text = "the study's YAML or JSON file"
    parser.add_argument("--study", type=Path, required=True, help=text)
    for name, text in stage.wildcards.items():
        kind = int if name == "seed" else str
        parser.add_argument(f"--{name}", type=kind, required=True, help=text)
    for argument in stage.of("input", "output", "folder", "runs"):
        form: dict[str, Any] = {"type": Path, "required": not argument.optional}
        if argument.record:
            names = tuple(name.upper() for name in argument.fields)
            form |= {"type": str, "nargs": len(names), "metavar": names, "action": "append"}
        elif argument.many:
            form |= {"nargs": "+" if argument.role == "input" else "*"}
        parser.add_argument(argument.option, help=argument.help, **form)
    if stage.resumes:
        text = "folder where an interrupted job keeps its state"
        parser.add_argument("--state", type=Path, default=Path("state"), help=text)


# --- commands ------------------------------------------------------------------------------------


def _run_stage(options: argparse.Namespace) -> None:
    from factrecall.config.reading import read_study

    stage, given = STAGES[options.command], dict(vars(options))
    study = read_study(options.study)
    for argument in stage.of("runs"):
        given[argument.name] = [_record(argument, words) for words in given[argument.name]]
    state = given.get("state", Path("state"))
    run(stage, study, given, state=state, argv=options.arguments)


def _record(argument: Argument, words: Sequence[str]) -> Any:
    values = []
    for (name, kind), word in zip(argument.fields.items(), words, strict=True):
        convert, expected = PLAIN.get(kind, (Path, ""))
        try:
            values.append(convert(word))
        except ValueError:
            remedy = f"give {expected} where the help of the command says {name.upper()}"
            raise FactRecallError(f"{name} {word!r}", f"it is not {expected}", remedy) from None
    assert argument.record is not None
    return argument.record(*values)


def _validate(options: argparse.Namespace) -> None:
    from factrecall.config.reading import read_study

    for path in options.study:
        study = read_study(path)
        print(f"{path}: study {study.name!r} is valid")


def _explain_rerun(options: argparse.Namespace) -> None:
    from factrecall.workflow.explain_rerun import explain

    print(explain(options.target, options.configfile))


def _plan(options: argparse.Namespace) -> None:
    import json

    from factrecall.config.reading import read_study
    from factrecall.cost.job_cost import EFFICIENCY
    from factrecall.cost.plan import as_json, plan_study
    from factrecall.cost.render import render
    from factrecall.runtime.storage import write_text

    efficiency = EFFICIENCY if options.efficiency is None else options.efficiency
    if not 0 < efficiency <= 1:
        raise FactRecallError(
            f"--efficiency {efficiency}", "it is a share above 0 and up to 1", "give 0.45, say"
        )
    study = read_study(*options.configfile)
    devices = [_device(name) for name in options.device or _usual(study)]
    plans = [plan_study(study, device, efficiency) for device in devices]
    print(render(plans))
    if options.json is not None:
        write_text(options.json, json.dumps(as_json(plans), indent=2) + "\n")
        print(f"written to {options.json}", file=sys.stderr)


def _usual(study: Study) -> list[str]:
    """Return where a study is likely to run: this machine, if models are small, and all GPUs."""
    from factrecall.cost.devices import CPU, DEVICES
    from factrecall.cost.models import model_info
    from factrecall.cost.resources import LARGE

    if study.compute.device == "cpu":
        return [CPU]
    small = all(model_info(study, name).shape.parameters < LARGE for name in study.models)
    return [CPU, *DEVICES] if small and study.compute.device != "cuda" else list(DEVICES)


def _device(name: str) -> Device:
    from factrecall.cost.devices import CPU, DEVICES, this_cpu

    names = {one.casefold(): one for one in (*DEVICES, CPU)}
    found = names.get(name.casefold())
    if found is None:
        raise FactRecallError(
            f"--device {name}",
            "no such device is known",
            f"name some of {', '.join((*DEVICES, CPU))}; of others one like them",
        )
    return this_cpu() if found == CPU else DEVICES[found]


# --- jobs of a workflow --------------------------------------------------------------------------


@contextmanager
def _lease(options: argparse.Namespace) -> Iterator[None]:
    """Hold the lease on a stage's outputs for a block, if it is a job of a workflow."""
    start, results = _workflow()
    outputs = STAGES[options.command].of("output") if options.command in STAGES else []
    # A process that another has started for its work has that one's lease.
    if not start or not outputs or HELD in os.environ:
        yield
        return
    with Lease(results / "claims", getattr(options, outputs[0].name), start):
        yield


def _workflow() -> tuple[str, Path]:
    """Return the workflow's start that this process is a job of ("": none), and its results."""
    start = os.environ.get("FACTRECALL_RUN", "")
    return start, Path(os.environ["FACTRECALL_STUDY"]).parents[1] if start else Path()


def _moved_aside(error: DamagedFile) -> FactRecallError:
    """Move a damaged file of the study aside, so that the workflow makes it anew; say so.

    Files that are none of the study's are left alone, and all of them where no workflow runs: then
    the error is returned as it is.
    """
    start, results = _workflow()
    path = error.path
    if not start or results.resolve() not in path.resolve().parents:
        return error
    aside = path.with_name(f"{path.name}.damaged")
    try:
        if aside.is_dir():
            shutil.rmtree(aside)
        elif path.is_dir():
            aside.unlink(missing_ok=True)
        os.replace(path, aside)
    except OSError:
        if path.exists():  # a read-only disk
            return error
    return FactRecallError(
        error.where, error.why, f"run again: it was moved to {aside}, the workflow makes it anew"
    )
