"""Files are whole or absent, say what is wrong with them, and have the same bytes each time."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors
import torch
from safetensors.torch import load_file, save_file

from factrecall.runtime import safetensors_writer
from factrecall.runtime.errors import DamagedFile, FactRecallError
from factrecall.runtime.safetensors_writer import open_tensors, read_tensors, write_tensors
from factrecall.runtime.storage import (
    arrow_schema,
    atomic,
    read_provenance,
    read_table,
    remove_leftovers,
    to_json,
    write_table,
    write_text,
)

SCHEMA = {"seed": "int32", "split": "string", "accuracy": "float64", "spans": "list<int32>"}


def frame() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "accuracy": [0.5, np.nan, 1.0],
            "seed": np.array([1, 2, 3], dtype=np.int32),
            "split": ["in", "óut, with «marks»", ""],
            "spans": [[1, 2], [], [3]],
        }
    )


def tensors() -> dict[str, torch.Tensor]:
    return {
        "b/index": torch.arange(5).to(torch.uint32),
        "a/value": torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).T,
        "history": torch.tensor([[1.0, float("nan")]], dtype=torch.float64),
    }


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- atomic -----------------------------------------------------------------------------------


def test_a_file_appears_with_its_folders(tmp_path: Path) -> None:
    write_text(tmp_path / "a" / "b" / "c.txt", "é")
    assert (tmp_path / "a" / "b" / "c.txt").read_bytes() == "é".encode()
    assert names(tmp_path / "a" / "b") == ["c.txt"]


def test_nothing_stands_at_the_target_before_the_end(tmp_path: Path) -> None:
    with atomic(tmp_path / "x") as temporary:
        temporary.write_text("whole")
        assert not (tmp_path / "x").exists()
    assert names(tmp_path) == ["x"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_exception_leaves_a_file_as_it_was(tmp_path: Path, error: type[BaseException]) -> None:
    write_text(tmp_path / "x", "old")
    with pytest.raises(error), atomic(tmp_path / "x") as temporary:
        temporary.write_text("half")
        raise error
    assert (tmp_path / "x").read_text() == "old"
    assert names(tmp_path) == ["x"]


def test_an_exception_leaves_a_folder_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_text("old")
    with pytest.raises(ValueError), atomic(tmp_path / "model") as temporary:
        temporary.mkdir()
        (temporary / "weights").write_text("half")
        raise ValueError
    assert (tmp_path / "model" / "weights").read_text() == "old"
    assert names(tmp_path) == ["model"]


def test_a_folder_replaces_a_folder_with_all_that_was_in_it(tmp_path: Path) -> None:
    for name in ("one", "two"):
        with atomic(tmp_path / "model") as temporary:
            temporary.mkdir()
            (temporary / name).write_text(name)
    assert names(tmp_path) == ["model"]
    assert names(tmp_path / "model") == ["two"]


def test_a_file_never_replaces_a_folder(tmp_path: Path) -> None:
    """As with ``factrecall plan --json results``."""
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "weights").write_text("old")
    with pytest.raises(FactRecallError, match="there is a folder of this name"):
        write_text(tmp_path / "results", "{}")
    assert (tmp_path / "results" / "weights").read_text() == "old"
    assert names(tmp_path) == ["results"]


def refuse(kind: int, after: int) -> Callable[[Path, Path], None]:
    """Return an `os.replace` that fails once, at call number `after`."""
    calls = []
    real = os.replace

    def replace(source: Path, target: Path) -> None:
        calls.append(source)
        if len(calls) == after:
            raise OSError(kind, os.strerror(kind))
        real(source, target)

    return replace


@pytest.mark.parametrize("after", [1, 2])
def test_a_folder_that_cannot_be_replaced_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_text("old")
    monkeypatch.setattr("factrecall.runtime.storage.os.replace", refuse(errno.ENOSPC, after))
    with pytest.raises(FactRecallError), atomic(tmp_path / "model") as temporary:
        temporary.mkdir()
    assert (tmp_path / "model" / "weights").read_text() == "old"
    assert names(tmp_path) == ["model"]


@pytest.mark.parametrize("kind", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT])
def test_a_disk_that_refuses_is_told_and_the_old_file_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: int
) -> None:
    write_text(tmp_path / "x", "old")
    monkeypatch.setattr("factrecall.runtime.storage.os.replace", refuse(kind, 1))
    with pytest.raises(FactRecallError) as caught:
        write_text(tmp_path / "x", "new")
    assert caught.value.where == f"cannot write {tmp_path / 'x'}"
    assert caught.value.why == os.strerror(kind)
    assert (tmp_path / "x").read_text() == "old"
    assert names(tmp_path) == ["x"]


def test_a_parent_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FactRecallError, match="cannot write"):
        write_text(tmp_path / "file" / "x", "new")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_disk_that_fills_up_while_writing_is_told_by_every_writer(tmp_path: Path) -> None:
    # A limit on the size of files is as real as a full disk, and needs no disk of its own.
    script = f"""
        import resource, signal
        from pathlib import Path
        import numpy as np, pandas as pd, torch
        from factrecall.runtime.errors import DamagedFile, FactRecallError
        from factrecall.runtime.storage import write_table, write_text
        from factrecall.runtime.safetensors_writer import write_tensors
        folder = Path({str(tmp_path)!r})
        numbers = pd.DataFrame({{"a": np.random.default_rng(0).random(9999)}})
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
        writers = (
            lambda: write_text(folder / "a", "x" * 9999),
            lambda: write_table(folder / "b", numbers, {{"a": "float64"}}),
            lambda: write_tensors(folder / "c", {{"a": torch.zeros(9999)}}, {{}}),
        )
        for write in writers:
            try:
                write()
            except FactRecallError as error:
                print(error.where.split("/")[-1], "too large" in error.why)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], text=True, capture_output=True, check=True
    )
    assert done.stdout.split("\n")[:3] == ["a True", "b True", "c True"]
    assert names(tmp_path) == []


