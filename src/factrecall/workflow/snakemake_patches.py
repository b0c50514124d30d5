"""Patches of Snakemake 9.27 and its SLURM plugin 2.8.0, applied when the workflow is read.

Two replace functions that can leave a workflow waiting for ever, one makes benchmarks count forked
jobs. Each is left out where its function no longer exists; `tests/unit/test_snakemake_patches.py`
tests whether the versions in the lock still need them.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import Any


def remember_job_age() -> None:
    """Let the SLURM plugin, if it is loaded, keep the controller's last answer while that is away.

    At each status check it asks how long the controller remembers finished jobs. A missing answer
    it takes for "not long enough" and turns to ``sacct``; where there is no accounting that fails,
    and jobs whose status a check could not find out are not looked at again. If no answer came yet,
    it is taken for long enough: the plugin turned to ``squeue`` when it started, for good reasons.
    """
    plugin = sys.modules.get("snakemake_executor_plugin_slurm")
    ask = getattr(plugin, "get_min_job_age", None)
    if plugin is None or ask is None:
        return
    known: list[int] = []

    def remembered() -> int:
        age: int | None = ask()
        if age is not None:
            known[:] = [age]
        return known[0] if known else sys.maxsize

    vars(plugin)["get_min_job_age"] = remembered


def leave_on_sigterm() -> None:
    """Let Snakemake's handler of SIGTERM wait for the scheduler's lock in a thread of its own.

    Signal handlers run in the main thread, between two of its instructions. Snakemake's takes a
    lock that the main thread may be holding at that moment, and would then wait for itself.
    """
    from snakemake.scheduling.job_scheduler import JobScheduler

    handler = getattr(JobScheduler, "exit_gracefully", None)
    if handler is None:
        return

    def beside(self: Any, *args: Any) -> None:
        threading.Thread(target=handler, args=(self, *args), daemon=True).start()

    setattr(JobScheduler, "exit_gracefully", beside)  # noqa: B010 (a method, to the type checker)


def count_forked_jobs() -> None:
    """Let benchmarks count the process that the fork server runs for a job.

    Snakemake measures a job's shell and its descendants; of these, a client of the fork server has
    a file beside the server's socket with the number of its process.
    """
    import psutil
    from snakemake.benchmark import BenchmarkTimer

    from factrecall.runtime.fork_client import ADDRESS

    class Shell(psutil.Process):  # type: ignore[misc]
        def children(self, recursive: bool = False) -> list[psutil.Process]:
            found: list[psutil.Process] = super().children(recursive)
            for client in list(found) if recursive else ():
                file = Path(os.environ.get(ADDRESS, "off")).with_name(str(client.pid))
                try:
                    forked = psutil.Process(int(file.read_text(encoding="ascii")))
                    found += [forked, *forked.children(recursive=True)]
                except (OSError, ValueError, psutil.Error):  # none, or it has just ended
                    continue
            return found

    begin = BenchmarkTimer.__init__

    def measure(self: Any, pid: int, *args: Any, **more: Any) -> None:
        begin(self, pid, *args, **more)
        self.main = Shell(pid)

    if begin.__module__ == BenchmarkTimer.__module__:  # it is not patched yet
        setattr(BenchmarkTimer, "__init__", measure)  # noqa: B010 (a method, to the type checker)
