"""Why a job would run: what Snakemake 9.27 prints, taken apart."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from factrecall.cli import main
from factrecall.runtime.errors import FactRecallError
from factrecall.workflow.explain_rerun import (
    Cause,
    DryRunJob,
    account,
    cause,
    differences,
    failure,
    jobs,
)

LIBRARIES = "{'faker': '40.54.0', 'pandas': '3.1.1'}"
BEFORE = (
    f"{{'code': 'f3c624216a75fb88', 'libraries': {LIBRARIES}, 'settings': {{'seed': 0, "
    "'settings': {'people': 40, 'templates': None}}, 'stage': 'make-facts'}"
)
NOW = BEFORE.replace("40,", "20,")
PARAMETERS = (
    "Params have changed since last execution: Union of exclusive params before and now across "
    f"all output: before: {BEFORE} now: {NOW} "
)
OUTPUT = f"""Building DAG of jobs...
Job stats:
job           count
----------  -------
all               1
make_facts        1
pretrain          2
total             4


[Sat Nov 21 11:44:20 2026]
localrule make_facts:
    output: results/ci/facts/individuals.parquet, results/ci/facts/bio.parquet
    log: results/ci/logs/make_facts.log
    jobid: 0
    benchmark: results/ci/benchmarks/make_facts.tsv
    reason: {PARAMETERS}
    resources: tmpdir=/tmp, runtime=10, mem_mb=1000, mem=1 GB, mem_mib=954

[Sat Nov 21 11:44:20 2026]
rule pretrain:
    input: results/ci/facts/bio.parquet
    output: results/ci/models/a/base/seed0, results/ci/models/a/base/seed0.history.parquet
    jobid: 1
    reason: Missing output files: results/ci/models/a/base/seed0; Input files updated by another \
job: results/ci/facts/bio.parquet
    wildcards: model=a
    resources: tmpdir=/tmp, runtime=60
[Sat Nov 21 11:44:20 2026]
rule pretrain:
    input: results/ci/facts/bio.parquet
    output: results/ci/models/b/base/seed0, results/ci/models/b/base/seed0.history.parquet
    jobid: 2
    reason: Input files updated by another job: results/ci/facts/bio.parquet
    wildcards: model=b

[Sat Nov 21 11:44:20 2026]
rule all:
    input: results/ci/models/a/base/seed0, results/ci/models/b/base/seed0
    jobid: 3
    reason: Input files updated by another job: results/ci/models/a/base/seed0
    resources: tmpdir=/tmp