def test_leftovers_of_a_target_are_removed_and_nothing_else(tmp_path: Path) -> None:
    keep = ["x", "x.tmp", ".xy.1-a.tmp", ".x.json"]
    for name in (*keep, ".x.17-abc.tmp"):
        (tmp_path / name).write_text("")
    (tmp_path / ".x.18-abc.tmp").mkdir()
    (tmp_path / ".x.18-abc.tmp" / "inside").write_text("")
    remove_leftovers(tmp_path / "x")
    assert names(tmp_path) == sorted(keep)
    remove_leftovers(tmp_path / "no such folder" / "x")


# --- tables -----------------------------------------------------------------------------------


def test_a_table_comes_back_as_it_was(tmp_path: Path) -> None:
    write_table(tmp_path / "t.parquet", frame(), SCHEMA)
    back = read_table(tmp_path / "t.parquet", SCHEMA)
    assert list(back) == list(SCHEMA)
    assert back["seed"].tolist() == [1, 2, 3]
    assert back["split"].tolist() == frame()["split"].tolist()
    np.testing.assert_array_equal(back["accuracy"], frame()["accuracy"])
    assert [list(row) for row in back["spans"]] == [[1, 2], [], [3]]
    assert pq.read_schema(tmp_path / "t.parquet").remove_metadata() == arrow_schema(SCHEMA)


