"""Things that go wrong while a study runs on a cluster, and who watches."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.slurm.cluster import PATIENCE, Cluster, wait_until


@dataclass(frozen=True)
class Job:
    """A process of the package that runs in a job of the cluster."""

    pid: int
    number: str

    @property
    def alive(self) -> bool:
        return _command(self.pid) != []


@dataclass
class Study:
    """A study that runs on the cluster, in a Snakemake of its own."""

    checkout: Path
    file: Path
    targets: tuple[str, ...] = ()
    told: list[str] = field(default_factory=list)
    snakemake: subprocess.Popen[str] | None = None

    @property
    def name(self) -> str:
        return self.file.stem

    @property
    def results(self) -> Path:
        return self.checkout / "results" / self.name

    @property
    def log(self) -> Path:
        return self.checkout / f"{self.name}.log"

    def start(self, *options: str) -> subprocess.Popen[str]:
        """Start Snakemake as a user does, with shorter waits for so short jobs."""
        waits = ("--slurm-init-seconds-before-status-checks", "5", "--latency-wait", "20")
        few = ("--jobs", "3", "--local-cores", "1")
        self.snakemake = self._run("--profile", "slurm", *few, *waits, *options)
        return self.snakemake

    def unlock(self) -> None:
        assert self._run("--unlock").wait(PATIENCE) == 0, self.log.read_text()[-2000:]

    def end(self) -> int:
        """Wait for Snakemake to end; return its exit code."""
        assert self.snakemake is not None
        return self.snakemake.wait(PATIENCE)

    def job(self, *words: str) -> Job:
        """Wait for a process with these words on its command line."""
        found: list[Job] = []

        def look() -> bool:
            found.extend(self.jobs(*words))
            return bool(found)

        wait_until(look, f"{self.name}: no job with {' '.join(words)} ever ran")
        return found[0]

    def jobs(self, *words: str) -> Iterator[Job]:
        """Yield the processes that run now with these words on their command lines."""
        study = f"results/{self.name}/studies/"
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit():
                continue
            command = _command(int(folder.name))
            if command[1:3] != ["-m", "factrecall"] or not any(study in w for w in command):
                continue
            if all(word in command for word in words):
                number = _environment(int(folder.name)).get("SLURM_JOB_ID")
                if number:
                    yield Job(int(folder.name), number)

    def beats(self) -> list[dict[str, Any]]:
        """Return the beats of all leases that are held or waited for now."""
        found = []
        for path in (self.results / "claims").glob("*.beat"):
            with suppress(OSError, ValueError):  # gone, or just being written
                found.append({"key": path.name.split(".")[0], **json.loads(path.read_text())})
        return found

    def say(self, what: str) -> None:
        self.told.append(what)

    def _run(self, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "snakemake", *self.targets]
        command += ["--configfile", str(self.file), *arguments]
        with self.log.open("a") as log:
            return subprocess.Popen(
                command, cwd=self.checkout, text=True, stdout=log, stderr=subprocess.STDOUT
            )


class Watch:
    """Looks again and again whether two jobs may write the same outputs."""

    def __init__(self, studies: list[Study]) -> None:
        self.looks, self.shared = 0, list[str]()
        self._studies, self._stop = studies, threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stop.wait(0.2):
            for study in self._studies:
                holders: dict[str, list[int]] = {}
                for beat in study.beats():
                    if beat["holds"] and _command(beat["pid"]):
                        holders.setdefault(beat["key"], []).append(beat["pid"])
                self.looks += bool(holders)
                self.shared += [f"{key}: {p}" for key, p in holders.items() if len(p) > 1]


@contextmanager
def side_by_side(*tasks: Callable[[], None]) -> Iterator[None]:
    """Run tasks in threads beside a block, wait for them, and fail with them."""
    errors: list[BaseException] = []

    def guarded(task: Callable[[], None]) -> None:
        try:
            task()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(task,), daemon=True) for task in tasks]
    for thread in threads:
        thread.start()
    yield
    for thread in threads:
        thread.join(2 * PATIENCE)
    if errors:
        raise errors[0]


# --- what goes wrong ------------------------------------------------------------------------------


def fail_once(study: Study) -> None:
    """Kill the process of an evaluation, as a defect or a full memory would."""
    job = study.job("recall")
    os.kill(job.pid, signal.SIGKILL)
    study.say(f"failed {job.number}")


def cancel(study: Study) -> None:
    """Cancel a job behind Snakemake's back."""
    job = study.job("graft", "in")
    subprocess.run(["scancel", job.number], check=True)
    study.say(f"cancelled {job.number}")


