"""After an edit exactly what depends on it runs again: docs/reruns.md, line by line."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from tests.workflow.running import PRESET, planned, run_module, snakemake

CIRCUITS = {"intervene": 32, "summarise_circuits": 1, "attention_case_study": 2}
"""Jobs of what looks into grafted models: 2 models, 2 histories, 2 seeds, 2 kinds of nodes, by
shared parameters and by others."""

SHARED = {
    "select_shared": 8,
    "summarise_shared": 1,
    "ablate": 8,
    "transplant_shared": 8,
    "summarise_ablation": 1,
    "graft_without_shared": 16,
    "summarise_grafting": 1,
    "gradient_similarity": 8,
    "summarise_representations": 1,
    **CIRCUITS,
    "intervene": 16,
}
"""Jobs of what depends on the shared sets: 2 models, 2 histories, 2 seeds (and 2 splits)."""

TUNED = {**SHARED, **CIRCUITS, "graft": 16, "capture": 8, "probe": 8}
"""Jobs of what depends on the fine-tuned models."""

HALF_OF_TUNED = {name: max(1, jobs // 2) for name, jobs in TUNED.items()} | {
    "attention_case_study": 2,
    "transplant_shared": 8,
}
"""Of one history alone; the case study and transplants take both."""

GRAFTED = {"graft", "graft_without_shared", "summarise_grafting", *CIRCUITS, "draw_figures"}
GRAFTED |= {"gradient_similarity", "summarise_representations", "judge_claims", "write_report"}
REPORT = {"draw_figures": 2, "judge_claims": 1, "write_report": 1}
AFTER_TRAINING = {"recall", "summarise_recall", *TUNED, *REPORT}


def test_a_finished_study_has_nothing_left_to_do(checkout: Path) -> None:
    assert planned(checkout) == {}


@pytest.mark.parametrize(
    ("change", "rules"),
    [
        ({"shared": {"k": 0.02}}, SHARED | REPORT),
        ({"shared": {"influence": "signed"}}, SHARED | REPORT),
        (
            {"ablation": {"draws": 3}},
            {"ablate": 8, "transplant_shared": 8, "summarise_ablation": 1} | REPORT,
        ),
        (
            {"grafting": {"alphas": [0.05, 0.1, 0.2]}},
            {"graft": 16, "graft_without_shared": 16, "summarise_grafting": 1}
            | {"gradient_similarity": 8, "summarise_representations": 1}
            | CIRCUITS
            | REPORT,
        ),
        (
            {"circuits": {"unit": {"forward": 16}}},
            {"intervene": 16, "summarise_circuits": 1} | REPORT,
        ),
        (
            {"circuits": {"random_orders": 2}},
            {"intervene": 16, "summarise_circuits": 1} | REPORT,
        ),
        ({"circuits": {"case": {"relation": "job"}}}, {"attention_case_study": 2} | REPORT),
        (
            {"representations": {"probes": {"held_out": 0.3}}},
            {"probe": 8, "summarise_representations": 1} | REPORT,
        ),
        (
            {"representations": {"gradient_similarity": {"individuals": 3}}},
            {"gradient_similarity": 8, "summarise_representations": 1} | REPORT,
        ),
        (
            {"representations": {"patching": {"individuals": 3}}},
            {"capture": 8, "probe": 8, "summarise_representations": 1} | REPORT,
        ),
        (
            {"trace": {"checkpoints": 0}},
            {"fine_tune": 12, "recall": 12, "summarise_recall": 1} | TUNED | REPORT,
        ),
        ({"compute": {"threads": 2, "checkpoint_interval_s": 5.0, "cache_gb": 0.5}}, {}),
        (
            {"recall": {"max_eval_tokens": 4096}},
            {
                "recall": 14,
                "summarise_recall": 1,
            }
            | {
                name: jobs
                for name, jobs in TUNED.items()
                if name not in ("select_shared", "summarise_shared")
            }
            | REPORT,
        ),
        (
            {"training": {"mix": {"learning_rate": 1.0e-3}}},
            {
                "fine_tune": 4,
                "recall": 4,
                "summarise_recall": 1,
            }
            | HALF_OF_TUNED
            | REPORT,
        ),
        (
            {"training": {"bio": {"learning_rate": 2.0e-3}}},
            {
                "fine_tune": 8,
                "recall": 8,
                "summarise_recall": 1,
            }
            | HALF_OF_TUNED
            | REPORT,
        ),
        (
            {"trace": {"in_distribution": 3}},
            {"fine_tune": 12, "recall": 12, "summarise_recall": 1} | TUNED | REPORT,
        ),
        (
            {"training": {"seeds": [0, 1, 2]}},
            {
                "fine_tune": 6,
                "recall": 6,
                "summarise_recall": 1,
            }
            | {name: jobs for name, jobs in HALF_OF_TUNED.items() if name != "attention_case_study"}
            | {"transplant_shared": 4}
            | REPORT,
        ),
        (
            {"replicates": 2},
            {"make_facts": 1, "pretrain": 2, "fine_tune": 12, "recall": 14, "summarise_recall": 1}
            | {name: jobs for name, jobs in TUNED.items() if name != "attention_case_study"}
            | {"intervene": 32}
            | REPORT,
        ),
    ],
    ids=[
        "k",
        "influence",
        "draws of an ablation",
        "one more alpha",
        "nodes a step",
        "random draws",
        "case",
        "probes",
        "gradients",
        "patching",
        "snapshots",
        "compute",
        "max_eval_tokens",
        "mix learning rate",
        "BIO learning rate",
        "traced individuals",
        "one more seed",
        "one more replicate",
    ],
)
def test_a_change_reruns_what_depends_on_it(
    checkout: Path, change: Mapping[str, object], rules: Mapping[str, int]
) -> None:
    assert planned(checkout, change) == rules


def test_another_pool_remakes_everything(checkout: Path) -> None:
    jobs = planned(checkout, {"facts": {"pools": {"jobs": 11}}})
    assert set(jobs) == {"make_facts", "pretrain", "fine_tune", *AFTER_TRAINING}


@contextmanager
def edited(checkout: Path, name: str, old: str, new: str) -> Iterator[None]:
    """Replace some text of a source file for a block."""
    path = checkout / name
    before = path.read_text(encoding="utf-8")
    assert old in before
    try:
        path.write_text(before.replace(old, new, 1), encoding="utf-8")
        yield
    finally:
        path.write_text(before, encoding="utf-8")


EVERYTHING = {"make_facts", "pretrain", "fine_tune", *AFTER_TRAINING}
TRACE = "src/factrecall/training/trace.py"
CHECKS = "src/factrecall/experiments/grafting/mask_checks.py"


@pytest.mark.parametrize(
    ("name", "old", "new", "rules"),
    [
        (TRACE, '"""Cross-task gradient', '# x\n"""A cross-task gradient', set()),
        (TRACE, "READINGS: dict", "ADDED = 1\nREADINGS: dict", {"fine_tune", *AFTER_TRAINING}),
        (CHECKS, "DRAWS = 3", "DRAWS = 4", GRAFTED),
        ("src/factrecall/data/templates.yaml", "What is the", "Which is the", EVERYTHING),
        ("src/factrecall/report/style.py", '"#d55e00"', '"#d55e01"', set(REPORT)),
        (
            "src/factrecall/report/page.html.j2",
            "Questions about {{",
            "What was asked about {{",
            {"write_report"},
        ),
        (
            "workflow/rules/train.smk",
            "use rule model_stage as recall",
            "# x\nuse rule model_stage as recall",
            set(),
        ),
        ("envs/requirements-cpu.txt", "faker==", "# x\nfaker==", set()),
        ("slurm/profile.yaml", "jobs: 100", "jobs: 50", set()),
    ],
    ids=[
        "comment",
        "logic of training",
        "logic of grafting",
        "template",
        "figure style",
        "caption",
        "comment in a rule",
        "comment in the lock",
        "profile",
    ],
)
def test_an_edit_of_the_sources_reruns_what_it_changes(
    checkout: Path, name: str, old: str, new: str, rules: set[str]
) -> None:
    with edited(checkout, name, old, new):
        assert set(planned(checkout)) == rules


