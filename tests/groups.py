"""Run all checks and tests: lint, unit, workflow and SLURM tests side by side.

``python -m tests.groups`` starts every group at once, prints what each said when it ends, and last
how long each took. Tests of the cluster mostly wait, so that groups of which each alone would
leave cores idle fill them together; unit tests give way to the others, which have longer chains.
``python -m tests.groups unit workflow`` runs some of them. Exit code 1 if any fails.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOGS = ROOT / ".pytest_cache" / "groups"
PYTEST = (sys.executable, "-m", "pytest", "--durations=30", "-p", "no:cacheprovider")
PARALLEL = ("--numprocesses", "logical", "--maxprocesses", "8", "--dist", "loadfile")

GROUPS: dict[str, tuple[str, ...]] = {
    "slurm": (*PYTEST, "tests/slurm"),
    "workflow": (*PYTEST, "tests/workflow"),
    "check": ("make", "check"),
    "unit": (*PYTEST, *PARALLEL, "tests/unit"),
}
"""Commands, that with the longest chain first. Tests of GPUs and benchmarks have their own."""

GIVES_WAY = "unit"
"""The group that leaves the processor to the others, whose chains are longer."""


def give_way() -> None:
    """Lower this process's priority, and that of its session.

    Linux shares the processor between sessions first, and between their processes only then
    (autogroups). The others' jobs are sessions of their own, so that `nice` alone would be in vain.
    """
    os.nice(5)
    os.setsid()
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text("5")


@dataclass
class Group:
    """A group that runs; what it says is in a file."""

    name: str
    begin: float = field(default_factory=time.monotonic)
    seconds: float = 0.0

    def __post_init__(self) -> None:
        LOGS.mkdir(parents=True, exist_ok=True)
        self.log = LOGS / f"{self.name}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                GROUPS[self.name],
                cwd=ROOT,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=give_way if self.name == GIVES_WAY else None,
            )

    def ended(self) -> bool:
        """Say whether it has ended, and print what it said if it has."""
        if self.process.poll() is None:
            return False
        self.seconds = time.monotonic() - self.begin
        print(f"===== {self.name} ".ljust(100, "="), self.log.read_text(), sep="\n")
        return True


def main(names: list[str]) -> int:
    """Run groups side by side; return 1 if one fails."""
    if unknown := set(names) - set(GROUPS):
        sys.exit(f"there is no group {', '.join(unknown)}; there are {', '.join(GROUPS)}")
    # A shell starts commands in the background deaf to Ctrl-C, which tests send.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    groups = [Group(name) for name in names or GROUPS]
    running = list(groups)
    try:
        while running:
            time.sleep(0.5)
            running = [group for group in running if not group.ended()]
            sys.stdout.flush()
    except KeyboardInterrupt:
        # Ctrl-C reaches the processes of this session alone.
        for group in running:
            group.process.send_signal(signal.SIGINT)
        raise
    spent = os.times()
    for group in groups:
        verdict = "passed" if group.process.returncode == 0 else "FAILED"
        print(f"{group.name:<10}{verdict:<8}{group.seconds:7.0f} s")
    print(f"processor time {spent.children_user + spent.children_system:.0f} s")
    return int(any(group.process.returncode for group in groups))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
