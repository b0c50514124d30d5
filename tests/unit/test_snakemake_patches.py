"""The patches of Snakemake and its SLURM plugin: what they replace is there."""

from __future__ import annotations

import importlib
import inspect
import sys
import threading
import time
from types import ModuleType, SimpleNamespace

import pytest
from snakemake.scheduling.job_scheduler import JobScheduler

from factrecall.workflow import snakemake_patches

PLUGIN = "snakemake_executor_plugin_slurm"


def test_the_controllers_last_answer_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [None, 900, None, 300, None]
    plugin = ModuleType(PLUGIN)
    vars(plugin)["get_min_job_age"] = lambda: answers.pop(0)
    monkeypatch.setitem(sys.modules, PLUGIN, plugin)
    snakemake_patches.remember_job_age()
    asked = vars(plugin)["get_min_job_age"]
    assert [asked() for _ in range(5)] == [sys.maxsize, 900, 900, 300, 300]


def test_without_the_plugin_nothing_is_patched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, PLUGIN, raising=False)
    snakemake_patches.remember_job_age()
    assert PLUGIN not in sys.modules


def test_the_plugin_of_the_lock_still_asks_for_the_age() -> None:
    plugin = importlib.import_module(PLUGIN)
    assert "get_min_job_age" in vars(plugin)
    assert "get_min_job_age()" in inspect.getsource(plugin)


def test_sigterm_is_taken_while_the_scheduler_holds_its_lock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(JobScheduler, "exit_gracefully", JobScheduler.exit_gracefully)
    scheduler = SimpleNamespace(
        _lock=threading.Lock(), _open_jobs=threading.Semaphore(0), _user_kill=None
    )
    stuck = threading.Thread(
        target=JobScheduler.exit_gracefully, args=(scheduler, 15, None), daemon=True
    )
    with scheduler._lock:
        stuck.start()
        stuck.join(0.2)
        assert stuck.is_alive()  # Snakemake's own handler waits: in the main thread, for ever
    stuck.join()
    scheduler._user_kill = None
    scheduler._open_jobs.acquire()

    snakemake_patches.leave_on_sigterm()
    with scheduler._lock:
        JobScheduler.exit_gracefully(scheduler, 15, None)
        assert scheduler._user_kill is None
    assert scheduler._open_jobs.acquire(timeout=600)
    deadline = time.monotonic() + 600
    while scheduler._user_kill is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert scheduler._user_kill == "graceful"
