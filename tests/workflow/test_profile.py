"""`snakemake --profile slurm` is the paper's study, and another one if it is named."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.workflow.running import PRESET, copy_sources, snakemake


@pytest.mark.parametrize(
    ("arguments", "there", "not_there"),
    [
        ((), {"fetch_model": 2, "fine_tune": 18}, "pretrain"),
        (("--configfile", PRESET), {"pretrain": 2, "fine_tune": 12}, "fetch_model"),
    ],
    ids=["the paper", "another"],
)
def test_it_plans(
    tmp_path: Path, arguments: tuple[str, ...], there: dict[str, int], not_there: str
) -> None:
    folder = copy_sources(tmp_path / "checkout")
    done = snakemake(folder, "--profile", "slurm", "--dry-run", *arguments)
    assert done.returncode == 0, done.stdout[-3000:]
    jobs = {rule: int(n) for rule, n in re.findall(r"^(\w+) +(\d+)$", done.stdout, re.M)}
    assert there.items() <= jobs.items() and not_there not in jobs
