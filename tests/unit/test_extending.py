"""The examples of docs/extending.md work as they are printed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, Starcoder2Config

from factrecall.models import architectures
from factrecall.parameters.nodes import Nodes
from factrecall.parameters.sets import ParameterSet
from factrecall.training import trace as traces
from factrecall.training.trace import GradientTrace, Reading
from factrecall.vocabulary import INFLUENCES, NODE_KINDS
from tests.conftest import Workspace

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/extending.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.S)
FILES = {
    found[1]: block[found.end() :]
    for block in BLOCKS
    if (found := re.match(r"# (\S+\.(?:py|smk))\n", block))
}
SNIPPETS = [block for block in BLOCKS if not block.startswith("# ")]
EXPERIMENT = """
import sys
from pathlib import Path
import pandas as pd
from factrecall.experiments.weight_change.report import SECTION
from factrecall.experiments.weight_change.stages import WEIGHT_CHANGE
from factrecall.runtime.storage import write_table

rows = [("m", t, s, layer, 0.1 + 0.01 * s + (0.1 + 0.002 * s) * (t == "mix"))
        for t in ("stage", "mix") for s in (0, 1, 2) for layer in (-1, 0, 1)]
table = Path("weight_change.parquet")
write_table(table, pd.DataFrame(rows, columns=list(WEIGHT_CHANGE)), WEIGHT_CHANGE)
measures = SECTION.read(model="m", files={"weight_change": table})
SECTION.draw(measures, Path("."))
print(SECTION.judged(measures)[0].verdict)
"""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the project with the page's experiment added as the page says."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in ("src", "workflow", "envs"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path, text in FILES.items():
        (copy / path).parent.mkdir(exist_ok=True)
        (copy / path).write_text(text, encoding="utf-8")
    folder = copy / "src/factrecall/experiments"
    (folder / "weight_change/__init__.py").write_text('"""Weight change."""\n', encoding="utf-8")
    registry = (folder / "registry.py").read_text(encoding="utf-8")
    line = next(block for block in SNIPPETS if "Experiment(" in block)
    registry = registry.replace(
        '    Experiment("recall"),\n', f'    Experiment("recall"),\n    {line.strip()},\n'
    )
    (folder / "registry.py").write_text(registry, encoding="utf-8")
    include = 'include: "workflow/rules/report.smk"'
    snakefile = (ROOT / "Snakefile").read_text(encoding="utf-8")
    new = include.replace("report.smk", "weight_change.smk")
    (copy / "Snakefile").write_text(snakefile.replace(include, f"{new}\n{include}"), "utf-8")
    return copy


def run(checkout: Path, folder: Path, *command: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(checkout / "src")}
    words = [sys.executable, *command]
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_experiment_is_in_the_workflow_and_the_plan(checkout: Path) -> None:
    preset = "workflow/presets/ci.yaml"
    told = run(checkout, checkout, "-m", "snakemake", "-nq", "rules", "--configfile", preset)
    assert re.search(r"^weight_change +8$", told, re.M)
    assert re.search(r"^summarise_weight_change +1$", told, re.M)
    planned = run(checkout, checkout, "-m", "factrecall", "plan", "--configfile", preset)
    assert re.search(r"^ +weight-change .* 4 ", planned, re.M)


def test_the_experiment_runs_and_is_reported(checkout: Path, workspace: Workspace) -> None:
    folder = workspace.folder
    command = f"weight-change --study {workspace.study} --base base --tuned base --out w.parquet"
    run(checkout, folder, "-m", "factrecall", *command.split())
    assert (folder / "w.parquet").exists()
    assert run(checkout, folder, "-c", EXPERIMENT).strip() == "holds"
    assert (folder / "weight_change.png").exists()


def test_every_influence_has_a_reading() -> None:
    assert tuple(traces.READINGS) == INFLUENCES


def test_the_influence_ranks_as_the_page_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces, "READINGS", dict(traces.READINGS))
    line = next(block for block in SNIPPETS if block.startswith("READINGS"))
    exec(line, {"READINGS": traces.READINGS, "Reading": Reading, "torch": torch})
    model = torch.nn.Linear(40, 1)
    trace = GradientTrace(model, {0: "in"})
    values = torch.randn(40, generator=torch.Generator().manual_seed(0))
    trace.add("QA_in", model(values).sum(), 0.5)
    ranking = trace.ranking(10)
    assert ranking is not None
    signed = torch.cat([0.5 * values, torch.tensor([0.5])])
    expected = torch.argsort(signed)[:10]
    assert ranking["QA_in/opposed/index"].tolist() == expected.tolist()


def test_the_architecture_has_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    known = dict(architectures.ARCHITECTURES)
    monkeypatch.setattr(architectures, "ARCHITECTURES", known)
    line = next(block for block in SNIPPETS if block.startswith("ARCHITECTURES"))
    exec(line, {"ARCHITECTURES": known, "replace": replace})
    config = Starcoder2Config(
        vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config)
    for kind in NODE_KINDS:
        nodes = Nodes.of(model, kind)
        whole = nodes.everything()
        assert len(whole) and int(nodes.counts(whole).sum()) >= len(whole)
        assert whole == whole & ~ParameterSet.empty(whole.space)
