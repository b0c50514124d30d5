"""Mends for the SLURM executor plugin, applied when the workflow is read.

Version 2.8.0 asks the controller at each status check how long it remembers finished jobs. While
the controller is away it takes the missing answer for "not long enough" and turns to ``sacct``;
where there is no accounting that fails at once, and jobs whose status a check could not find out
are not looked at again: the workflow waits for ever. So the last answer is remembered.
"""

from __future__ import annotations

import sys


def remember_job_age() -> None:
    """Let the plugin, if it is loaded, keep the controller's last answer while that is away."""
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