@pytest.mark.parametrize(
    ("library", "rules"),
    [
        ("faker", EVERYTHING),
        ("torch", EVERYTHING - {"make_facts"}),
        ("seaborn", {"draw_figures", "write_report"}),
        ("jinja2", {"write_report"}),
        ("snakemake", set()),
    ],
)
def test_another_version_of_a_library_reruns_the_stages_that_keep_its_results(
    checkout: Path, library: str, rules: set[str]
) -> None:
    # The workflow puts the package's folder first, so that this one is found before the real one.
    installed = checkout / f"src/{library}-0.0.1.dist-info"
    installed.mkdir()
    metadata = installed / "METADATA"
    metadata.write_text(f"Metadata-Version: 2.1\nName: {library}\nVersion: 0.0.1\n")
    try:
        assert set(planned(checkout)) == rules
    finally:
        metadata.unlink()
        installed.rmdir()


def test_edits_taken_back_and_touched_files_rerun_nothing(checkout: Path) -> None:
    for name in (
        "src/factrecall/training/loop.py",
        "src/factrecall/data/templates.yaml",
        PRESET,
        "results/ci/facts/seed0/bio.parquet",
        "results/ci/tables/recall.parquet",
        "results/ci/shared/llama-tiny/mix/seed0.overlap_curve.parquet",
    ):
        os.utime(checkout / name)
    assert planned(checkout) == {}


