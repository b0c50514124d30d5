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

from tests.slurm.cluster import PLACE, Cluster, missing
from tests.workflow.running import PRESET, REPOSITORY, copy_sources

REQUIRED = "FACTRECALL_REQUIRE_SLURM"
"""Set where SLURM must be there: these tests then fail where they would be skipped."""


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    if why := missing():
        if os.environ.get(REQUIRED):
            pytest.fail(f"{why}, but {REQUIRED} is set")
        pytest.skip(why)
    base = Path(tempfile.mkdtemp(prefix=Path(PLACE).name, dir=Path(PLACE).parent))
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
    return copy_sources(tmp_path_factory.mktemp("cluster") / "checkout")


def write_study(checkout: Path, name: str) -> Path:
    """Write the ci study cut down to one model, seed and kind of nodes; return its file."""
    study: dict[str, Any] = yaml.safe_load((REPOSITORY / PRESET).read_text(encoding="utf-8"))
    study["name"] = name
    study["models"] = {"llama-tiny": study["models"]["llama-tiny"]}
    study["training"]["seeds"] = [0]
    study["training"]["mix"]["updates"] = 400  # long enough to be caught in the middle
    study["circuits"]["unit"] = None
    study["grafting"]["alphas"] = [0.2]
    study["compute"]["checkpoint_interval_s"] = 5.0
    path = checkout / f"{name}.yaml"
    path.write_text(yaml.safe_dump(study), encoding="utf-8")
    return path
