"""Atomic files, and Parquet tables (tensors: `runtime.safetensors_writer`).

Everything is written to a temporary name beside its target, flushed to disk and renamed, so that a
reader sees a whole file or none. A file's provenance (settings, versions) is in its metadata;
times stay out, so that the same inputs give the same bytes. Checksums find a flipped bit. A file
that is damaged is told from one that the machine failed to read: only the first is to be remade.
"""

from __future__ import annotations

import errno
import glob
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from factrecall.runtime import lease
from factrecall.runtime.errors import DamagedFile, FactRecallError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

Schema = Mapping[str, str]
"""Column name to Arrow type name, e.g. ``{"seed": "int32", "accuracy": "float64"}``."""

APART = 50
"""After a checkpoint that took over a second to write, the next waits so many times as long."""


@contextmanager
def atomic(target: Path) -> Iterator[Path]:
    """Yield a temporary path that becomes `target` if the block succeeds.

    The block may make a file or a folder there. On any exception the temporary path is removed
    and `target` stays as it was. (A folder cannot be replaced in one step: the old one is renamed
    first, and renamed back if the new one cannot take its place.)

    Raises
    ------
    FactRecallError
        When the disk refuses (full, read-only, no permission).
    Interrupted
        When another job was given the right to write this one's outputs.
    """
    from safetensors import SafetensorError  # what a full disk is to that library

    temporary = target.with_name(f".{target.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp")
    try:
        lease.check()
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _flush(temporary)
        lease.check()
        _replace(temporary, target)
        _flush(target.parent, members=False)
    except (OSError, SafetensorError) as error:
        raise disk_error(target, error) from error
    finally:
        _remove(temporary)


def remove_leftovers(target: Path) -> None:
    """Remove what a killed process left of writing `target`; no other may be writing it now."""
    for leftover in target.parent.glob(f".{glob.escape(target.name)}.*.tmp"):
        _remove(leftover)


def _replace(temporary: Path, target: Path) -> None:
    if not target.is_dir():
        os.replace(temporary, target)
        return
    if not temporary.is_dir():  # or all in the folder would be lost
        raise IsADirectoryError(errno.EISDIR, "it is a folder", str(target))
    aside = temporary.with_name(f"{temporary.name.removesuffix('.tmp')}-old.tmp")
    os.replace(target, aside)
    try:
        os.replace(temporary, target)
    except BaseException:
        os.replace(aside, target)
        raise
    _remove(aside)


def _flush(path: Path, *, members: bool = True) -> None:
    inside = path.rglob("*") if members and path.is_dir() else ()
    for member in (*inside, path):
        descriptor = os.open(member, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):  # it must not hide the error that led here
            path.unlink(missing_ok=True)


def disk_error(target: Path | str, error: Exception) -> FactRecallError:
    """Return the error for a disk that refuses to take a file."""
    if isinstance(error, IsADirectoryError):
        remedy = "name another path, or move the folder"
        return FactRecallError(f"cannot write {target}", "there is a folder of this name", remedy)
    if isinstance(error, FileExistsError | NotADirectoryError):
        why = "a part of this path is a file, or the target is one where a folder is to be written"
        return FactRecallError(f"cannot write {target}", why, "name another path, or move the file")
    return FactRecallError(
        f"cannot write {target}",
        getattr(error, "strerror", None) or _first_line(error),
        "free some space or make the folder writable, then run again; what was there before "
        "is untouched",
    )


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def to_json(value: Any) -> str:
    """Serialise with sorted keys, so that equal values give equal text."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


# --- tables -----------------------------------------------------------------------------------


def arrow_schema(schema: Schema) -> pa.Schema:
    """Turn a `Schema` into Arrow's own."""
    import pyarrow as pa

    def parse(name: str) -> pa.DataType:
        if name.startswith("list<"):
            return pa.list_(parse(name[5:-1]))
        return pa.type_for_alias(name)

    return pa.schema([pa.field(column, parse(kind)) for column, kind in schema.items()])


def write_table(
    path: Path, frame: pd.DataFrame, schema: Schema, provenance: Mapping[str, Any] | None = None
) -> None:
    """Write a frame as Parquet with exactly the columns and types of `schema`.

    It is replaced atomically; `provenance` is kept as JSON under the metadata key ``factrecall``.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if set(frame.columns) != set(schema):
        raise ValueError(f"{path}: columns {sorted(frame.columns)}, expected {sorted(schema)}")
    table = pa.Table.from_pandas(
        frame[list(schema)], schema=arrow_schema(schema), preserve_index=False
    )
    table = table.replace_schema_metadata({"factrecall": to_json(dict(provenance or {}))})
    with atomic(path) as temporary:
        pq.write_table(table, temporary, compression="zstd", write_page_checksum=True)


def read_table(path: Path | str, schema: Schema | None = None) -> pd.DataFrame:
    """Read a Parquet file, checked against `schema` (more columns are allowed).

    Raises
    ------
    FactRecallError
        When the file is missing or cannot be read; a `DamagedFile` when it is damaged, or a
        column is missing, of another type or (but for floating-point ones, where that is NaN)
        not filled in every row.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = Path(path)
    try:
        if path.is_dir():  # the library would take it for a table in parts
            raise pa.ArrowInvalid("it is a folder")
        table = pq.read_table(path, page_checksum_verification=True)
    except (OSError, pa.ArrowException) as error:
        # The library has an OSError for what it cannot decode, too, but then without a number.
        machine = getattr(error, "errno", None) or isinstance(error, FileNotFoundError)
        damaged = isinstance(error, OSError | pa.ArrowInvalid) and not machine
        raise unreadable(path, "Parquet file", error, damaged) from error
    for field in arrow_schema(schema or {}):
        if field.name not in table.column_names:
            why = f"column {field.name!r} is missing (found: {', '.join(table.column_names)})"
            raise DamagedFile(path, why)
        found = table.schema.field(field.name).type
        if found != field.type:
            why = f"column {field.name!r} holds {found}, expected {field.type}"
            raise DamagedFile(path, why)
        if table[field.name].null_count and not pa.types.is_floating(found):
            why = f"column {field.name!r} is empty in {table[field.name].null_count} rows"
            raise DamagedFile(path, why)
    return table.to_pandas()


def read_provenance(path: Path) -> dict[str, Any]:
    """Return a table's provenance (see `write_table`)."""
    import pyarrow.parquet as pq

    metadata = pq.read_schema(path).metadata or {}
    result: dict[str, Any] = json.loads(metadata.get(b"factrecall", b"{}"))
    return result


def unreadable(path: Path, kind: str, error: Exception, damaged: bool) -> FactRecallError:
    """Return the error for a file that is damaged, missing, or not given by the machine."""
    if not path.exists():
        remedy = "run the workflow again; it makes what is missing"
        return FactRecallError(str(path), "there is no such file", remedy)
    if damaged:
        return DamagedFile(path, f"it is no readable {kind} ({_first_line(error)})")
    return FactRecallError(
        str(path),
        f"it cannot be read ({_first_line(error)})",
        "see whether you may read it, whether its disk is well and the memory enough; run again",
    )


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]
