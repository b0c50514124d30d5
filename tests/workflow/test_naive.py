"""The finished study, recomputed naively from its files by a script that imports nothing of ours.

The second test is of the script: it finds each of a few falsified numbers, and nothing else.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from tests.workflow.running import REPOSITORY

SCRIPT = REPOSITORY / "tests" / "naive" / "recompute.py"

HIDDEN = """
import runpy, sys
sys.modules["factrecall"] = None  # any import of it fails, wherever it is installed
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""

READ = ("facts", "models", "traces", "shared", "ablation", "grafting", "circuits", "tables")
"""Folders of results that the script reads."""


def recompute(results: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the script without the package, and without this folder or PYTHONPATH on its path."""
    command = [sys.executable, "-I", "-c", HIDDEN, str(SCRIPT), str(results), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, cwd=results, env=environment, capture_output=True, text=True, check=False
    )


def test_the_study_is_what_a_naive_script_makes_of_its_files(results: Path) -> None:
    done = recompute(results)
    assert done.returncode == 0, done.stdout + done.stderr
    *lines, last = done.stdout.splitlines()
    assert all(line.startswith("equal ") for line in lines)
    assert last == f"{len(lines)} comparisons, no with differences"
    for what in ("recall of", "majority", "|S|/k", "S of", "ablation, shared", "sweep of"):
        for model in ("llama-tiny", "gpt-neox-tiny"):
            assert any(what in line and model in line for line in lines), (what, model)


def change(path: Path, edit: Callable[[pd.DataFrame], None]) -> None:
    """Edit a table in place."""
    table = pd.read_parquet(path)
    edit(table)
    table.to_parquet(path)


def flip(table: pd.DataFrame) -> None:
    """Turn the first answer, of those to an ablation of S if there are such."""
    row = table.index[table["ablated"] == "shared"][0] if "ablated" in table else 0
    table.loc[row, "correct"] = not table.loc[row, "correct"]


def one_more(table: pd.DataFrame) -> None:
    """Count one right answer more of the Mix-tuned model of seed 0."""
    chosen = (table["model"] == "llama-tiny") & (table["tuning"] == "mix") & (table["seed"] == 0)
    row = table.index[chosen][0]
    table.loc[row, "correct"] += 1


def exchange(table: pd.DataFrame) -> None:
    """Turn the answer to the first question at the last step of the forward sweep."""
    row = table.index[table["direction"] == "forward"][-1]
    right = set(table.at[row, "right"]) ^ {0}
    table.at[row, "right"] = np.array(sorted(right), dtype=np.int32)


def without_a_member(path: Path) -> None:
    """Take one member out of S."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        sets = {name: file.get_tensor(name) for name in ("S_I", "S_II", "S")}
    sets["S"] = torch.from_numpy(sets["S"].numpy()[1:].copy())
    save_file(sets, path, metadata)


def test_the_script_finds_what_is_falsified(results: Path, tmp_path: Path) -> None:
    for folder in READ:
        shutil.copytree(results / folder, tmp_path / folder)
    run = "llama-tiny/mix/seed0"
    change(tmp_path / "tables/recall.parquet", one_more)
    change(tmp_path / f"models/{run}.recall.parquet", flip)
    change(tmp_path / f"ablation/{run}.parquet", flip)
    change(tmp_path / f"circuits/{run}.attention.shared.parquet", exchange)
    without_a_member(tmp_path / f"shared/{run}.sets.safetensors")
    done = recompute(tmp_path, "--model", "llama-tiny")
    assert done.returncode == 1, done.stdout + done.stderr
    found = [line for line in done.stdout.splitlines() if line.startswith("DIFFERS")]
    name = "llama-tiny mix seed 0"
    expected = ["S of", "recall of", "recall of", "ablation, shared of", "sweep of"]
    for line, what in zip(found, expected, strict=True):
        assert line.startswith(f"DIFFERS {what} {name}"), found
        assert ": 1 of " in line


def test_an_unfinished_study_is_no_traceback(results: Path, tmp_path: Path) -> None:
    (tmp_path / "models").symlink_to(results / "models")
    done = recompute(tmp_path)
    assert done.returncode == 2
    assert "not finished" in done.stderr and "Traceback" not in done.stderr
