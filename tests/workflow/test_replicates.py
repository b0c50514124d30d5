"""Jobs of a replicate read its own facts and its own θpre."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from tests.workflow.running import PRESET, copy_sources, snakemake

OWN = re.compile(r"results/own/(?:facts|models/[^/ ]+/base)/seed(\d+)")


def test_each_job_reads_what_its_replicate_has_made(tmp_path: Path) -> None:
    folder = copy_sources(tmp_path / "study")
    change = {"name": "own", "seed": 5, "replicates": 2, "training": {"seeds": [0, 3]}}
    (folder / "own.yaml").write_text(yaml.safe_dump(change))
    done = snakemake(folder, "--dry-run", "--configfile", PRESET, "own.yaml")
    assert done.returncode == 0, done.stdout[-4000:]
    found: dict[str, set[tuple[str, str]]] = {}
    for rule, inputs, wildcards in re.findall(
        r"^(?:local)?rule (\w+):\n    input: (.*)\n(?:    .*\n)*?    wildcards: (.*)$",
        done.stdout, re.M,
    ):  # fmt: skip
        seed = re.search(r"seed=(\d+)", wildcards)
        pairs = {(seed[1] if seed else "", read) for read in OWN.findall(inputs)}
        found.setdefault(rule, set()).update(pairs)
    runs = {("0", "5"), ("3", "5"), ("1000", "1005"), ("1003", "1005")}
    for rule in ("fine_tune", "capture", "ablate", "graft", "graft_without_shared", "intervene",
                 "transplant_shared", "gradient_similarity"):  # fmt: skip
        assert found[rule] == runs, rule
    bases = {("5", "5"), ("1005", "1005")}
    assert found["recall"] == runs | bases and found["pretrain"] == bases
    assert found["attention_case_study"] == {("", "5")}
