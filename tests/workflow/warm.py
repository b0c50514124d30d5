"""Commands in forks of a process that has the workflow's libraries imported.

``python -m tests.workflow.warm`` reads one command a line from its standard input, forks a process
for it and writes its exit code. Nothing of the package is imported before the fork, so that a
command runs the sources of its own folder.
"""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from functools import cache
from importlib import import_module
from pathlib import Path

LIBRARIES = ("snakemake.cli", "pandas", "pyarrow.parquet", "pydantic", "yaml")
ROOT = Path(__file__).parents[2]


class Warm:
    """The process that forks, seen from a test."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.workflow.warm"],
            cwd=ROOT,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def run(self, folder: Path, log: Path, module: str, *arguments: str) -> int:
        """Run a module as ``python -m`` does; return its exit code. What it says is in `log`."""
        assert self._process.stdin is not None and self._process.stdout is not None
        command = [str(folder), str(log), dict(os.environ), module, *arguments]
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


@cache
def warm() -> Warm:
    """Return the one process; it ends with this one, as its standard input does."""
    return Warm()


def _be(folder: str, log: str, environment: dict[str, str], module: str, *arguments: str) -> None:
    """Become the command, in a fork."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, file in ((0, nothing), (1, output), (2, output)):
        os.dup2(file, number)
    sys.argv = [module, *arguments]
    sys.path[0] = folder
    code: object = 0
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as error:
        code = error.code
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 1
    if isinstance(code, str):
        print(code, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


def main() -> None:
    """Fork for each command until there are no more."""
    for name in LIBRARIES:
        import_module(name)
    assert not [name for name in sys.modules if name.split(".")[0] == "factrecall"]
    for line in sys.stdin:
        if (child := os.fork()) == 0:
            _be(*json.loads(line))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
