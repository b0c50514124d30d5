"""What all commands have in common: the study, its settings, the device, and options."""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from factrecall.runtime.errors import DamagedFile, FactRecallError
from factrecall.runtime.lease import HELD, Lease

if TYPE_CHECKING:
    import torch

    from factrecall.config.study import Study

SOURCES = {"pretrain": ("scratch",), "fetch-model": ("hub", "folder")}
"""Commands that are for models of some sources only."""

Run = Callable[[argparse.Namespace], None]


class Command:
    """A subcommand in the making: its parser, and short ways to the options that recur."""

    def __init__(
        self, commands: Any, name: str, run: Run, text: str, *, study: bool = True
    ) -> None:
        self.parser: argparse.ArgumentParser = commands.add_parser(
            name, help=text, description=text
        )
        self._outputs: list[str] = []
        self.parser.set_defaults(run=run, outputs=self._outputs)
        if study:
            self.path("--study", "the study's YAML or JSON file")

    def path(self, name: str, text: str, **more: Any) -> None:
        """Add a path that has to be given."""
        self.parser.add_argument(name, type=Path, required=True, help=text, **more)

    def output(self, name: str, text: str) -> None:
        """Add a path that is written."""
        self.path(name, text)
        self._outputs.append(name.removeprefix("--").replace("-", "_"))

    def model(self) -> None:
        """Add the model's name."""
        self.parser.add_argument("--model", required=True, help="the model's name in the study")

    def tuning(self, *tunings: str) -> None:
        """Add the tuning and the seed of a fine-tuned model."""
        self.parser.add_argument(
            "--tuning", required=True, choices=tunings, help="how it is fine-tuned"
        )
        self.parser.add_argument(
            "--seed", type=int, required=True, help="of the fine-tuning: the order of examples"
        )

    def facts(self) -> None:
        """Add the three tables of facts."""
        metavar = ("INDIVIDUALS", "BIO", "QA")
        self.path("--facts", "the three tables of facts", nargs=3, metavar=metavar)

    def each(self, name: str, parts: tuple[str, ...], text: str) -> None:
        """Add an option that is given once for each of several runs."""
        self.parser.add_argument(
            name, nargs=len(parts), action="append", required=True, metavar=parts, help=text
        )


def open_study(
    options: argparse.Namespace, **wildcards: str
) -> tuple[Study, dict[str, Any], dict[str, Any]]:
    """Read the study; return it with the command's settings and provenance."""
    from factrecall.config.reading import read_study
    from factrecall.workflow.stages import parameters, settings

    study = read_study(options.study)
    model = wildcards.get("model")
    if model is not None and model not in study.models:
        raise FactRecallError(
            f"--model {model}",
            f"the study has no such model (it has: {', '.join(study.models)})",
            "name one of them",
        )
    sources = SOURCES.get(options.command)
    if sources and study.models[str(model)].source not in sources:
        raise FactRecallError(
            f"--model {model}",
            f"its source is {study.models[str(model)].source}, {options.command} takes only: "
            f"{', '.join(sources)}",
            "fetch-model fetches pre-trained models, pretrain builds those from scratch",
        )
    return (
        study,
        settings(study, options.command, **wildcards),
        parameters(study, options.command, **wildcards),
    )


@contextmanager
def writing(options: argparse.Namespace) -> Iterator[None]:
    """Hold the lease on the command's outputs for a block, if it is a job of a workflow."""
    run, results = _workflow()
    # A process that another has started for its work has that one's lease.
    if not run or not getattr(options, "outputs", None) or HELD in os.environ:
        yield
        return
    with Lease(results / "claims", getattr(options, options.outputs[0]), run):
        yield


def _workflow() -> tuple[str, Path]:
    """Return the workflow's start that this process is a job of ("": none), and its results."""
    run = os.environ.get("FACTRECALL_RUN", "")
    return run, Path(os.environ["FACTRECALL_STUDY"]).parents[1] if run else Path()


def moved_aside(error: DamagedFile) -> FactRecallError:
    """Move a damaged file of the study aside, so that the workflow makes it anew; say so.

    Files that are none of the study's are left alone, and all of them where no workflow runs: then
    the error is returned as it is.
    """
    run, results = _workflow()
    path = error.path
    if not run or results.resolve() not in path.resolve().parents:
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


def given(options: argparse.Namespace, *names: str) -> dict[str, Any]:
    """Return some of a command's options by name, as its stage's function takes them."""
    return {name: getattr(options, name) for name in names}


def seed_of(text: str) -> int:
    """Turn a seed given with other things into a number."""
    try:
        return int(text)
    except ValueError:
        remedy = "give a whole number where the help of the command says SEED"
        raise FactRecallError(f"seed {text!r}", "it is no whole number", remedy) from None


def device_of(study: Study, threads: int | None = None, *, exact: bool = False) -> torch.device:
    """Set threads (the study's, if no others are given) and determinism; choose the device.

    Products of float32 matrices are made in TF32 on a GPU: seven times as fast by the data sheets,
    and closer than the bfloat16 that the models were trained in. Not so where `exact` results are
    called for (probes solve equations), nor if the study trains in float32.

    Processes that share a training share the threads, and take a GPU each.
    """
    threads = threads or study.compute.threads
    if os.environ.get("FACTRECALL_RUN"):  # Snakemake gives a job fewer where there are fewer cores
        threads = min(threads, int(os.environ.get("OMP_NUM_THREADS", threads)))
    rank, processes = (int(os.environ.get(*v)) for v in (("LOCAL_RANK", 0), ("WORLD_SIZE", 1)))
    threads = max(1, threads // processes)
    # Set before the libraries load: the number of threads decides how sums are split, and so
    # their last bits.
    os.environ["OMP_NUM_THREADS"] = str(threads)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    import torch

    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    from factrecall.models.loading import choose_device

    device = choose_device(study.compute.device)
    if device.type == "cuda" and not exact and study.training.precision != "float32":
        torch.set_float32_matmul_precision("high")
    if processes > 1 and device.type == "cuda":
        device = torch.device("cuda", rank)
        torch.cuda.set_device(device)
    if processes == 1:
        told = f"{threads} thread{'s' if threads > 1 else ''}"
        print(f"runs on {_where(device)}, {told}", file=sys.stderr)
    return device


@contextmanager
def shared(options: argparse.Namespace, device: torch.device, count: int) -> Iterator[bool]:
    """Do a training in a block: here, or in several processes of this machine, which share it.

    Yields
    ------
    bool
        Whether it is to be done here; if not, it has been done.
    """
    from factrecall.training.launcher import is_process, joined, launch

    if count > 1 and not is_process():
        launch(options.arguments, count, device)
        yield False
    else:
        with joined():
            yield True


def _where(device: torch.device) -> str:
    """Return where a command runs, for its log."""
    import torch

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    told = [socket.gethostname(), name]
    for variable in ("SLURM_JOB_ID", "CUDA_VISIBLE_DEVICES"):
        if variable in os.environ:
            told.append(f"{variable}={os.environ[variable]}")
    return ", ".join(told)