def test_the_same_table_has_the_same_bytes_whatever_the_order_of_columns(tmp_path: Path) -> None:
    write_table(tmp_path / "a", frame(), SCHEMA, {"b": 1, "a": 2})
    write_table(tmp_path / "b", frame()[list(reversed(SCHEMA))], SCHEMA, {"a": 2, "b": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_provenance_comes_back(tmp_path: Path) -> None:
    provenance = {"settings": {"rate": 1e-4, "name": "é"}, "list": [1, None, True]}
    write_table(tmp_path / "a", frame(), SCHEMA, provenance)
    write_table(tmp_path / "b", frame(), SCHEMA)
    assert read_provenance(tmp_path / "a") == provenance
    assert read_provenance(tmp_path / "b") == {}


def test_columns_that_are_not_of_the_schema_are_not_written(tmp_path: Path) -> None:
    for wrong in (frame().assign(more=1), frame().drop(columns="seed")):
        with pytest.raises(ValueError, match="expected"):
            write_table(tmp_path / "t", wrong, SCHEMA)
    assert names(tmp_path) == []


def test_more_columns_may_be_read(tmp_path: Path) -> None:
    write_table(tmp_path / "t", frame(), SCHEMA)
    assert len(read_table(tmp_path / "t", {"seed": "int32"})) == 3


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("seed", None, "column 'seed' is missing (found: split, accuracy, spans)"),
        ("seed", pa.array([1, 2, 3], pa.int64()), "column 'seed' holds int64, expected int32"),
        ("seed", pa.array([1, None, 3], pa.int32()), "column 'seed' is empty in 1 rows"),
        ("split", pa.array([None, None, "a"], pa.string()), "column 'split' is empty in 2 rows"),
        ("split", pa.array([1, 2, 3]), "column 'split' holds int64, expected string"),
        ("spans", pa.array([[1.0], [], []]), "column 'spans' holds list<"),
    ],
)
def test_a_table_of_another_form_is_refused(
    tmp_path: Path, column: str, values: pa.Array | None, message: str
) -> None:
    table = pa.Table.from_pandas(frame()[list(SCHEMA)], schema=arrow_schema(SCHEMA))
    place = table.column_names.index(column)
    table = table.remove_column(place)
    if values is not None:
        table = table.add_column(place, column, values)
    pq.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(FactRecallError) as caught:
        read_table(tmp_path / "t.parquet", SCHEMA)
    assert message in caught.value.why
    assert caught.value.where == str(tmp_path / "t.parquet")


def damage(path: Path, kind: str) -> None:
    """Damage a file: gone, empty, cut off, other content, a flipped part, or a folder."""
    content = path.read_bytes()
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind != "missing":
        middle = len(content) // 2
        new = {
            "empty": b"",
            "cut": content[:middle],
            "text": b"seed,split\n1,in\n",
            "header": b"\xff" * 40 + content[40:],
        }
        path.write_bytes(new[kind])


