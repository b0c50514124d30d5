"""Trainings that processes share, or whose state lies in main memory, against plain ones.

Processes take seconds to start: two make all comparisons of `tests.sharing`, and one story of a
command that is killed, asked to leave and started again makes all files.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import distributed

from factrecall.cli import main
from factrecall.runtime import signals
from factrecall.runtime.errors import FactRecallError
from factrecall.runtime.lease import HELD, Lease
from factrecall.runtime.signals import Interrupted
from factrecall.runtime.storage import read_table, write_text
from factrecall.training import launcher as launching
from factrecall.training.batches import Example
from factrecall.training.execution import Execution
from factrecall.training.fully_sharded import deal
from factrecall.training.launcher import strategy_of
from factrecall.training.training_log import HISTORY
from tests.conftest import ARCHITECTURES, Workspace
from tests.sharing import CASES, compare

PATIENCE = 240.0
"""Seconds until a process that does not do what it should fails its test: other tests may run."""


@pytest.fixture
def alone() -> Iterator[None]:
    """The group of one process ends with the test."""
    yield
    if distributed.is_initialized():
        distributed.destroy_process_group()


# --- numbers ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, float]]:
    out = tmp_path_factory.mktemp("sharing") / "found.json"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*command, "-m", "tests.sharing", str(out)],
        cwd=Path(__file__).parents[2],
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    result: dict[str, dict[str, float]] = json.loads(out.read_text())
    return result


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("case", CASES)
def test_two_processes_train_and_trace_as_one_does(
    found: dict[str, dict[str, float]], architecture: str, case: str
) -> None:
    differs = found[f"{architecture}, {case}"]
    # Float64: only the order of additions differs, which AdamW's division by the root of small
    # squares enlarges; 2e-13 was measured. An idle process or a wrong average changes digits
    # before the third.
    assert differs["history"] < 1e-11
    assert differs["weights"] < 1e-10
    assert differs["sums"] < 1e-10
    # Scores that are equal to a float32 may change places at the end of a ranking.
    assert differs["ranked"] > 0.99
    assert differs["equal"]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_offloaded_training_is_the_plain_one(architecture: str, alone: None) -> None:
    # Of one process nothing is split; only where additions begin may differ, in rows.
    differs = compare(architecture, "rows, offloaded", processes=1)
    assert max(differs[name] for name in ("history", "weights", "sums")) < 1e-10
    assert differs["ranked"] > 0.99 and differs["equal"]


def test_examples_are_dealt_out_whole_and_evenly() -> None:
    lengths = np.random.default_rng(0).integers(5, 100, size=37)
    batch = [
        Example(np.zeros(n, np.int64), np.zeros(n, np.int64), "qa", i)
        for i, n in enumerate(lengths)
    ]
    for count in (1, 2, 3, 8, 50):
        shares = deal(batch, count)
        assert sorted(e.individual for share in shares for e in share) == list(range(37))
        loads = [sum(len(e.tokens) for e in share) for share in shares]
        assert max(loads) - min(loads) <= max(lengths)
    assert deal(batch, 3) == deal(batch, 3)


def test_processes_have_to_be_as_many_as_the_mode_says() -> None:
    with pytest.raises(FactRecallError, match=r"gpus = 3\n.*1 process"):
        strategy_of(Execution(gpus=3), torch.device("cpu"))


def test_one_of_several_processes_is_not_taken_for_the_only_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(FactRecallError, match=r"gpus = 1\n.*4 process"):
        strategy_of(Execution(), torch.device("cpu"))


def test_more_gpus_than_there_are_is_told_before_anything_starts() -> None:
    with pytest.raises(FactRecallError, match=r"gpus = 512\n.*CUDA device"):
        launching.launch([], 512, torch.device("cuda"))


# --- the command ------------------------------------------------------------------------------


def study_of(space: Workspace, name: str, **mode: object) -> Path:
    """Write the workspace's study with a mode and states that are saved at once."""
    study = yaml.safe_load(space.study.read_text(encoding="utf-8"))
    study["training"]["mode"] = mode
    study["training"]["mix"]["updates"] = 12
    study["compute"]["checkpoint_interval_s"] = 0.01
    path = space.folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(study), encoding="utf-8")
    return path


def tuning(space: Workspace, study: Path, out: str, **changes: str) -> list[str]:
    """Return the command line of a fine-tuning into a folder."""
    names = {"model": "out", "history.parquet": "history", "trace.safetensors": "trace"}
    places = {option: f"{out}/{file}" for file, option in names.items()}
    places["snapshots"] = " ".join(f"{out}/{i}of2.safetensors" for i in (1, 2))
    line = space.command("fine-tune", **places | {"state": f"state-{out}"} | changes)
    line[line.index("--study") + 1] = str(study)
    return line


def start(line: list[str], **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "factrecall", *line],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | variables,
    )


