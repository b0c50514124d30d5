"""Launcher: one command on several processes of a machine.

The command starts itself once more for each process, under the launcher of `torchrun`, and waits.
It alone holds the lease on the outputs and writes to the user: it forwards signals, and raises as
its own what a process exits with (a user's mistake, a shutdown request). Whatever else goes wrong
in a process keeps its traceback.

They exchange files in a temporary folder: ``signals``, which the command appends to and each
process watches, and one for each process that exits early.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import sys
import tempfile
import threading
import traceback
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

import torch
from torch import distributed

from factrecall.runtime import signals
from factrecall.runtime.errors import EXIT_CODE, DamagedFile, FactRecallError, out_of_memory
from factrecall.runtime.signals import SIGNALS, Interrupted
from factrecall.runtime.storage import disk_error
from factrecall.training.distributed import DistributedStrategy

if TYPE_CHECKING:
    from factrecall.training.execution import Execution

FOLDER = "FACTRECALL_PROCESSES"
"""Environment variable: the folder of a launched process and its launcher."""

POLL = 0.2
"""Seconds between two checks of signals, and of processes."""

LOST = 3
"""Exit code of a process that could not continue without another."""


def is_process() -> bool:
    """Say whether this is one of several processes, started by `launch` or by torchrun itself."""
    return int(os.environ.get("WORLD_SIZE", 1)) > 1


def launch(arguments: Sequence[str], count: int, device: torch.device) -> None:
    """Run a command on several processes of this machine; return when all are done.

    Parameters
    ----------
    arguments : sequence of str
        The command line, without the program.
    count : int
        Number of processes.
    device : torch.device
        The CPU, or the kind of device of which each process has one.

    Raises
    ------
    FactRecallError, Interrupted
        As one of the processes did; when one was killed, or there are not as many GPUs.
    SystemExit
        When one has ended with a traceback.
    """
    if device.type == "cuda" and (there := torch.cuda.device_count()) < count:
        raise FactRecallError(
            f"training.mode.gpus = {count}",
            f"PyTorch sees {there} CUDA device{'s' if there > 1 else ''} here",
            "lower it, or use a machine, or ask your cluster for a node, with as many GPUs",
        )
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",  # a free port, chosen by the system: others may do the same
        local_addr="localhost",
        max_restarts=0,
        monitor_interval=POLL,
        logs_specs=DefaultLogsSpecs(log_dir=os.devnull),
        signals_to_handle="SIGHUP,SIGQUIT",
    )
    with (
        tempfile.TemporaryDirectory(prefix="factrecall-") as name,
        _forwarding(Path(name)) as got,
    ):
        command = ["-m", "factrecall", *arguments]
        try:
            elastic_launch(config, sys.executable)(*command)
        except ChildFailedError as failed:
            codes = {rank: failure.exitcode for rank, failure in failed.failures.items()}
            _raise(Path(name), codes, got)


@contextmanager
def _forwarding(folder: Path) -> Iterator[list[int]]:
    """Forward signals to the processes within a block; yield those that came."""
    got: list[int] = []

    def forward(number: int, frame: FrameType | None) -> None:
        got.append(number)
        # Whoever takes the outputs over waits for the processes to leave, in time or not.
        over = signals.exit_code() == signals.TAKEN_OVER
        with (folder / "signals").open("a", encoding="ascii") as file:
            file.write(f"{signal.SIGTERM if over else number}\n")

    os.environ[FOLDER] = str(folder)
    handle_signals = threading.current_thread() is threading.main_thread()
    handlers = {n: signal.signal(n, forward) for n in SIGNALS} if handle_signals else {}
    logging.disable(logging.CRITICAL)  # the messages below say more than the launcher's
    try:
        yield got
    finally:
        logging.disable(logging.NOTSET)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        del os.environ[FOLDER]


def _raise(folder: Path, codes: Mapping[int, int], got: Sequence[int]) -> NoReturn:
    """Raise what the processes exited with: of several reasons the one behind the others."""
    reports = {
        rank: json.loads(path.read_text(encoding="utf-8"))
        for rank in sorted(codes)
        if (path := folder / f"{rank}.json").exists()
    }
    for said in reports.values():
        if said["kind"] == "DamagedFile":
            raise DamagedFile(Path(said["where"]), said["why"], said["remedy"])
        if said["kind"] == "FactRecallError":
            raise FactRecallError(said["where"], said["why"], said["remedy"])
    signals.exit_if_requested()
    interrupted = [
        Interrupted(said["why"], said["code"])
        for said in reports.values()
        if said["kind"] == "Interrupted"
    ]
    if got and interrupted:
        raise interrupted[0]
    # The launcher ends the others by SIGTERM when one has ended.
    silent = {r: c for r, c in codes.items() if r not in reports and c != -signal.SIGTERM}
    for rank, code in silent.items():
        if code > 0:
            raise SystemExit(code)
        name = signal.Signals(-code).name
        raise FactRecallError(
            f"process {rank} of {max(codes) + 1} that share the training",
            f"it was ended by {name}, as the system does when main memory is short",
            "see what it needs (factrecall plan); run again to resume from the last saved state",
        )
    if interrupted:
        raise interrupted[0]
    if got:
        raise signals.request_of(128 + got[0])
    raise FactRecallError(
        "processes that share the training",
        "they lost each other" + "".join(f"; {said['why']}" for said in reports.values()),
        "run again to resume from the last saved state",
    )


# --- in each process --------------------------------------------------------------------------


def strategy_of(mode: Execution, device: torch.device) -> DistributedStrategy:
    """Return the strategy of an execution: sharded, offloaded, or neither.

    Raises
    ------
    FactRecallError
        When there are not as many processes as `mode.gpus`.
    """
    if (count := int(os.environ.get("WORLD_SIZE", 1))) != mode.gpus:
        raise FactRecallError(
            f"training.mode.gpus = {mode.gpus}",
            f"the training was started as one of {count} processes (WORLD_SIZE)",
            "start it by the command line of factrecall, which starts the others, without the "
            "environment variable WORLD_SIZE; pre-training takes one process",
        )
    if mode.gpus == 1 and mode.optimiser != "cpu_offload":
        return DistributedStrategy()
    from factrecall.training.fully_sharded import FullySharded

    return FullySharded(mode, device)


@contextmanager
def joined() -> Iterator[None]:
    """Do a process's part of a command in a block, then wait for the others.

    Without a `launch` around it only waits; a process that is alone does not even wait.
    """
    folder = os.environ.get(FOLDER) if is_process() else None
    stop = threading.Event()
    if folder is not None:
        threading.Thread(
            target=_watch, args=(Path(folder), os.getppid(), stop), daemon=True, name="signals"
        ).start()
    try:
        yield
        if distributed.is_initialized():
            distributed.barrier()
            distributed.destroy_process_group()
    except (Exception, Interrupted) as error:
        stop.set()
        if folder is None:
            raise
        if not (said := _said(error)):
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
        place = Path(folder) / f"{os.environ['RANK']}.json"
        place.write_text(json.dumps(said), encoding="utf-8")
        # No cleaning up of the interpreter: it would wait for the others.
        sys.stderr.flush()
        os._exit(int(said["code"]))
    finally:
        stop.set()


def _said(error: BaseException) -> dict[str, str | int] | None:
    """Return what the command needs to raise an error itself; None if it is a defect."""
    from factrecall.training.fully_sharded import Lost

    if isinstance(error, Interrupted):
        return {"kind": "Interrupted", "why": error.reason, "code": error.code}
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        error = disk_error(error.filename or "its files", error)
    if isinstance(error, Lost):
        return {"kind": "Lost", "why": error.why, "code": LOST}
    error = out_of_memory(error) or error
    if isinstance(error, FactRecallError):
        said = {"where": error.where, "why": error.why, "remedy": error.remedy}
        kind = "DamagedFile" if isinstance(error, DamagedFile) else "FactRecallError"
        return {"kind": kind, **said, "code": EXIT_CODE}
    words = ("gloo", "nccl", "connection")
    if isinstance(error, RuntimeError) and any(word in str(error).lower() for word in words):
        return {"kind": "Lost", "why": str(error).splitlines()[0][:200], "code": LOST}
    return None


def _watch(folder: Path, launcher: int, stop: threading.Event) -> None:
    """Give this process the signals that its launcher was given, and SIGTERM when that is gone."""
    main, seen = threading.main_thread().ident, 0
    assert main is not None
    while not stop.wait(POLL):
        if os.getppid() != launcher:
            signal.pthread_kill(main, signal.SIGTERM)
            return
        try:
            numbers = (folder / "signals").read_text(encoding="ascii").split()
        except FileNotFoundError:
            continue
        for number in map(int, numbers[seen:]):
            # A scheduler signals all processes of a job: one that is noted is not requested again.
            if number == signal.SIGINT or signals.exit_code() != 128 + number:
                signal.pthread_kill(main, number)
        seen = len(numbers)
