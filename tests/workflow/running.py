"""Running the workflow in a copy of the sources."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

import yaml

from tests.workflow.warm import warm

REPOSITORY = Path(__file__).parents[2]
PRESET = "workflow/presets/ci.yaml"


def copy_sources(folder: Path) -> Path:
    """Copy all that the workflow needs into a new folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("src", "workflow", "envs", "slurm"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / name, folder / name, ignore=ignored)
    for name in ("Snakefile", "config.yaml"):
        shutil.copy(REPOSITORY / name, folder)
    return folder


def snakemake(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Snakemake in a folder; all it says comes back as standard output."""
    return run_module(folder, "snakemake", *arguments)


def run_module(folder: Path, module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a module in a folder as ``python -m`` does, with its libraries already imported."""
    with tempfile.NamedTemporaryFile("r", suffix=".log") as log:
        code = warm().run(folder, Path(log.name), module, *arguments)
        return subprocess.CompletedProcess([module, *arguments], code, log.read())


def planned(checkout: Path, change: Mapping[str, object] | None = None) -> dict[str, int]:
    """Return the jobs a dry run plans after a change of the configuration, by rule."""
    files = [PRESET]
    if change is not None:
        (checkout / "change.yaml").write_text(yaml.safe_dump(change))
        files.append("change.yaml")
    done = snakemake(checkout, "--dry-run", "--configfile", *files)
    assert done.returncode == 0, done.stdout[-4000:]
    if "Nothing to be done" in done.stdout:
        return {}
    stats = done.stdout.split("Job stats:")[1].split("\n\n")[0]
    jobs = {name: int(count) for name, count in re.findall(r"^(\w+) +(\d+)$", stats, re.M)}
    return {name: count for name, count in jobs.items() if name not in ("all", "total")}