def end(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, told = process.communicate(timeout=PATIENCE)
    return process.returncode, told


def processes_of(launcher: subprocess.Popen[str]) -> list[int]:
    """Return the processes that a command has started, the first one first."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
            variables = (folder / "environ").read_bytes().decode().split("\0")
        except OSError:
            continue
        rank = [v.removeprefix("RANK=") for v in variables if v.startswith("RANK=")]
        if parent == launcher.pid and rank:
            found[int(rank[0])] = int(folder.name)
    return [found[rank] for rank in sorted(found)]


def wait(true: Callable[[], object], process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + PATIENCE
    while not true():
        assert process.poll() is None and time.monotonic() < until, end(process)[1][-4000:]
        time.sleep(0.02)


@dataclass(frozen=True)
class Story:
    """What a command left when it was undisturbed, and when it was not."""

    undisturbed: Path
    disturbed: Path
    plain: Path
    killed: tuple[int, str]
    asked: tuple[int, str]
    resumed: tuple[int, str]
    diverged: tuple[int, str]
    left: list[str]


@pytest.fixture(scope="module")
def story(finished_workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Story:
    folder = tmp_path_factory.mktemp("story") / "workspace"
    shutil.copytree(finished_workspace, folder)
    space = Workspace(folder)
    study = study_of(space, "two", gpus=2)
    broken = folder / "broken"
    shutil.copytree(folder / "base", broken)
    weights = load_file(broken / "model.safetensors")
    next(iter(weights.values())).fill_(float("nan"))
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    failing = start(tuning(space, study, "diverged", start="broken"))
    undisturbed = start(tuning(space, study, "undisturbed"))

    line, state = tuning(space, study, "disturbed"), folder / "state-disturbed"
    process = start(line)
    wait(lambda: len(processes_of(process)) == 2 and list(state.glob("[!.]*")), process)
    os.kill(processes_of(process)[1], signal.SIGKILL)
    killed = end(process)
    saved = max(path.stat().st_mtime_ns for path in state.iterdir())
    process = start(line)
    wait(lambda: max(p.stat().st_mtime_ns for p in state.glob("[!.]*")) > saved, process)
    process.terminate()
    asked = end(process)
    resumed = end(start(line))
    assert main(tuning(space, study_of(space, "plain"), "plain")) == 0
    assert end(undisturbed)[0] == 0
    return Story(
        folder / "undisturbed",
        folder / "disturbed",
        folder / "plain",
        killed,
        asked,
        resumed,
        end(failing),
        [str(p) for p in folder.rglob("*") if p.name.endswith(".tmp")]
        + [*map(str, state.iterdir())],
    )


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_disturbed_run_ends_with_the_bytes_of_an_undisturbed_one(story: Story) -> None:
    expected, found = files_of(story.undisturbed), files_of(story.disturbed)
    assert len(expected) == 9 and found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []


def test_nothing_is_left_behind(story: Story) -> None:
    assert story.left == []


def test_files_are_those_of_a_plain_run(story: Story) -> None:
    shared, plain = files_of(story.undisturbed), files_of(story.plain)
    assert shared.keys() == plain.keys()
    for name in shared:
        if name.startswith("model/") and not name.endswith(".safetensors"):
            assert shared[name] == plain[name], name
    for name in ("model/model.safetensors", "1of2.safetensors", "2of2.safetensors"):
        ours, theirs = load_file(story.undisturbed / name), load_file(story.plain / name)
        assert list(ours) == list(theirs)
        for key in ours:
            # Float32. AdamW makes steps of up to a learning rate (3e-3) of gradients near nought,
            # which are rounding themselves.
            torch.testing.assert_close(ours[key], theirs[key], rtol=0, atol=1e-4)
    history, expected = (
        read_table(folder / "history.parquet", HISTORY)
        for folder in (story.undisturbed, story.plain)
    )
    for column in HISTORY:
        np.testing.assert_allclose(history[column], expected[column], rtol=1e-5, err_msg=column)


def test_a_killed_process_ends_the_command_with_one_message(story: Story) -> None:
    code, told = story.killed
    assert code == 2 and "process 1 of 2" in told and "SIGKILL" in told
    assert "Traceback" not in told and told.count("why:") == 1


def test_a_wish_to_leave_is_followed_by_all(story: Story) -> None:
    code, told = story.asked
    assert code == 128 + signal.SIGTERM
    assert told.count("factrecall: interrupted (SIGTERM); run again to resume") == 1
    assert "Traceback" not in told


def test_a_run_goes_on_from_its_state_and_says_so_once(story: Story) -> None:
    code, told = story.resumed
    assert code == 0 and told.count("resuming from the saved state") == 1
    assert len(re.findall(r"^runs on ", told, re.MULTILINE)) == 1
    assert len(re.findall(r"12/12 updates", told)) == 1


def test_divergence_is_told_once(story: Story) -> None:
    code, told = story.diverged
    assert code == 2 and "Traceback" not in told
    assert told.count("training diverged at update 0") == 1


def test_offloaded_command_gives_the_bytes_of_a_plain_one(
    workspace: Workspace, alone: None
) -> None:
    # On a CPU the weights lie where they did, and one process adds in the same order.
    assert main(tuning(workspace, study_of(workspace, "plain"), "plain")) == 0
    study = study_of(workspace, "cpu_offload", optimiser="cpu_offload")
    assert main(tuning(workspace, study, "cpu_offload")) == 0
    plain, found = (files_of(workspace.folder / name) for name in ("plain", "cpu_offload"))
    assert found["model/model.safetensors"] == plain["model/model.safetensors"]
    assert not distributed.is_initialized()


# --- what holds the processes together ---------------------------------------------------------


def test_the_processes_of_a_command_have_its_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Lease(tmp_path / "claims", tmp_path / "out", "1"):
        beat = Path(os.environ[HELD])
        assert beat.exists()
    assert HELD not in os.environ and not beat.exists()
    monkeypatch.setenv(HELD, str(beat))  # as a process sees it whose command was declared dead
    with pytest.raises(Interrupted) as left:
        write_text(tmp_path / "out", "late")
    assert left.value.code == signals.TAKEN_OVER and not (tmp_path / "out").exists()


def test_short_blocks_are_not_disturbed() -> None:
    with signals.handle_signals(), pytest.raises(Interrupted):
        with signals.shield():
            signal.raise_signal(signal.SIGTERM)
            done = True
        assert done
        pytest.fail("it was asked to leave")
    with signals.handle_signals(), signals.shield():
        signal.raise_signal(signal.SIGUSR1)  # goes on outside of blocks, too
