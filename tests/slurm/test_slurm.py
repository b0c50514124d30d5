"""`snakemake --profile slurm` on a real cluster, through every fault, with the same bytes.

One study goes through the faults of a cluster while another, started beside it in the same
checkout, has its Snakemake interrupted, terminated and killed; it ends with its tables of ablation
and grafting. Both must have the bytes of a third that runs here, without a cluster and undisturbed.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.slurm import faults
from tests.slurm.cluster import PATIENCE, Cluster
from tests.slurm.conftest import write_study

GPU_RULES = (
    *("pretrain", "fine_tune", "recall", "ablate", "transplant_shared", "graft", "intervene"),
    *("attention_case_study", "capture", "probe", "gradient_similarity"),
)
GPU_RULES_KILLED = ("pretrain", "fine_tune", "ablate", "graft")
VOLATILE = ("logs", "benchmarks", "claims", "studies", "figures")


@dataclass(frozen=True)
class Story:
    """What happened to both studies."""

    cluster_faults: faults.Study
    killed: faults.Study
    codes: tuple[int, ...]
    watch: faults.Watch


@pytest.fixture(scope="session")
def begun(cluster: Cluster, checkout: Path) -> subprocess.Popen[bytes]:
    """The undisturbed study; it runs while the others wait for the cluster."""
    study = write_study(checkout, "quiet")
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--configfile", str(study)]
    with (checkout / "quiet.log").open("wb") as log:
        return subprocess.Popen(command, cwd=checkout, stdout=log, stderr=subprocess.STDOUT)


@pytest.fixture(scope="session")
def undisturbed(begun: subprocess.Popen[bytes], checkout: Path) -> Path:
    assert begun.wait(PATIENCE) == 0, (checkout / "quiet.log").read_text()[-4000:]
    return checkout / "results/quiet"


@pytest.fixture(scope="session")
def story(cluster: Cluster, checkout: Path, begun: subprocess.Popen[bytes]) -> Iterator[Story]:
    hit = faults.Study(checkout, write_study(checkout, "hit"))
    tables = tuple(f"results/killed/tables/{name}.parquet" for name in ("ablation", "grafting"))
    killed = faults.Study(checkout, write_study(checkout, "killed"), tables)
    with faults.Watch([hit, killed]) as watch:
        hit.start()
        killed.start()
        with faults.side_by_side(
            lambda: faults.preempt(hit),
            lambda: faults.pass_limit(hit),
            lambda: faults.fail_once(hit),
            lambda: faults.cancel(hit),
            lambda: faults.lose_node(hit, cluster),
            lambda: faults.lose_controller(hit, cluster),
            lambda: [f(killed) for f in (faults.interrupt, faults.terminate, faults.kill)],
        ):
            pass
        codes = tuple(study.end() for study in (hit, killed))
    yield Story(hit, killed, codes, watch)


def results_of(folder: Path) -> dict[str, bytes]:
    """Return all files that must not depend on how a study was run; figures by their data."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.suffix in (".parquet", ".safetensors", ".json")
        and path.relative_to(folder).parts[0] not in VOLATILE
    }


def test_both_studies_complete(story: Story) -> None:
    for study, code in zip((story.cluster_faults, story.killed), story.codes, strict=True):
        assert code == 0, study.log.read_text()[-6000:]
    assert (story.cluster_faults.results / "report.html").stat().st_size > 10_000


@pytest.mark.parametrize("which", ["cluster_faults", "killed"])
def test_all_files_have_the_bytes_of_an_undisturbed_run(
    story: Story, undisturbed: Path, which: str
) -> None:
    expected, found = results_of(undisturbed), results_of(getattr(story, which).results)
    assert len(found) > 40
    assert found.keys() <= expected.keys()
    assert found.keys() == expected.keys() or which == "killed"
    assert [name for name in found if found[name] != expected[name]] == []


