"""A user's mistake ends with exit code 2 and one message, and leaves nothing half-written."""

# One mistake a line reads best, however long the line.
# ruff: noqa: E501

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file, save_file

from factrecall.cli import main
from tests.conftest import Workspace

Change = Callable[[Path], object]


@dataclass(frozen=True)
class Case:
    """What is done to the workspace, the command then run, and what its message must say."""

    command: str
    change: Change
    said: str
    options: dict[str, str | None] = field(default_factory=dict)


def nothing(folder: Path) -> None:
    """Leave the workspace as it is: the mistake is among the options."""


def remove(name: str) -> Change:
    def change(folder: Path) -> None:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return change


def write(name: str, content: bytes) -> Change:
    return lambda folder: (folder / name).write_bytes(content)


def cut(name: str) -> Change:
    def change(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])

    return change


def table(name: str, edit: Callable[[pa.Table], pa.Table]) -> Change:
    return lambda folder: pq.write_table(edit(pq.read_table(folder / name)), folder / name)


def column(name: str, values: Callable[[pa.Table], pa.Array]) -> Callable[[pa.Table], pa.Table]:
    return lambda t: t.set_column(t.column_names.index(name), name, values(t))


def swap_facts(folder: Path) -> None:
    (folder / "bio.parquet").rename(folder / "x")
    (folder / "qa.parquet").rename(folder / "bio.parquet")
    (folder / "x").rename(folder / "qa.parquet")


def drop_tensor(folder: Path) -> None:
    path = folder / "base" / "model.safetensors"
    state = load_file(path)
    del state[min(state)]
    save_file(state, path, metadata={"format": "pt"})


def widen(folder: Path) -> None:
    path = folder / "base" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"hidden_size": 64}))


def bloom(folder: Path) -> None:
    path = folder / "own" / "config.json"
    path.write_text(json.dumps({"model_type": "bloom"}))


def study(old: str, new: str) -> Change:
    def change(folder: Path) -> None:
        text = (folder / "study.yaml").read_text(encoding="utf-8")
        assert old in text
        (folder / "study.yaml").write_text(text.replace(old, new), encoding="utf-8")

    return change


def lock(folder: Path) -> None:
    assert main(["fetch-model", *_fetch(folder), "--out", str(folder / "first")]) == 0
    shutil.rmtree(folder / "first")
    (path,) = (folder / "locks").iterdir()
    path.write_text("{")


def change_after_lock(folder: Path) -> None:
    assert main(["fetch-model", *_fetch(folder), "--out", str(folder / "first")]) == 0
    shutil.rmtree(folder / "first")
    (folder / "own" / "config.json").write_text("{}")


def _fetch(folder: Path) -> list[str]:
    study_file = str(folder / "study.yaml")
    return ["--study", study_file, "--model", "own", "--locks", str(folder / "locks")]


