"""Without a cluster: interrupted and killed runs go on, and a GPU is one job's at a time."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.workflow.running import PRESET, REPOSITORY, copy_sources

PATIENCE_S = 1200
"""Three groups of tests share the cores; a starved machine is not a failure."""
MODEL = "results/alone/models/llama-tiny/mix/seed0"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources with a study whose mixed fine-tuning takes a while."""
    made = copy_sources(tmp_path_factory.mktemp("local") / "study")
    preset = (REPOSITORY / PRESET).read_text(encoding="utf-8")
    study = yaml.safe_load(preset)
    study["name"] = "alone"
    study["training"]["mix"]["updates"] = 300
    study["compute"]["checkpoint_interval_s"] = 0.5
    (made / "alone.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
    return made


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start Snakemake in a process group of its own, as a shell does."""
    command = [sys.executable, "-m", "snakemake", MODEL, *arguments]
    command += ["--configfile", "alone.yaml", "--cores", "1", "--rerun-incomplete"]
    return subprocess.Popen(
        command,
        cwd=folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def finish(run: subprocess.Popen[str]) -> str:
    told, _ = run.communicate(timeout=PATIENCE_S)
    assert run.returncode == 0, told[-3000:]
    return told


def wait_until(true: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def state(folder: Path) -> list[Path]:
    return list((folder / "results/alone/state").glob(f"{'?' * 32}.safetensors"))


def holders(folder: Path) -> list[Path]:
    return list((folder / "results/alone/claims").glob("*.beat"))


def test_interrupted_or_killed_a_run_goes_on_and_ends_with_the_same_bytes(folder: Path) -> None:
    finish(start(folder))
    weights = folder / MODEL / "model.safetensors"
    whole = weights.read_bytes()
    log = folder / "results/alone/logs/fine_tune/llama-tiny/mix-seed0.log"
    shutil.rmtree(folder / MODEL)

    interrupted = start(folder)
    wait_until(lambda: state(folder))
    os.killpg(interrupted.pid, signal.SIGINT)  # Ctrl-C reaches every process
    interrupted.communicate(timeout=PATIENCE_S)
    assert interrupted.returncode != 0
    assert state(folder) and not holders(folder) and not weights.exists()

    killed = start(folder)
    wait_until(lambda: "resuming" in (log.read_text() if log.exists() else ""))
    killed.kill()
    killed.wait()
    assert holders(folder), "its job does not live on"
    unlocked = start(folder, "--unlock")
    finish(unlocked)
    finish(start(folder))
    assert weights.read_bytes() == whole
    assert not state(folder) and not holders(folder)


def test_a_submitted_job_of_an_earlier_start_deletes_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish(start(folder))
    latest = max(path.name for path in (folder / "results/alone/claims/runs").iterdir())
    # As the cluster's executor begins a job: it would make the outputs anew, come what may.
    inner = ("--mode", "remote", "--force", "--nolock", "--executor", "local")
    monkeypatch.setenv("FACTRECALL_RUN", f"{int(latest) - 1:010d}")
    late = start(folder, *inner)
    told, _ = late.communicate(timeout=PATIENCE_S)
    assert late.returncode == 2 and "earlier start of the workflow" in told
    assert (folder / MODEL / "model.safetensors").exists()


def test_jobs_take_turns_on_a_gpu(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def order(gpus: str) -> list[str]:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
        shutil.rmtree(folder / "results/alone/models", ignore_errors=True)
        command = [sys.executable, "-m", "snakemake", "--configfile", "alone.yaml", "--cores", "2"]
        made = subprocess.run(
            [*command, "--until", "pretrain"], cwd=folder, text=True, capture_output=True
        )
        assert made.returncode == 0, made.stderr[-3000:]
        shown = re.findall(
            r"^(?:(?:local)?rule (pretrain):|Finished jobid.*(pretrain)\))", made.stderr, re.M
        )
        return ["begins" if begins else "ends" for begins, _ in shown]

    assert order("0") == ["begins", "ends", "begins", "ends"]
    assert order("") == ["begins", "begins", "ends", "ends"]
