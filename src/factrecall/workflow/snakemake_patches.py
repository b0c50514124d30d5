"""Mends for Snakemake 9.27 and its SLURM plugin 2.8.0, applied when the workflow is read.

Each takes the place of one function that can leave a workflow waiting for ever, and is left out
where that function is no longer there. `tests/unit/test_mends.py` says of the versions in the lock
whether they still need them.
"""

from __future__ import annotations

import sys
import threading
from typing import Any


def remember_job_age() -> None:
    """Let the SLURM plugin, if it is loaded, keep the controller's last answer while that is away.

    At each status check it asks how long the controller remembers finished jobs. A missing answer
    it takes for "not long enough" and turns to ``sacct``; where there is no accounting that fails,
    and jobs whose status a check could not find out are not looked at again.
    """
    plugin = sys.modules.get("snakemake_executor_plugin_slurm")
    ask = getattr(plugin, "get_min_job_age", None)
    if plugin is None or ask is None:
        return
    known: list[int] = []

    def remembered() -> int | None:
        age: int | None = ask()
        if age is not None:
            known[:] = [age]
        return known[0] if known else None

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
