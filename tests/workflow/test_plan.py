"""The plan has the workflow's jobs, rule by rule."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from factrecall.config.reading import read_study
from factrecall.cost.jobs import jobs_of
from factrecall.runs import job_name
from factrecall.workflow.stages import STAGES
from tests.gguf_files import Source
from tests.workflow.running import PRESET, copy_sources, snakemake

CHANGES: dict[str, dict[str, Any]] = {
    PRESET: {},
    "workflow/presets/paper.yaml": {},
    "workflow/presets/gpu.yaml": {},
    "workflow/presets/smollm2.yaml": {"models": {"smollm2-135m": {"path": "model.gguf"}}},
    "config.yaml": {
        "seed": 3,
        "replicates": 2,
        "training": {"seeds": [4, 7]},
        "circuits": {"unit": {"forward": 8, "backward": 8}, "attention": None},
        "trace": {"checkpoints": 0},
    },
}
"""A preset and what is changed in it: several models, seeds, replicates, other kinds of nodes."""


@pytest.mark.parametrize("preset", CHANGES)
def test_a_plan_has_the_jobs_of_a_dry_run(
    preset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy_sources(tmp_path / "study")
    monkeypatch.chdir(folder)  # where paths of models start
    Source().write(folder / "model.gguf")
    own = folder / "own.yaml"
    own.write_text(yaml.safe_dump({"name": "planned", **CHANGES[preset]}))
    done = snakemake(folder, "--dry-run", "--configfile", preset, "own.yaml")
    assert done.returncode == 0, done.stdout[-4000:]
    stats = done.stdout.split("Job stats:")[1].split("\n\n")[0]
    jobs = {name: int(count) for name, count in re.findall(r"^(\w+) +(\d+)$", stats, re.M)}
    del jobs["all"], jobs["total"]
    study = read_study(folder / preset, own)
    assert Counter(STAGES[job.stage].rule for job in jobs_of(study)) == jobs
    benchmarks = set(re.findall(r"benchmark: results/planned/benchmarks/(.*)\.tsv", done.stdout))
    names = {job_name(stage.rule, run) for stage in STAGES.values() for run in stage.per(study)}
    assert names == benchmarks
