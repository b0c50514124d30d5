"""Compare two results folders of one study: whatever was computed has to be equal.

``python -m tests.compare_studies OLD NEW`` compares the values of every table (those of figures,
too), the tensors and metadata of every tensor file, and the files of every model byte by byte. What
OLD has and NEW lacks is a difference, what only NEW has is listed. Provenance, logs, benchmarks,
images and the page are left out: they name times, code or words. Exit code 1 if anything differs.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors import safe_open

SUFFIXES = (".parquet", ".safetensors", ".json")
LEFT_OUT = ("benchmarks", "claims", "logs", "state", "studies")
"""Folders that hold no results. `claims` are the leases of cluster jobs."""

FILES: tuple[tuple[str, str], ...] = (
    (r"^facts/(?!seed)", "facts/seed0/"),
    (r"\.controls\.", ".baseline."),
    (r"^(shared/.*)\.curve\.", r"\1.overlap_curve."),
    (r"^(shared/.*)\.places\.", r"\1.locations."),
    (r"^tables/shared_places\.", "tables/shared_locations."),
    (r"^(representations/.*)\.signature\.", r"\1.attribution."),
    (r"^tables/signature\.", "tables/attribution."),
    (r"^(figures/.*)/signature\.", r"\1/attribution."),
)
"""Files since renamed: a pattern in the path below the results folder, and its replacement."""

COLUMNS: dict[str, str] = {
    "asked": "evaluated",
    "donor": "source_fact",
    **{f"donors{end}": f"source_answer{end}" for end in ("", "_low", "_high")},
    "draw": "random_order",
    "exchanged": "replaced",
    "priority": "ranking",
}
"""Columns since renamed, of any table that no longer has the former one."""

VALUES: dict[str, dict[str, str]] = {}
"""Words since renamed in a column (by its name today)."""

KEYS: dict[str, str] = {}
"""Names since renamed of tensors and of their files' metadata."""


def paths(folder: Path) -> dict[str, Path]:
    """Return the files to compare, by their path below the folder."""
    found = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*"))}
    return {
        name: path
        for name, path in found.items()
        if path.is_file() and path.suffix in SUFFIXES and name.split("/")[0] not in LEFT_OUT
    }


def renamed(name: str, there: dict[str, Path]) -> str:
    """Return the name that a file of the old folder has in the new one."""
    for old, new in FILES:
        changed = re.sub(old, new, name)
        if name not in there and changed in there:
            return changed
    return name


def values_of(column: pd.Series) -> np.ndarray:
    """Return a column's values, lists as text."""
    found = column.to_numpy()
    lists = any(isinstance(value, np.ndarray) for value in found[:1])
    return np.array([repr(value.tolist()) for value in found]) if lists else found


def equal(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Say where values are equal; what is missing equals what is missing."""
    return np.asarray((pd.isna(old) & pd.isna(new)) | (old == new), bool)


def compare_tables(old: Path, new: Path) -> Iterator[str]:
    """Yield what differs between two tables; "+" begins what only the new one has."""
    before, now = pd.read_parquet(old), pd.read_parquet(new)
    before = before.rename(columns={o: n for o, n in COLUMNS.items() if o not in now.columns})
    for column in now.columns.difference(before.columns):
        yield f"+ column {column}"
    if len(before) != len(now):
        yield f"{len(before):,} rows, now {len(now):,}"
        return
    for column in before.columns:
        if column not in now.columns:
            yield f"column {column} is gone"
            continue
        was = before[column].replace(VALUES[column]) if column in VALUES else before[column]
        first, second = values_of(was), values_of(now[column])
        if not (fits := equal(first, second)).all():
            at = int(np.flatnonzero(~fits)[0])
            count = f"{int((~fits).sum()):,} of {len(now):,} rows"
            kinds = f" ({first.dtype}, {second.dtype})" if first.dtype != second.dtype else ""
            yield (
                f"column {column} differs in {count}, first in row {at}: {first[at]!r}, "
                f"now {second[at]!r}{kinds}"
            )


PROVENANCE = ("provenance", "code", "libraries", "settings", "stage", "checksum", "total_size")
"""Metadata of tensor files that say what made them; the checksum covers them."""


def metadata_of(file: Any) -> dict[str, Any]:
    """Return a tensor file's metadata under today's names, without its provenance."""
    found: dict[str, Any] = {}
    for key, text in (file.metadata() or {}).items():
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        found |= value if isinstance(value, dict) else {key: value}
    return {KEYS.get(k, k): v for k, v in found.items() if k not in PROVENANCE}


def compare_tensors(old: Path, new: Path) -> Iterator[str]:
    """Yield what differs between two tensor files."""
    with safe_open(old, framework="pt") as before, safe_open(new, framework="pt") as now:
        if (was := metadata_of(before)) != (has := metadata_of(now)):
            for key in sorted(was.keys() | has.keys()):
                if was.get(key) != has.get(key):
                    yield f"metadata {key}: {str(was.get(key))[:80]}, now {str(has.get(key))[:80]}"
        names = {name: KEYS.get(name, name) for name in before.keys()}  # noqa: SIM118
        there = set(now.keys())
        yield from (f"+ tensor {name}" for name in sorted(there - set(names.values())))
        for name, today in names.items():
            if today not in there:
                yield f"tensor {name} is gone"
                continue
            a, b = before.get_tensor(name), now.get_tensor(today)
            if (a.dtype, a.shape) != (b.dtype, b.shape):
                yield f"tensor {name}: {a.dtype} {list(a.shape)}, now {b.dtype} {list(b.shape)}"
            elif a.contiguous().numpy().tobytes() != b.contiguous().numpy().tobytes():
                yield f"tensor {name} differs in {int((a != b).sum()):,} of {a.numel():,} numbers"


def compare_bytes(old: Path, new: Path) -> Iterator[str]:
    """Yield a line if two files differ."""
    if old.read_bytes() != new.read_bytes():
        yield "its bytes differ"


COMPARE = {".parquet": compare_tables, ".safetensors": compare_tensors, ".json": compare_bytes}


def compare(old: Path, new: Path) -> list[str]:
    """Return all differences between two results folders; "+" begins what only the new one has."""
    before, now = paths(old), paths(new)
    lines, seen = [], set()
    for name, path in before.items():
        today = renamed(name, now)
        if today not in now:
            lines.append(f"{name}: it is gone")
            continue
        seen.add(today)
        for line in COMPARE[path.suffix](path, now[today]):
            extra = line.startswith("+ ")
            lines.append(f"{'+ ' * extra}{today}: {line.removeprefix('+ ')}")
    return lines + [f"+ {name}" for name in now if name not in seen]


def main() -> int:
    """Print what differs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    chosen = parser.parse_args()
    if not (count := len(paths(chosen.old))):
        parser.error(f"there are no results in {chosen.old}")
    lines = compare(chosen.old, chosen.new)
    print(*lines, sep="\n", end="\n" * bool(lines))
    wrong = sum(not line.startswith("+ ") for line in lines)
    print(f"{count:,} files compared: {wrong or 'no'} differences, {len(lines) - wrong} additions")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
