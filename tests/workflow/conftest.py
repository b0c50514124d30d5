"""A finished ci study, which the tests of the workflow share."""

from __future__ import annotations

from pathlib import Path

import pytest

from factrecall.config.reading import read_study
from factrecall.config.study import Study
from tests.workflow.running import PRESET, REPOSITORY, copy_sources, snakemake


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources with the ci study finished."""
    folder = copy_sources(tmp_path_factory.mktemp("checkout") / "study")
    done = snakemake(folder, "--cores", "2", "--configfile", PRESET)
    assert done.returncode == 0, done.stdout[-4000:]
    return folder


@pytest.fixture(scope="session")
def results(checkout: Path) -> Path:
    return checkout / "results" / "ci"


@pytest.fixture(scope="session")
def study() -> Study:
    return read_study(REPOSITORY / PRESET)
