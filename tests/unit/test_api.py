"""The public names: imported when they are used, and the same stages as the commands."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import factrecall
from factrecall.cli import main
from factrecall.experiments.recall.stages import Evaluation, Questions
from factrecall.runtime.errors import FactRecallError
from tests.conftest import Workspace


def test_importing_the_package_loads_nothing_heavy() -> None:
    script = (
        "import sys, factrecall\n"
        "heavy = ('torch', 'transformers', 'pandas', 'pydantic', 'numpy')\n"
        "assert not [m for m in heavy if m in sys.modules]\n"
        "factrecall.load_study, factrecall.run_stage, factrecall.read_table\n"
        "assert 'torch' not in sys.modules\n"
        "factrecall.ParameterSet, factrecall.Evaluator, factrecall.open_pair\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_every_public_name_is_there_and_no_other() -> None:
    assert set(factrecall.__all__) <= set(dir(factrecall))
    for name in factrecall.__all__:
        assert callable(getattr(factrecall, name))
    with pytest.raises(AttributeError, match="no_such"):
        factrecall.no_such  # noqa: B018
    assert (Path(factrecall.__file__).parent / "py.typed").exists()


def test_a_stage_writes_the_same_file_as_its_command(workspace: Workspace) -> None:
    folder = workspace.folder
    facts = {name: folder / f"{name}.parquet" for name in ("bio", "qa")}
    assert main(workspace.command("recall")) == 0
    expected = (folder / "out/recall.parquet").read_bytes()
    study = factrecall.load_study(str(workspace.study))
    for number, given in enumerate((study, workspace.study, str(workspace.study))):
        out = folder / f"again{number}.parquet"
        factrecall.run_stage("recall", given, tuned=folder / "base", out=str(out), **facts)
        assert out.read_bytes() == expected
    assert len(factrecall.read_table(str(out))) == len(factrecall.read_table(out)) > 0


def test_a_summary_takes_records_of_its_runs(workspace: Workspace) -> None:
    folder = workspace.folder
    assert main(workspace.command("summarise-recall")) == 0
    runs = [Evaluation("m", "base", 0, folder / "examples.parquet")]
    out, questions = folder / "again.parquet", [Questions(0, folder / "qa.parquet")]
    given = {"evaluations": runs, "questions": questions, "out": out}
    factrecall.run_stage("summarise-recall", workspace.study, **given)
    assert out.read_bytes() == (folder / "out/summary.parquet").read_bytes()


def test_a_training_goes_on_from_its_state(workspace: Workspace) -> None:
    folder = workspace.folder
    assert main(workspace.command("pretrain", out="out/a", history="out/a.parquet")) == 0
    files = {"out": folder / "out/a", "history": folder / "out/a.parquet"}
    expected = files["history"].read_bytes()
    shutil.rmtree(files["out"])
    factrecall.run_stage(
        "pretrain",
        workspace.study,
        model="m",
        seed=0,
        facts=workspace.facts,
        state=folder / "s",
        **files,
    )
    assert files["history"].read_bytes() == expected and not list((folder / "s").iterdir())


PRETRAIN = {"model": "m", "seed": 0, "facts": "x", "out": "x", "history": "x"}


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("graph", {}, "there is no such stage"),
        ("recall", {"tuned": "x", "bio": "x", "qa": "x"}, "recall: out\n  why:    it is missing"),
        ("recall", dict.fromkeys(("tuned", "bio", "qa", "out", "k"), "x"), "no such argument"),
        ("pretrain", {**PRETRAIN, "model": "own", "facts": []}, "its source is"),
        ("pretrain", PRETRAIN, "a list"),
        ("recall", {"tuned": 5, "bio": "x", "qa": "x", "out": "x"}, "tuned = 5"),
        ("recall", {"tuned": ["x"], "bio": "x", "qa": "x", "out": "x"}, "give one path"),
        (
            "summarise-recall",
            {"evaluations": ["x"], "questions": [], "out": "x"},
            "each: Evaluation of",
        ),
    ],
)
def test_a_mistake_is_told(
    workspace: Workspace, name: str, given: dict[str, Any], said: str
) -> None:
    with pytest.raises(FactRecallError) as caught:
        factrecall.run_stage(name, workspace.study, **given)
    assert said in str(caught.value)