DAMAGE = ["missing", "empty", "cut", "text", "header", "folder"]


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_table_is_told(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "t.parquet"
    write_table(path, frame(), SCHEMA)
    damage(path, kind)
    with pytest.raises(FactRecallError) as caught:
        read_table(path, SCHEMA)
    assert caught.value.where == str(path)
    assert "\n" not in caught.value.why
    assert isinstance(caught.value, DamagedFile) == (kind != "missing")


# --- tensors ----------------------------------------------------------------------------------


def test_tensors_come_back_as_they_were(tmp_path: Path) -> None:
    write_tensors(tmp_path / "t", tensors(), {"n": 5, "names": ("a", "b")})
    back, metadata = read_tensors(tmp_path / "t")
    assert metadata == {"n": 5, "names": ["a", "b"]}
    assert set(back) == set(tensors())
    for name, tensor in tensors().items():
        assert back[name].dtype == tensor.dtype
        np.testing.assert_array_equal(back[name].numpy(), tensor.numpy())


def test_the_same_tensors_have_the_same_bytes(tmp_path: Path) -> None:
    write_tensors(tmp_path / "a", tensors(), {"a": 1, "b": 2})
    write_tensors(tmp_path / "b", dict(reversed(tensors().items())), {"b": 2, "a": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_tensor_file_is_told(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "t.safetensors"
    write_tensors(path, tensors(), {})
    damage(path, kind)
    with pytest.raises(FactRecallError) as caught:
        read_tensors(path)
    assert caught.value.where == str(path)
    assert isinstance(caught.value, DamagedFile) == (kind != "missing")


def test_a_file_that_is_replaced_while_it_is_read_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The library opens a file twice; here its first opening met the header of one file and the
    # numbers of another, which has taken its place.
    path, torn = tmp_path / "x.safetensors", tmp_path / "torn.safetensors"
    write_tensors(torn, {"x": torch.zeros(1000)}, {"update": 1})
    write_tensors(path, {"x": torch.ones(1000)}, {"update": 1})
    header = torn.read_bytes()[:-4000]
    torn.write_bytes(header + path.read_bytes()[-4000:])
    opened = []

    def safe_open(name: Path, framework: str) -> object:
        opened.append(name)
        if len(opened) > 1:
            return real(name, framework=framework)
        write_tensors(path, {"x": torch.ones(1000)}, {"update": 1})
        return real(torn, framework=framework)

    real = safetensors.safe_open
    monkeypatch.setattr(safetensors_writer, "safe_open", safe_open)
    tensors, _ = read_tensors(path)
    assert opened == [path, path] and tensors["x"].unique().tolist() == [1]
    with pytest.raises(DamagedFile):
        read_tensors(torn)


def test_a_kill_while_tensors_are_written_leaves_nothing_that_is_not_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(safetensors_writer, "_bytes", lambda tensor: os._exit(9))
    path = tmp_path / "x.safetensors"
    if (child := os.fork()) == 0:
        try:
            write_tensors(path, {"x": torch.zeros(3)}, {})
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert list(tmp_path.iterdir())
    remove_leftovers(path)
    assert not list(tmp_path.iterdir())


def flip(path: Path, name: str) -> None:
    """Flip a bit of a tensor's last number."""
    content = bytearray(path.read_bytes())
    length = int.from_bytes(content[:8], "little")
    end = json.loads(content[8 : 8 + length])[name]["data_offsets"][1]
    content[8 + length + end - 1] ^= 1
    path.write_bytes(content)


def test_a_tensor_is_checked_when_it_is_read_and_not_before(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    held = {"a": torch.arange(5.0), "b": torch.arange(7), "c": torch.ones(2, 3)}
    write_tensors(path, held, {"n": 1})
    flip(path, "b")
    opened = open_tensors(path, ("n",))
    assert opened.metadata == {"n": 1} and sorted(opened) == ["a", "b", "c"] and len(opened) == 3
    assert torch.equal(opened["a"], held["a"]) and torch.equal(opened["c"], held["c"])
    for read in (lambda: opened["b"], lambda: read_tensors(path)):
        with pytest.raises(DamagedFile, match="checksum of b differs") as caught:
            read()
        assert caught.value.path == path
    with pytest.raises(KeyError):
        opened["d"]


def test_a_file_replaced_while_it_is_open_is_read_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    write_tensors(path, {"a": torch.zeros(9), "b": torch.zeros(9)}, {})
    opened = open_tensors(path)
    assert not opened["a"].any()
    write_tensors(path, {"a": torch.ones(9), "b": torch.ones(9)}, {})
    assert not opened["b"].any() and open_tensors(path)["b"].all()


def test_the_library_reads_what_is_written(tmp_path: Path) -> None:
    odd = torch.zeros(7)[::7]  # one number that is no row of bytes
    dtypes = (torch.bool, torch.uint8, torch.bfloat16, torch.float64, torch.uint32, torch.int64)
    held = {str(d): torch.arange(6).to(d).view(2, 3) for d in dtypes}
    held |= {
        "odd": odd,
        "empty": torch.empty(0, 4),
        "number": torch.tensor(3),
        "t": held["torch.int64"].T,
    }
    write_tensors(tmp_path / "ours", held, {"é": 1})
    save_file(
        {n: t.clone(memory_format=torch.contiguous_format) for n, t in held.items()},
        tmp_path / "theirs",
    )
    found, expected = load_file(tmp_path / "ours"), load_file(tmp_path / "theirs")
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor)


def test_a_tensor_file_of_others_is_refused(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(2)}, tmp_path / "t")
    with pytest.raises(FactRecallError, match="of this project"):
        read_tensors(tmp_path / "t")


def test_equal_values_give_equal_text() -> None:
    assert (
        to_json({"b": (1, 2), "a": "é"})
        == to_json({"a": "é", "b": [1, 2]})
        == '{"a":"é","b":[1,2]}'
    )
