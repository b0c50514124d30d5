"""Start-up of jobs: CPU time of a short one by itself over that of one the fork server runs."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil

from factrecall.runtime import fork_server
from tests.benchmarks.table import Row
from tests.conftest import Workspace, begin_workspace

TURNS = 5


def bench_startup() -> list[Row]:
    """Recall of a tiny model, which takes hardly longer than the imports it needs."""
    with tempfile.TemporaryDirectory() as name:
        space = begin_workspace(Path(name))
        alone = {**os.environ, fork_server.ADDRESS: "off"}
        os.environ.pop(fork_server.ADDRESS, None)
        fork_server.start()
        forking = dict(os.environ)
        del os.environ[fork_server.ADDRESS]
        (server,) = fork_server._running
        _run(space, forking)
        (template,) = psutil.Process(server.pid).children()
        loading = _seconds(template)
        ratios, forked = [], []
        for _ in range(TURNS):
            before, begin = _seconds(template, children=True), _clients()
            _run(space, forking)
            forked.append(_seconds(template, children=True) - before + _clients() - begin)
            begin = _clients()
            _run(space, alone)
            ratios.append((_clients() - begin) / forked[-1])
        assert server.stdin is not None
        server.stdin.close()
        server.wait()
    of = f"forked ({min(forked):.2f} s; libraries loaded once: {loading:.1f} s)"
    return [Row.of("a short job by itself, CPU time", of, ratios, 4)]


def _seconds(process: psutil.Process, *, children: bool = False) -> float:
    times = process.cpu_times()
    own = times.user + times.system
    return float(own + children * (times.children_user + times.children_system))


def _clients() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _run(space: Workspace, environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "factrecall", *space.command("recall")]
    subprocess.run(command, env=environment, check=True, capture_output=True)
