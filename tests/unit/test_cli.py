"""The command line: quick where nothing is computed, and the same results as the functions."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from factrecall import cli
from factrecall.cli import main
from factrecall.data.files import BIO_COLUMNS, INDIVIDUAL_COLUMNS, QA_COLUMNS
from factrecall.evaluation.exact_match import PER_EXAMPLE, SUMMARY
from factrecall.models.loading import load_model, load_tokenizer
from factrecall.runtime.errors import FactRecallError
from factrecall.runtime.safetensors_writer import read_tensors
from factrecall.runtime.storage import read_provenance, read_table
from factrecall.training.training_log import HISTORY
from factrecall.workflow.stages import STAGES
from tests.conftest import Workspace

HEAVY = ("torch", "transformers", "pydantic", "pandas", "numpy", "pyarrow", "matplotlib")


@pytest.mark.parametrize("arguments", [["--help"], ["fine-tune", "--help"], ["recall", "--he"], []])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    script = (
        "import sys; from factrecall.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as stop: print('code', stop.code)\n"
        f"print('loaded', [m for m in {HEAVY!r} if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], text=True, capture_output=True, check=True
    )
    assert f"code {0 if arguments else 2}" in done.stdout
    assert "loaded []" in done.stdout
    assert "usage: factrecall" in done.stdout + done.stderr


def test_the_module_runs_as_a_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "factrecall", "validate", "no-such-study.yaml"],
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("factrecall: no-such-study.yaml")
    assert "Traceback" not in done.stderr


def test_every_stage_has_a_command_and_every_command_its_help() -> None:
    (action,) = [a for a in cli._parser()._actions if a.dest == "command"]
    commands = dict(action.choices or {})
    assert set(commands) == {*STAGES, "validate", "explain-rerun", "plan"}
    for parser in commands.values():
        assert parser.description
        assert all(option.help for option in parser._actions)


@pytest.mark.parametrize(("former", "now"), cli.FORMER.items())
def test_a_former_command_is_refused_with_its_new_name(
    former: str, now: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([former, "--study", "x"]) == 2
    said = capsys.readouterr().err
    assert f"command {former}" in said and now in said
    assert former not in STAGES and now in {*STAGES, "explain-rerun"}


def test_validate_names_each_valid_study(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["validate", str(workspace.study), str(workspace.study)]) == 0
    assert capsys.readouterr().out.count("study 'tiny' is valid") == 2


def test_the_stages_run_one_after_the_other(workspace: Workspace) -> None:
    folder = workspace.folder
    run = workspace.command
    assert main(run("fine-tune")) == 0
    assert main(run("recall", tuned=folder / "out/model", out=folder / "out/mix.parquet")) == 0
    evaluation = ["--evaluations", "m", "mix", "1", str(folder / "out/mix.parquet")]
    assert main([*run("summarise-recall", evaluations=None), *evaluation]) == 0

    for table, columns in zip(
        workspace.facts, (INDIVIDUAL_COLUMNS, BIO_COLUMNS, QA_COLUMNS), strict=True
    ):
        assert len(read_table(table, columns))
    for model in ("base", "out/model"):
        load_model(folder / model)
        load_tokenizer(folder / model)
    for history, updates in (("base.history.parquet", 3), ("out/history.parquet", 4)):
        assert len(read_table(folder / history, HISTORY)) == updates
    _, metadata = read_tensors(folder / "out/trace.safetensors")
    assert metadata["provenance"]["stage"] == "fine-tune"
    assert read_provenance(folder / "out/history.parquet") == metadata["provenance"]
    per_example = read_table(folder / "out/mix.parquet", PER_EXAMPLE)
    summary = read_table(folder / "out/summary.parquet", SUMMARY)
    assert summary.loc[summary["tuning"] == "mix", "n"].sum() == len(per_example)
    assert set(summary["tuning"]) == {"mix", "majority"}
    assert not list((folder / "state").iterdir())
    assert not list(folder.rglob("*.tmp"))


def test_the_same_command_gives_the_same_bytes(workspace: Workspace) -> None:
    found = []
    for _ in range(2):
        assert main(workspace.command("fine-tune")) == 0
        out = workspace.folder / "out"
        files = sorted(path for path in out.rglob("*") if path.is_file())
        found.append({path.name: path.read_bytes() for path in files})
    assert len(found[0]) > 4
    assert found[0] == found[1]


def test_threads_come_from_the_study(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert main(workspace.command("recall")) == 0
    assert os.environ["OMP_NUM_THREADS"] == "1"


def test_pre_training_has_threads_of_its_own(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    study = yaml.safe_load(workspace.study.read_text(encoding="utf-8"))
    study["compute"]["pretrain_threads"] = 2
    workspace.study.write_text(yaml.safe_dump(study), encoding="utf-8")
    try:
        assert main(workspace.command("pretrain", model="m", out="again")) == 0
        assert os.environ["OMP_NUM_THREADS"] == "2"
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (FactRecallError("here", "because", "do that"), 2, "factrecall: here\n  why:    because"),
        (KeyboardInterrupt(), 130, "run again to resume"),
        (BrokenPipeError(), 1, ""),
    ],
)
def test_how_it_ends(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    said: str,
) -> None:
    def fail(_: object) -> None:
        raise error

    monkeypatch.setattr(cli, "_validate", fail)
    if isinstance(error, BrokenPipeError):
        monkeypatch.setattr("sys.stderr", open(os.devnull, "w"))  # noqa: SIM115
    assert main(["validate", "x"]) == code
    assert said in capsys.readouterr().err


def test_a_defect_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(cli, "_validate", fail)
    with pytest.raises(ZeroDivisionError):
        main(["validate", "x"])


def test_a_refused_device_is_told(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    text = workspace.study.read_text(encoding="utf-8")
    Path(workspace.study).write_text(text.replace("device: cpu", "device: cuda"), encoding="utf-8")
    assert main(workspace.command("recall")) == 2
    assert "compute.device = cuda" in capsys.readouterr().err
