"""The tables of the benchmarks, and the GPU's benchmark on a tiny model."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests import synthetic
from tests.benchmarks import gpu
from tests.benchmarks.predicted import Predictions
from tests.benchmarks.table import Row, exit_code, table, write

ROOT = Path(__file__).parents[2]

FAST = Row.of("a", "b", [3.0, 5.0, 4.0], 4.0, version="1.2")
SLOW = Row.of("a", "b", [3.0, 5.0, 4.0], 4.5)
SMALL = Row.of("a", "b", [1.0], 1.1, least=False)
TOLD = Row.of("a", "b", [1.0, 2.0])
MISSING = Row.missing("a", "b", 2.0)


def test_a_row_holds_the_median_to_its_bar() -> None:
    assert (FAST.median, FAST.lowest, FAST.highest, FAST.turns) == (4.0, 3.0, 5.0, 3)
    met = [row.met for row in (FAST, SLOW, SMALL, TOLD, MISSING)]
    assert met == [True, False, True, None, None]
    assert math.isnan(MISSING.median)


@pytest.mark.parametrize(
    ("rows", "code"),
    [([FAST, SMALL, TOLD], 0), ([FAST, MISSING], 2), ([SLOW, MISSING], 1), ([], 0)],
)
def test_the_exit_code_says_missed_or_not_measured(rows: list[Row], code: int) -> None:
    assert exit_code(rows) == code


def test_the_table_says_versions_spread_and_bars() -> None:
    lines = table([FAST, SLOW, SMALL, MISSING]).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert all(word in lines[2] for word in ("b 1.2", "4.00 (3.00–5.00)", "≥ 4", "ok"))
    assert "MISSED" in lines[3]
    assert all(word in lines[4] for word in ("1.00 (once)", "≤ 1.1"))
    assert all(word in lines[5] for word in ("not installed", "not measured"))


@pytest.mark.parametrize("name", ["t.parquet", "t.json"])
def test_the_table_is_written(tmp_path: Path, name: str) -> None:
    write([FAST, MISSING], tmp_path / name)
    read = pd.read_parquet if name.endswith("parquet") else pd.read_json
    found = read(tmp_path / name)
    assert found["version"].tolist() == ["1.2", "not installed"]
    assert found["median"][0] == 4.0 and math.isnan(found["median"][1])
    assert bool(found["met"][0]) is True and pd.isna(found["met"][1])


def test_every_part_of_the_gpu_benchmark_runs_on_a_tiny_model(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    assert gpu.main(["--small", "--device", "cpu", "--out", str(out)]) == 0
    found = json.loads(out.read_text(encoding="utf-8"))
    parts = {row["part"] for row in found["rows"]}
    assert parts == set(gpu.PARTS)
    assert not [row for row in found["rows"] if row["value"] is None]
    predicted = {row["part"] for row in found["rows"] if row["predicted"] is not None}
    assert predicted == {"training", "recall", "interventions", "grafting"}


def test_a_part_that_fails_or_takes_too_long_is_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(_: object) -> None:
        raise ValueError("no such thing\nat all")

    def lasts(_: object) -> None:
        while True:
            pass

    def works(_: object) -> list[gpu.Found]:
        return [gpu.Found("works", "what", 1.0, "s", goal=0.5)]

    parts = {"fails": (fails, 9), "lasts": (lasts, 1.2), "works": (works, 9)}
    monkeypatch.setattr(gpu, "PARTS", parts)
    assert gpu.main(["--small", "--device", "cpu"]) == 1
    said = capsys.readouterr().out
    assert "ValueError: no such thing" in said and "at all" not in said
    assert "given up after 1 s" in said
    # Goals are the paper's model's.
    assert "MISSED" not in said and "1 s" in said


def test_the_shape_is_the_paper_s_model() -> None:
    shape = Predictions.shape_of(synthetic.LLAMA_3B)
    assert shape.parameters == 3_212_749_824


def test_the_gpu_benchmark_needs_no_library_of_the_study() -> None:
    program = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"pydantic", "faker", "snakemake", "seaborn", "jinja2", "captum"}:
            raise ImportError(name)

sys.meta_path.insert(0, Refuse())
import tests.benchmarks.gpu, tests.gpu.tiny
import factrecall.cost.job_cost, factrecall.cost.execution_choice
import factrecall.training.fully_sharded
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
