"""A fine-tuning that two GPUs of a node share, told to leave in its middle, with the same bytes."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.slurm import faults
from tests.slurm.cluster import Cluster, wait_until
from tests.slurm.conftest import write_study
from tests.slurm.test_slurm import results_of
from tests.workflow.running import snakemake

FOLDER = "models/llama-tiny/mix/seed0"


def shared_study(checkout: Path, name: str) -> Path:
    """Write a study whose fine-tunings two processes share; short, but caught in the middle."""
    path = write_study(checkout, name)
    study = yaml.safe_load(path.read_text(encoding="utf-8"))
    study["training"]["mode"]["gpus"] = 2
    study["training"]["mix"]["updates"] = 40
    study["compute"]["checkpoint_interval_s"] = 0.5
    path.write_text(yaml.safe_dump(study), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def disturbed(cluster: Cluster, checkout: Path) -> faults.Study:
    target = f"results/shared/{FOLDER}"
    study = faults.Study(checkout, shared_study(checkout, "shared"), (target,))
    # The nodes here are too small for what a GPU's libraries may take.
    study.start("--set-resources", "fine_tune:mem_mb=2500")
    job = study.job("fine-tune", "mix")
    state = f"{'?' * 32}.safetensors"
    kept = study.results / "state"
    wait_until(lambda: list(kept.glob(state)), "no state")
    # To all processes of the job at once, as before a time limit.
    subprocess.run(["scancel", "--signal=USR1", job.number], check=True)
    wait_until(lambda: not job.alive, "it does not leave")
    study.say(f"preempted {job.number}")
    assert study.end() == 0, study.log.read_text()[-6000:]
    return study


def test_it_goes_on_and_ends_with_the_bytes_of_an_undisturbed_run(
    disturbed: faults.Study, checkout: Path
) -> None:
    file = shared_study(checkout, "together")
    done = snakemake(
        checkout, f"results/together/{FOLDER}", "--cores", "2", "--configfile", str(file)
    )
    assert done.returncode == 0, done.stdout[-4000:]
    expected, found = (results_of(checkout / "results" / n) for n in ("together", "shared"))
    assert f"{FOLDER}/model.safetensors" in expected and found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []


def test_it_had_two_gpus_of_one_node(disturbed: faults.Study) -> None:
    log = (disturbed.results / "logs/fine_tune/llama-tiny/mix-seed0.log").read_text()
    (told,) = re.findall(r"runs on .*", log)
    assert re.search(r"SLURM_JOB_ID=\d+, CUDA_VISIBLE_DEVICES=0,1,", told), told
    assert "gpus 2" in log and log.count("resuming from the saved state") == 1


def test_it_left_by_itself(disturbed: faults.Study) -> None:
    (number,) = [told.split()[1] for told in disturbed.told]
    (log,) = (disturbed.checkout / ".snakemake/slurm_logs").rglob(f"{number}.log")
    told = log.read_text()
    assert told.count("factrecall: interrupted (SIGUSR1)") == 1 and "Traceback" not in told