def test_switching_study_and_back_reruns_nothing(checkout: Path) -> None:
    assert set(planned(checkout, {"name": "other"})) == EVERYTHING
    assert planned(checkout, {"shared": {"k": 0.02}}) != {}
    assert planned(checkout) == {}


def test_an_edit_of_own_sentences_remakes_the_facts_and_a_touch_does_not(checkout: Path) -> None:
    own = checkout / "my {own} sentences.yaml"  # braces are wildcards to Snakemake
    text = (checkout / "src/factrecall/data/templates.yaml").read_text(encoding="utf-8")
    own.write_text(text, encoding="utf-8")
    change = {"name": "own", "facts": {"templates": own.name}}
    (checkout / "change.yaml").write_text(yaml.safe_dump(change))
    facts = ("--configfile", PRESET, "change.yaml", "--", "results/own/facts/seed0/bio.parquet")
    made = snakemake(checkout, "--cores", "1", *facts)
    assert made.returncode == 0, made.stdout[-4000:]
    os.utime(own)
    assert "Nothing to be done" in snakemake(checkout, "-n", *facts).stdout
    own.write_text(text.replace("What is the birth date", "What was the birth date"))
    assert re.search(r"^make_facts +1$", snakemake(checkout, "-n", *facts).stdout, re.M)


def test_a_damaged_file_is_moved_aside_and_made_anew(checkout: Path, results: Path) -> None:
    sets = results / "shared/llama-tiny/mix/seed0.sets.safetensors"
    target = "results/ci/ablation/llama-tiny/mix/seed0.parquet"
    wanted = {path: path.read_bytes() for path in (sets, checkout / target)}
    times = sets.stat()
    sets.write_bytes(wanted[sets][:-100])
    os.utime(sets, ns=(times.st_atime_ns, times.st_mtime_ns))  # nobody has noticed
    line = ("--cores", "2", "--configfile", PRESET, "--rerun-incomplete", "--", target)
    failed = snakemake(checkout, "--forcerun", "ablate", *line)
    assert failed.returncode == 1 and "Traceback" not in failed.stdout
    assert failed.stdout.count("factrecall: ") == 1
    assert f"moved to {sets.relative_to(checkout)}.damaged" in failed.stdout
    assert not sets.exists() and not (checkout / target).exists()

    mended = snakemake(checkout, *line)
    assert mended.returncode == 0, mended.stdout[-4000:]
    assert {path: path.read_bytes() for path in wanted} == wanted
    sets.with_name(f"{sets.name}.damaged").unlink()
    assert planned(checkout) == {}  # the same bytes: nothing else is made again


def why(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_module(folder, "factrecall", "explain-rerun", *arguments)


def test_why_tells_the_first_jobs_and_what_changed(checkout: Path) -> None:
    (checkout / "change.yaml").write_text("shared: {k: 0.02}\n")
    done = why(checkout, "results/ci/report.html", "--configfile", PRESET, "change.yaml")
    assert done.returncode == 0, done.stdout
    first, following = done.stdout.split("would follow: ")
    assert "select_shared (8 jobs), because of\n  settings.k: 0.03 → 0.02\n" in first
    assert first.count("because of") == 1 and "ablate 8" in following
    assert "fine_tune" not in done.stdout
    same = why(checkout, "--configfile", PRESET)
    assert same.stdout == "the study: nothing would run, all is there and up to date\n"

    wrong = why(checkout, "results/ci/nothing", "--configfile", PRESET)
    assert wrong.returncode == 2 and "no rule of the workflow makes it" in wrong.stdout
    (checkout / "change.yaml").write_text("shared: {k: 0.5}\n")
    mistake = why(checkout, "--configfile", PRESET, "change.yaml")
    assert mistake.returncode == 2 and "trace.top_fraction" in mistake.stdout
    assert "Traceback" not in wrong.stdout + mistake.stdout
