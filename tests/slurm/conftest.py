"""A checkout with a small study of one model, and the cluster it runs on."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.slurm.cluster import Cluster, missing

REPOSITORY = Path(__file__).parents[2]
REQUIRED = "FACTRECALL_REQUIRE_SLURM"
"""Set where SLURM must be there: these tests then fail where they would be skipped."""


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    if why := missing():
        if os.environ.get(REQUIRED):
            pytest.fail(f"{why}, but {REQUIRED} is set")
        pytest.skip(why)
    base = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))  # a socket's name must be short
    started = Cluster(base)
    try:
        started.start()
        yield started
    finally:
        started.stop()
        shutil.rmtree(base, ignore_errors=True)


@pytest.fixture(scope="session")
def checkout(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources; the cluster comes first, so that nothing is copied in vain."""
    folder = tmp_path_factory.mktemp("cluster") / "checkout"
    folder.mkdir()
    for name in ("src", "workflow", "envs", "slurm"):
        shutil.copytree(
            REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    for name in ("Snakefile", "config.yaml"):
        shutil.copy(REPOSITORY / name, folder)
    return folder


def write_study(checkout: Path, name: str) -> Path:
    """Write the ci study cut down to one model, seed and kind of nodes; return its file."""
    preset = REPOSITORY / "workflow/presets/ci.yaml"
    study: dict[str, Any] = yaml.safe_load(preset.read_text(encoding="utf-8"))
    study["name"] = name
    study["models"] = {"llama-tiny": study["models"]["llama-tiny"]}
    study["training"]["seeds"] = [0]
    study["training"]["mix"]["updates"] = 400  # long enough to be caught in the middle
    study["circuits"]["unit"] = None
    study["grafting"]["alphas"] = [0.2]
    study["compute"]["save_seconds"] = 5.0
    path = checkout / f"{name}.yaml"
    path.write_text(yaml.safe_dump(study), encoding="utf-8")
    return path
