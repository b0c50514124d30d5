"""The whole graph on the smallest study: it runs, is complete, and reruns only what changed."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import pytest
import yaml

from factrecall.config import Study
from factrecall.config.reading import read_study
from factrecall.experiments.ablation import ABLATED, ABLATION
from factrecall.experiments.circuit_tables import HEADS, INTERVENTIONS, SWEEPS
from factrecall.experiments.continuity import CONTINUITY
from factrecall.experiments.grafts import GRAFTING, OUTCOMES
from factrecall.experiments.shared import SHARED as SHARED_TABLE
from factrecall.facts import RELATIONS
from factrecall.parameters.sets import read_sets
from factrecall.recall import PER_EXAMPLE, SPLITS, SUMMARY
from factrecall.storage import read_provenance, read_table, read_tensors
from factrecall.training.trace import INFLUENCES

REPOSITORY = Path(__file__).parents[2]
PRESET = "workflow/presets/ci.yaml"
CIRCUITS = {"intervene": 32, "summarise_circuits": 1, "study_case": 2}
"""Jobs of what looks into grafted models: 2 models, 2 histories, 2 seeds, 2 kinds of nodes, by
shared parameters and by others."""

SHARED = {
    "select_shared": 8,
    "summarise_shared": 1,
    "ablate": 8,
    "summarise_ablation": 1,
    "graft_without_shared": 16,
    "summarise_grafting": 1,
    **CIRCUITS,
    "intervene": 16,
}
"""Jobs of what depends on the shared sets: 2 models, 2 histories, 2 seeds (and 2 splits)."""

TUNED = {**SHARED, **CIRCUITS, "graft": 16}
"""Jobs of what depends on the fine-tuned models."""

HALF_OF_TUNED = {name: max(1, jobs // 2) for name, jobs in TUNED.items()} | {"study_case": 2}
"""Of one history alone; the case study compares the two."""

REPORT = {"draw_figures": 2, "write_report": 1}
AFTER_TRAINING = {"recall", "summarise_recall", *TUNED, *REPORT}


def snakemake(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "snakemake", *arguments],
        cwd=folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources with the ci study finished."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("src", "workflow", "envs"):
        shutil.copytree(
            REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    for name in ("Snakefile", "config.yaml"):
        shutil.copy(REPOSITORY / name, folder)
    done = snakemake(folder, "--cores", "2", "--configfile", PRESET)
    assert done.returncode == 0, done.stdout[-4000:]
    return folder


@pytest.fixture(scope="session")
def results(checkout: Path) -> Path:
    return checkout / "results" / "ci"


@pytest.fixture(scope="session")
def study() -> Study:
    return read_study(REPOSITORY / PRESET)


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


def test_a_finished_study_has_nothing_left_to_do(checkout: Path) -> None:
    assert planned(checkout) == {}


def test_recall_has_every_model_tuning_seed_split_and_relation(results: Path, study: Study) -> None:
    table = read_table(results / "tables" / "recall.parquet", SUMMARY)
    tuned = [(t, s) for t in ("bio", "stage", "mix") for s in study.training.seeds]
    runs = [*tuned, ("base", study.seed), ("majority", study.seed)]
    expected = {
        (m, t, s, split, r)
        for m in study.models
        for t, s in runs
        for split in SPLITS
        for r in RELATIONS
    }
    keys = ["model", "tuning", "seed", "split", "relation"]
    assert set(table[keys].itertuples(index=False, name=None)) == expected
    assert not table.duplicated(keys).any()
    assert (table["accuracy"] == table["correct"] / table["n"]).all()
    sides = study.facts.people * study.facts.in_distribution
    assert table.groupby("split")["n"].first().to_dict() == {
        "bio": study.facts.people,
        "qa_in": sides,
        "qa_out": study.facts.people - sides,
    }


def test_the_summary_counts_the_examples(results: Path) -> None:
    examples = read_table(results / "models/llama-tiny/mix/seed1.recall.parquet", PER_EXAMPLE)
    table = pd.read_parquet(results / "tables" / "recall.parquet")
    ours = table[(table.model == "llama-tiny") & (table.tuning == "mix") & (table.seed == 1)]
    counted = examples.groupby(["split", "relation"])["correct"].sum()
    summary = ours.set_index(["split", "relation"])["correct"]
    assert counted.sort_index().to_dict() == summary.sort_index().to_dict()


def test_each_tuning_traces_its_tasks(results: Path) -> None:
    tasks = {
        "bio": {"BIO_in", "BIO_out"},
        "stage": {"QA_in"},
        "mix": {"BIO_in", "BIO_out", "QA_in"},
    }
    for tuning, expected in tasks.items():
        for model in ("llama-tiny", "gpt-neox-tiny"):
            tensors, metadata = read_tensors(results / f"traces/{model}/{tuning}/seed0.safetensors")
            assert {name.split("/")[0] for name in tensors} == expected
            assert set(metadata["counts"]) == expected
            assert metadata["keep"] == round(0.2 * metadata["n"])


def test_the_seeds_of_a_tuning_differ_and_start_from_one_model(results: Path) -> None:
    first, second = (
        (results / f"models/llama-tiny/mix/seed{s}/model.safetensors").read_bytes() for s in (0, 1)
    )
    assert first != second
    assert len(list((results / "models/llama-tiny/base").glob("seed*/model.safetensors"))) == 1


def test_no_state_and_no_temporary_file_is_left(results: Path) -> None:
    assert not list((results / "state").iterdir())
    assert not [path for path in results.rglob("*") if path.name.endswith(".tmp")]


def test_shared_tables_have_every_row(results: Path, study: Study) -> None:
    seeds, models, tunings = study.training.seeds, list(study.models), ["stage", "mix"]
    curve = read_table(results / "tables/shared.parquet", SHARED_TABLE)
    keys = ["model", "tuning", "seed", "influence", "set"]
    expected = itertools.product(models, tunings, seeds, INFLUENCES, ("S_I", "S_II", "S"))
    assert set(curve[keys].itertuples(index=False, name=None)) == set(expected)
    assert not curve.duplicated([*keys, "k"]).any()
    assert (curve["ratio"] == curve["size"] / curve["k"]).all()

    ablation = read_table(results / "tables/ablation.parquet", ABLATION)
    keys = ["model", "tuning", "seed", "ablated", "split", "relation"]
    expected = itertools.product(models, tunings, seeds, ABLATED, SPLITS, RELATIONS)
    assert sorted(ablation[keys].itertuples(index=False, name=None)) == sorted(expected)
    recall = read_table(results / "tables/recall.parquet", SUMMARY)
    same = ["model", "tuning", "seed", "split", "relation"]
    both = ablation[ablation["ablated"] == "none"].merge(recall, on=same)
    assert (both["correct_x"] == both["correct_y"]).all() and (both["drop"] == 0).all()

    grafting = read_table(results / "tables/grafting.parquet", GRAFTING)
    keys = ["model", "tuning", "seed", "split", "alpha", "with_shared", "method"]
    alphas = study.grafting.alphas
    methods = [*itertools.product(alphas, (True, False), ("movement", "dual_averaging"))]
    methods += [(1.0, True, "whole"), (1.0, False, "whole")]
    expected = {
        (*run, *method)
        for run in itertools.product(models, tunings, seeds, ("in", "out"))
        for method in methods
    }
    assert set(grafting[keys].itertuples(index=False, name=None)) == expected
    assert not grafting.duplicated(keys).any()
    assert (grafting.loc[~grafting["with_shared"], "shared_fraction"] == 0).all()


def test_circuits_have_every_sweep_and_agree_with_grafting(results: Path, study: Study) -> None:
    steps = read_table(results / "tables/interventions.parquet", INTERVENTIONS)
    keys = ["model", "tuning", "seed", "kind", "direction", "priority", "draw"]
    draws = [("shared", 0), ("grafted", 0), *(("random", d) for d in range(study.circuits.draws))]
    runs = (study.models, ["stage", "mix"], study.training.seeds, ["attention", "unit"])
    expected = {
        (*run, direction, *draw)
        for run in itertools.product(*runs)
        for direction, draw in itertools.product(("forward", "backward"), draws)
    }
    assert set(steps[keys].itertuples(index=False, name=None)) == expected
    assert not steps.duplicated([*keys, "step"]).any()
    # Both ends of every sweep: nothing of the kind grafted, and everything.
    ends = steps.groupby(keys)["shared_fraction"].agg(["min", "max"])
    assert (ends["min"] == 0).all() and (ends["max"] == 1).all()
    heads = read_table(results / "tables/heads.parquet", HEADS)
    assert heads.groupby("model")["node"].nunique().to_dict() == {
        "llama-tiny": 2 * (4 + 2 + 2 + 4),
        "gpt-neox-tiny": 2 * 4 * 4,
    }
    sweeps = read_table(results / "tables/sweeps.parquet", SWEEPS)
    assert len(sweeps) == len(expected)
    tested = sweeps[sweeps["worst"].notna()]
    assert len(tested) and (tested["worst"] <= study.circuits.steps.tolerance).all()
    lasting = read_table(results / "tables/continuity.parquet", CONTINUITY)
    assert set(lasting["kind"]) == {"attention", "unit"} and set(lasting["shuffled"]) == {
        True,
        False,
    }


def test_masks_are_as_large_as_their_table_says(results: Path) -> None:
    folder = results / "grafting/gpt-neox-tiny/mix"
    masks = {
        True: read_sets(folder / "seed1.out.masks.safetensors"),
        False: read_sets(folder / "seed1.out.without.masks.safetensors"),
    }
    assert len(read_table(folder / "seed1.out.parquet", OUTCOMES)) == 1 + 2 * len(masks[True])
    table = read_table(results / "tables/grafting.parquet", GRAFTING)
    shared = read_sets(results / "shared/gpt-neox-tiny/mix/seed1.sets.safetensors")["S"]
    of = "model == 'gpt-neox-tiny' and tuning == 'mix' and seed == 1 and split == 'out'"
    fitted = table.query(f"{of} and method == 'dual_averaging'")
    assert len(fitted) == sum(map(len, masks.values()))
    for row in fitted.itertuples():
        mask = masks[row.with_shared][repr(row.alpha)]
        assert len(mask) == row.size == round(row.alpha * mask.space.size)
        assert row.shared_fraction == len(mask & shared) / len(mask)
        assert row.with_shared or not len(mask & shared)


def test_the_report_and_figures_are_there(results: Path) -> None:
    page = (results / "report.html").read_text(encoding="utf-8")
    assert "llama-tiny" in page and "gpt-neox-tiny" in page
    for kind in ("png", "svg", "parquet"):
        assert (results / f"figures/llama-tiny/recall.{kind}").stat().st_size > 1000


def test_tables_say_how_they_were_made(results: Path) -> None:
    said = read_provenance(results / "models/llama-tiny/mix/seed0.history.parquet")
    assert said["stage"] == "fine-tune"
    assert said["settings"]["recipe"]["updates"] == 60
    assert set(said["libraries"]) >= {"torch", "transformers"}


@pytest.mark.parametrize(
    ("change", "rules"),
    [
        ({"shared": {"k": 0.02}}, SHARED | REPORT),
        ({"shared": {"influence": "signed"}}, SHARED | REPORT),
        (
            {"grafting": {"alphas": [0.05, 0.1, 0.2]}},
            {"graft": 16, "graft_without_shared": 16, "summarise_grafting": 1} | CIRCUITS | REPORT,
        ),
        (
            {"circuits": {"unit": {"forward": 16}}},
            {"intervene": 16, "summarise_circuits": 1} | REPORT,
        ),
        (
            {"circuits": {"draws": 2}},
            {"intervene": 16, "summarise_circuits": 1} | REPORT,
        ),
        ({"circuits": {"case": {"relation": "job"}}}, {"study_case": 2} | REPORT),
        ({"compute": {"threads": 2, "save_seconds": 5.0, "cache_gb": 0.5}}, {}),
        (
            {"recall": {"batch_tokens": 4096}},
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
            {"training": {"bio": {"updates": 50}}},
            {
                "fine_tune": 8,
                "recall": 8,
                "summarise_recall": 1,
            }
            | HALF_OF_TUNED
            | REPORT,
        ),
        (
            {"training": {"seeds": [0, 1, 2]}},
            {
                "fine_tune": 6,
                "recall": 6,
                "summarise_recall": 1,
            }
            | {name: jobs for name, jobs in HALF_OF_TUNED.items() if name != "study_case"}
            | REPORT,
        ),
    ],
    ids=[
        "k",
        "influence",
        "alphas",
        "nodes a step",
        "random draws",
        "case",
        "compute",
        "batch_tokens",
        "mix learning rate",
        "bio updates",
        "one more seed",
    ],
)
def test_a_change_reruns_what_depends_on_it(
    checkout: Path, change: Mapping[str, object], rules: Mapping[str, int]
) -> None:
    assert planned(checkout, change) == rules


def test_another_pool_remakes_everything(checkout: Path) -> None:
    jobs = planned(checkout, {"facts": {"pools": {"jobs": 11}}})
    assert set(jobs) == {"make_facts", "pretrain", "fine_tune", *AFTER_TRAINING}


def test_a_comment_in_a_stage_reruns_nothing_but_its_logic_does(checkout: Path) -> None:
    source = checkout / "src/factrecall/training/trace.py"
    original = source.read_text(encoding="utf-8")
    try:
        source.write_text(
            original.replace('"""The cross-task', '"""What is the cross-task') + "\n# x\n"
        )
        assert planned(checkout) == {}
        source.write_text(original + "\nADDED = 1\n")
        jobs = planned(checkout)
        assert "make_facts" not in jobs and "pretrain" not in jobs and jobs["fine_tune"] == 12
    finally:
        source.write_text(original, encoding="utf-8")


def test_touching_files_reruns_nothing(checkout: Path) -> None:
    for name in ("src/factrecall/training/loop.py", "src/factrecall/facts/templates.yaml", PRESET):
        os.utime(checkout / name)
    assert planned(checkout) == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nmae: x\n", "did you mean name?"),
        ("training: {bio: {learning_rate: 1e-4}}\n", "1.0e-4"),
        ("shared: {k: 0.5}\n", "trace.keep"),
        ("facts: {people: 4000}\n", "names"),
        ("training: {mix: {batch_size: 0}}\n", "batch_size"),
        ("models: {x: {source: folder, path: no/such/folder}}\n", "no/such/folder"),
    ],
)
def test_a_mistake_ends_with_one_message_before_any_job(
    checkout: Path, text: str, said: str
) -> None:
    (checkout / "mistake.yaml").write_text(text)
    done = snakemake(checkout, "--cores", "1", "--configfile", PRESET, "mistake.yaml")
    assert done.returncode == 2
    assert said in done.stdout and "remedy:" in done.stdout
    assert "Traceback" not in done.stdout and "Building DAG" not in done.stdout


def test_an_edit_of_own_sentences_remakes_the_facts_and_a_touch_does_not(checkout: Path) -> None:
    own = checkout / "my {own} sentences.yaml"  # braces are wildcards to Snakemake
    text = (checkout / "src/factrecall/facts/templates.yaml").read_text(encoding="utf-8")
    own.write_text(text, encoding="utf-8")
    change = {"name": "own", "facts": {"templates": own.name}}
    (checkout / "change.yaml").write_text(yaml.safe_dump(change))
    facts = ("--configfile", PRESET, "change.yaml", "--", "results/own/facts/bio.parquet")
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
    return subprocess.run(
        [sys.executable, "-m", "factrecall", "why", *arguments],
        cwd=folder,
        text=True,
        capture_output=True,
        check=False,
    )


def test_why_tells_the_first_jobs_and_what_changed(checkout: Path) -> None:
    (checkout / "change.yaml").write_text("shared: {k: 0.02}\n")
    done = why(checkout, "results/ci/report.html", "--configfile", PRESET, "change.yaml")
    assert done.returncode == 0, done.stderr
    first, following = done.stdout.split("would follow: ")
    assert "select_shared (8 jobs), because of\n  settings.k: 0.03 → 0.02\n" in first
    assert first.count("because of") == 1 and "ablate 8" in following
    assert "fine_tune" not in done.stdout
    same = why(checkout, "--configfile", PRESET)
    assert same.stdout == "the study: nothing would run, all is there and up to date\n"

    wrong = why(checkout, "results/ci/nothing", "--configfile", PRESET)
    assert wrong.returncode == 2 and "no rule of the workflow makes it" in wrong.stderr
    (checkout / "change.yaml").write_text("shared: {k: 0.5}\n")
    mistake = why(checkout, "--configfile", PRESET, "change.yaml")
    assert mistake.returncode == 2 and "trace.keep" in mistake.stderr
    assert "Traceback" not in wrong.stderr + mistake.stderr