Job stats:
job           count
"""


def test_a_dry_run_is_told_from_its_first_jobs() -> None:
    found = list(jobs(OUTPUT))
    assert [job.rule for job in found] == ["make_facts", "pretrain", "pretrain"]
    assert account(found, "x.html").splitlines() == [
        "x.html: 3 jobs would run",
        "",
        "make_facts (1 job), because of",
        "  settings.settings.people: 40 → 20",
        "",
        "2 jobs would follow: pretrain 2",
    ]


def test_nothing_to_be_done_is_told() -> None:
    done = "Building DAG of jobs...\nNothing to be done (all requested files are present ...).\n"
    assert account(list(jobs(done)), "x") == "x: nothing would run, all is there and up to date"


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("Missing output files: a, b", Cause(files={"missing": ("a", "b")})),
        (
            "Missing output files: a; Updated input files: b",
            Cause(files={"missing": ("a",), "changed since": ("b",)}),
        ),
        (
            "Code has changed since last execution; Params have changed since last execution: "
            "Union of exclusive params before and now across all output: before: <nothing "
            "exclusive> now: 'unit'; Software environment definition has changed since last "
            "execution",
            Cause(
                (
                    "the shell command of all rules has changed",
                    "its environment file (envs/environment.yaml) has changed",
                    "a parameter: (nothing) → unit",
                )
            ),
        ),
        (
            "Params have changed since last execution: Union of exclusive params before and now "
            "across all output: before: {'settings': {'k': 1}}, 'x --out a' now: 'x --out b', "
            "{'settings': {'k': 2}} ",
            Cause(("settings.k: 1 → 2",)),
        ),
        (
            "Params have changed since last execution: Union of exclusive params before and now "
            "across all output: before: 'x --out a' now: 'x --out b' ",
            Cause(("its command line: other files or runs",)),
        ),
        ("Something new in Snakemake 10", Cause(("Something new in Snakemake 10",))),
        (
            "Params have changed since last execution: in another way than we know",
            Cause(("its parameters: in another way than we know",)),
        ),
    ],
)
def test_reasons_are_taken_apart(reason: str, expected: Cause) -> None:
    assert cause(reason) == expected


def test_words_of_the_user_do_not_confuse() -> None:
    trap = "a; Missing output files: x now: {'y'} Input files updated by another job"
    reason = PARAMETERS.replace("None", repr(trap))
    assert not DryRunJob("make_facts", reason).follows
    assert cause(reason) == Cause(("settings.settings.people: 40 → 20",))


def test_differences_name_code_libraries_and_keys() -> None:
    before = {
        "code": "a",
        "libraries": {"torch": "2.12"},
        "settings": {"k": 0.03, "old": 1, "list": [1, 2]},
        "stage": "s",
    }
    now = {
        "code": "b",
        "libraries": {"torch": "2.13"},
        "settings": {"k": 0.02, "new": "x" * 99, "list": [1]},
        "stage": "s",
    }
    assert list(differences(before, now)) == [
        "the code of s",
        "torch 2.12 → 2.13",
        "settings.k: 0.03 → 0.02",
        "settings.list: [1, 2] → [1]",
        f"settings.new: (nothing) → {'x' * 57}...",
        "settings.old: 1 → (nothing)",
    ]


def test_many_jobs_of_one_cause_are_told_together() -> None:
    missing = [DryRunJob("graft", f"Missing output files: f{i}") for i in range(5)]
    assert account(missing, "x").splitlines()[2:] == [
        "graft (5 jobs), because of",
        "  missing: f0, f1, f2 and 2 more",
    ]


def test_failures_are_one_message() -> None:
    own = FactRecallError("a", "b", "c")
    two = f"{own}\n{FactRecallError('d', 'e', 'f')}"
    assert str(failure(f"Assuming ...\nfactrecall: {two}\n")) == two
    missing = "Building DAG of jobs...\nMissingRuleException:\nNo rule to produce x y (if you use)"
    assert failure(missing).where == "x y"
    assert failure("Traceback\n\nFileNotFoundError: [Errno 2] 'n.yaml'\n").why == (
        "it fails: FileNotFoundError: [Errno 2] 'n.yaml'"
    )
    assert failure("").why == "it fails: it says nothing"


def test_a_study_file_that_is_none_is_told_before_snakemake_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.yaml").write_text("a: [1\n")
    for name in ("nothing.yaml", "broken.yaml"):
        assert main(["explain-rerun", "--configfile", str(tmp_path / name)]) == 2
        assert name in capsys.readouterr().err


def test_words_reach_snakemake_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a b", "c"):
        Path(name).write_text("name: x\n")
    seen: list[list[str]] = []

    def run(words: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        seen.append(words)
        return subprocess.CompletedProcess(words, 0, stdout=OUTPUT)

    monkeypatch.setattr("factrecall.workflow.explain_rerun.subprocess.run", run)
    assert main(["explain-rerun", "--configfile", "a b", "c", "--", "$(x); y", "-n"]) == 0
    start = [sys.executable, "-m", "snakemake"]
    assert seen[0][:3] == start
    assert seen[0][-6:] == ["--configfile", "a b", "c", "--", "$(x); y", "-n"]
    assert "settings.settings.people: 40 → 20" in capsys.readouterr().out


def test_where_there_is_no_workflow_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["explain-rerun"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"factrecall: {tmp_path}\n") and "no workflow here" in said