def preempt(study: Study) -> None:
    """Tell a job that it has to leave soon, as SLURM does before a time limit."""
    job = study.job("fine-tune", "bio")
    begun = lambda: any(b["holds"] and b["pid"] == job.pid for b in study.beats())  # noqa: E731
    wait_until(begun, "the training does not begin")
    subprocess.run(["scancel", "--signal=USR1", job.number], check=True)
    wait_until(lambda: not job.alive, "it does not leave")
    study.say(f"preempted {job.number}")


def pass_limit(study: Study) -> None:
    """Let a fine-tuning stand still in its middle until its time limit is over."""
    job = study.job("fine-tune", "mix")
    # It tells of its updates less often than it keeps its state.
    log = study.results / "logs/fine_tune/llama-tiny/mix-seed0.log"
    wait_until(lambda: log.exists() and "updates" in log.read_text(), "no update")
    os.kill(job.pid, signal.SIGSTOP)
    subprocess.run(["scontrol", "update", f"JobId={job.number}", "TimeLimit=1"], check=True)
    wait_until(lambda: not job.alive, "the time limit ended nothing")
    study.say(f"limited {job.number}")


def lose_node(study: Study, cluster: Cluster) -> None:
    """Take a node's power away under a job, and give it back later."""
    job = study.job("ablate")
    node = cluster.jobs()[job.number]
    cluster.crash(node)
    study.say(f"crashed {job.number}")
    time.sleep(30)
    cluster.start_node(node)


def lose_controller(study: Study, cluster: Cluster) -> None:
    """Take the controller away for half a minute."""
    study.job("intervene")
    cluster.stop_controller()
    time.sleep(30)
    cluster.start_controller()
    study.say("controller away")


def interrupt(study: Study) -> None:
    """Press Ctrl-C in a training, and start again."""
    study.job("fine-tune", "mix")
    assert study.snakemake is not None
    study.snakemake.send_signal(signal.SIGINT)
    assert study.end() != 0
    wait_until(lambda: not list(study.jobs()), "SIGINT left jobs behind")
    study.say("interrupted")
    study.start()


def terminate(study: Study) -> None:
    """Send SIGTERM: what runs may end, nothing new begins; start again."""
    study.job("ablate")
    assert study.snakemake is not None
    study.snakemake.send_signal(signal.SIGTERM)
    assert study.end() != 0
    assert not list(study.jobs())
    study.say("terminated")
    study.start()


def kill(study: Study) -> None:
    """Kill Snakemake, unlock and start again while a job of the first start lives on.

    The job stands still until its successor is there, and then wants to go on.
    """
    orphan = study.job("--split", "out")  # a grafting with or without S: either may come first
    os.kill(orphan.pid, signal.SIGSTOP)
    assert study.snakemake is not None
    study.snakemake.kill()
    study.end()
    study.unlock()
    study.start()
    out = _option(orphan.pid, "--out")
    wait_until(
        lambda: any(job.pid != orphan.pid for job in study.jobs(out)),
        "the job of the killed start has no successor",
    )
    time.sleep(5)
    assert [job for job in study.jobs(out) if job.pid != orphan.pid], "it did not wait"
    os.kill(orphan.pid, signal.SIGCONT)
    wait_until(lambda: not orphan.alive, "the job of the killed start did not leave")
    study.say(f"orphaned {orphan.number}")


def _command(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")[:-1]
    except (OSError, UnicodeDecodeError):
        return []


def _option(pid: int, name: str) -> str:
    command = _command(pid)
    return command[command.index(name) + 1]


def _environment(pid: int) -> dict[str, str]:
    try:
        entries = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    except (OSError, UnicodeDecodeError):
        return {}
    return dict(entry.split("=", 1) for entry in entries if "=" in entry)