@pytest.mark.parametrize("fault", ["preempted", "failed", "cancelled", "limited", "crashed"])
def test_a_job_that_ended_badly_was_submitted_again(story: Story, fault: str) -> None:
    study = story.cluster_faults
    (number,) = [told.split()[1] for told in study.told if told.startswith(fault)]
    log = study.log.read_text()
    submitted = dict(re.findall(r"SLURM jobid (\d+) \(log: (\S+?)/\d+\.log\)", log))
    again = [other for other, place in submitted.items() if place == submitted[number]]
    assert int(max(again, key=int)) > int(number), f"job {number} was not submitted again"


def test_a_training_went_on_where_its_time_limit_had_stopped_it(story: Story) -> None:
    study = story.cluster_faults
    (number,) = [told.split()[1] for told in study.told if told.startswith("limited")]
    # Another fault may hit a later attempt, when the state is used up: any of them will do. Of
    # those that failed SLURM's log is kept, of the one that did not its own.
    place = r"jobid (\d+) \(log: (\S+rule_fine_tune/llama-tiny_mix_0/\d+\.log)"
    submitted = re.findall(place, study.log.read_text())
    later = [Path(log) for n, log in submitted if int(n) > int(number) and Path(log).exists()]
    later.append(study.results / "logs/fine_tune/llama-tiny/mix-seed0.log")
    assert any("resuming from the saved state" in log.read_text() for log in later)


def test_a_job_that_was_asked_to_leave_left_by_itself(story: Story) -> None:
    study = story.cluster_faults
    (number,) = [told.split()[1] for told in study.told if told.startswith("preempted")]
    (log,) = (story.cluster_faults.checkout / ".snakemake/slurm_logs").rglob(f"{number}.log")
    assert "factrecall: interrupted (SIGUSR1)" in log.read_text()


def test_the_controller_was_away(story: Story) -> None:
    assert "controller away" in story.cluster_faults.told


def test_snakemake_was_interrupted_terminated_and_killed(story: Story) -> None:
    assert [told.split()[0] for told in story.killed.told] == [
        "interrupted",
        "terminated",
        "orphaned",
    ]


def test_no_two_jobs_ever_held_the_same_outputs(story: Story) -> None:
    assert story.watch.looks > 50
    assert story.watch.shared == []


def test_nothing_is_left_behind(story: Story) -> None:
    for study in (story.cluster_faults, story.killed):
        assert not list((study.results / "state").iterdir())
        assert not list((study.results / "claims").glob("*.beat"))
        assert not [path for path in study.results.rglob("*") if path.name.endswith(".tmp")]


def test_each_gpu_rule_had_a_gpu_to_itself(story: Story) -> None:
    for study in (story.cluster_faults, story.killed):
        for rule in GPU_RULES if study is story.cluster_faults else GPU_RULES_KILLED:
            logs = sorted((study.results / "logs" / rule).rglob("*.log"))
            assert logs
            for log in logs:
                (told,) = re.findall(r"runs on .*", log.read_text())
                assert re.search(r"SLURM_JOB_ID=\d+, CUDA_VISIBLE_DEVICES=\d+,", told), (log, told)


def test_short_jobs_share_a_submission(story: Story) -> None:
    logs = list((story.cluster_faults.results / "logs/recall").rglob("*.log"))
    numbers = {re.findall(r"SLURM_JOB_ID=(\d+)", log.read_text())[0] for log in logs}
    assert len(logs) == 4 and len(numbers) == 1


def test_light_rules_stay_here(story: Story) -> None:
    log = story.cluster_faults.log.read_text()
    submitted = set(re.findall(r"slurm_logs/(?:rule|group)_(\w+?)/", log))
    assert submitted == {
        "pretrain",
        "fine_tune",
        "recall_recall",
        "shared_ablate_select_shared",
        "transplant_shared",
        "graft",
        "graft_without_shared",
        "intervene",
        "attention_case_study",
        "states_capture_probe",
        "gradient_similarity",
    }