FILE = "a part of this path is a file"
TRAIN, RECALL, SUM = "fine-tune", "recall", "summarise-recall"
CASES = {
    # The study.
    "no study": Case(TRAIN, remove("study.yaml"), "study.yaml"),
    "study is no YAML": Case(TRAIN, write("study.yaml", b"a: [1"), "study.yaml"),
    "study is no text": Case(TRAIN, write("study.yaml", b"\xff\xfe\x00"), "study.yaml"),
    "unknown key": Case(TRAIN, study("top_fraction:", "top_fractoin:"), "did you mean top_fraction?"),
    "unknown model": Case(TRAIN, nothing, "it has: m, own", {"model": "gpt-9"}),
    "unknown model to fetch": Case("fetch-model", nothing, "it has: m, own", {"model": "x"}),
    "more traced than there are": Case(TRAIN, study("out_of_distribution: 1", "out_of_distribution: 99"), "trace.out_of_distribution"),
    "pretrain what is fetched": Case("pretrain", nothing, "its source is folder", {"model": "own"}),
    "fetch what is built": Case("fetch-model", nothing, "its source is scratch", {"model": "m"}),
    # Tables.
    "no individuals": Case(TRAIN, remove("individuals.parquet"), "there is no such file"),
    "no bio": Case(TRAIN, remove("bio.parquet"), "bio.parquet"),
    "empty bio": Case(TRAIN, write("bio.parquet", b""), "no readable Parquet file"),
    "bio is text": Case(TRAIN, write("bio.parquet", b"individual,text\n"), "no readable Parquet file"),
    "cut qa": Case(TRAIN, cut("qa.parquet"), "no readable Parquet file"),
    "qa is a folder": Case(TRAIN, nothing, "base", {"facts": "individuals.parquet bio.parquet base"}),
    "a column is missing": Case(TRAIN, table("qa.parquet", lambda t: t.drop(["terminator_end"])), "column 'terminator_end' is missing"),
    "a column of another type": Case(TRAIN, table("qa.parquet", column("attribute_start", lambda t: t["attribute_start"].cast("float64"))), "holds double, expected int32"),
    "an empty text": Case(TRAIN, table("bio.parquet", column("text", lambda t: pa.array([None] * len(t), "string"))), "column 'text' is empty"),
    "tables in the wrong order": Case(TRAIN, swap_facts, "bio.parquet\n  why:    column '"),
    "spans beyond the text": Case(RECALL, table("qa.parquet", column("attribute_start", lambda t: pa.array([9999] * len(t), "int32"))), "no tokens stand for the answer"),
    "traced individuals not there": Case(TRAIN, table("individuals.parquet", column("split", lambda t: pa.array(["in"] * len(t)))), "split 'out'"),
    "recall without bio": Case(RECALL, remove("bio.parquet"), "bio.parquet"),
    "recall of a cut table": Case(RECALL, cut("bio.parquet"), "no readable Parquet file"),
    "summary of nothing": Case(SUM, remove("examples.parquet"), "examples.parquet"),
    "summary of other tables": Case(SUM, lambda f: shutil.copy(f / "qa.parquet", f / "examples.parquet"), "column 'correct' is missing"),
    "summary without questions": Case(SUM, remove("qa.parquet"), "qa.parquet"),
    "a seed in words": Case(SUM, nothing, "seed 'one'", {"evaluations": "m mix one examples.parquet"}),
    # Models.
    "no model": Case(TRAIN, remove("base"), "base"),
    "no config": Case(TRAIN, remove("base/config.json"), "cannot be opened"),
    "cut config": Case(TRAIN, cut("base/config.json"), "cannot be opened"),
    "cut weights": Case(TRAIN, cut("base/model.safetensors"), "the model cannot be opened"),
    "weights are text": Case(TRAIN, write("base/model.safetensors", b"weights"), "the model cannot be opened"),
    "no weights": Case(TRAIN, remove("base/model.safetensors"), "the model cannot be opened"),
    "a tensor is missing": Case(TRAIN, drop_tensor, "it lacks"),
    "weights of another shape": Case(TRAIN, widen, "the model cannot be opened"),
    "no tokenizer": Case(TRAIN, remove("base/tokenizer.json"), "the tokenizer cannot be opened"),
    "cut tokenizer": Case(TRAIN, cut("base/tokenizer.json"), "the tokenizer cannot be opened"),
    "recall of no model": Case(RECALL, remove("base"), "cannot be opened"),
    "fetch of no weights": Case("fetch-model", remove("own/model.safetensors"), "no safetensors weights"),
    "unknown architecture": Case("fetch-model", bloom, "'bloom'"),
    "damaged lock": Case("fetch-model", lock, "it is no models lock"),
    "model differs from its lock": Case("fetch-model", change_after_lock, "it differs from"),
    # Targets.
    "facts below a file": Case("make-facts", nothing, FILE, {"individuals": "study.yaml/x"}),
    "model below a file": Case(TRAIN, nothing, FILE, {"out": "study.yaml/model"}),
    "model in place of a file": Case(TRAIN, nothing, FILE, {"out": "study.yaml"}),
    "history below a file": Case(TRAIN, nothing, FILE, {"history": "study.yaml/x"}),
    "trace below a file": Case(TRAIN, nothing, FILE, {"trace": "study.yaml/x"}),
    "state below a file": Case(TRAIN, nothing, FILE, {"state": "study.yaml/x"}),
    "answers below a file": Case(RECALL, nothing, FILE, {"out": "study.yaml/x"}),
    "summary below a file": Case(SUM, nothing, FILE, {"out": "study.yaml/x"}),
    "a table in place of a folder": Case(RECALL, nothing, "there is a folder of this name", {"out": "base"}),
    # The command itself.
    "unknown tuning": Case(TRAIN, nothing, "no such tuning", {"tuning": "all"}),
    "seed is no number": Case(TRAIN, nothing, "invalid int value", {"seed": "x"}),
    "two tables of facts": Case(TRAIN, nothing, "there are three", {"facts": "bio.parquet qa.parquet"}),
    "no table of facts": Case(TRAIN, nothing, "expected at least one argument", {"facts": ""}),
    "an option is missing": Case(TRAIN, nothing, "required", {"start": None}),
}  # fmt: skip


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_mistake_is_told_in_one_message(
    workspace: Workspace, capfd: pytest.CaptureFixture[str], case: Case
) -> None:
    folder = workspace.folder
    command = workspace.command(case.command, **case.options)
    case.change(folder)
    before = contents(folder)
    capfd.readouterr()
    try:
        code = main(command)
    except SystemExit as stop:  # argparse's own
        code = int(str(stop.code))
    out, err = capfd.readouterr()
    assert code == 2
    assert case.said in err
    assert "Traceback" not in err + out
    if "usage:" not in err:
        assert err.count("factrecall: ") == 1
        assert "why:" in err and "remedy:" in err

    after = contents(folder)
    assert not list(folder.rglob(".*.tmp"))
    assert before.items() <= after.items()  # what was there is untouched
    for name in after.keys() - before.keys():
        # What a command wrote before its mistake showed is whole.
        path = folder / name
        if path.suffix == ".parquet":
            pd.read_parquet(path)
        elif path.suffix == ".safetensors":
            load_file(path)
