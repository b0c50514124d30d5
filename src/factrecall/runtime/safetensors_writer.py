"""Safetensors files, written and read tensor by tensor, each with a checksum.

The format is a JSON header of names, dtypes, shapes and offsets, and then the numbers. The library
cannot stream; here what is written passes through memory once, and the checksums go into the room
that the header has for them. A reader may open a file and check one tensor without the others.
Reading is left to the library, which checks the header.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from factrecall.runtime.errors import DamagedFile, FactRecallError
from factrecall.runtime.lazy_mapping import LazyMapping
from factrecall.runtime.storage import atomic, to_json, unreadable

_NAMES = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.uint16: "U16",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int32: "I32",
    torch.uint32: "U32",
    torch.float32: "F32",
    torch.int64: "I64",
    torch.uint64: "U64",
    torch.float64: "F64",
}
"""What safetensors calls dtypes."""

_CHUNK = 1 << 24
"""Bytes that are written at a time."""


def write_tensors(
    path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, Any]
) -> None:
    """Write named tensors as safetensors, atomically.

    Parameters
    ----------
    path : Path
        Target.
    tensors : mapping of str to tensor
        Each is read, written and let go, so a mapping may make or fetch them. One that knows their
        dtypes and shapes before has a method `forms`; others are read twice.
    metadata : mapping
        Values for JSON, under the metadata key ``factrecall``. ``checksums`` (of each tensor) and
        ``checksum`` (of the metadata) are added.
    """
    # As it will be read, where all keys are strings: the checksum is over that.
    metadata = json.loads(to_json(dict(metadata)))
    if hasattr(tensors, "forms"):
        forms = tensors.forms()
    else:
        forms = {name: (t.dtype, tuple(t.shape)) for name, t in tensors.items()}
    # Falling sizes of numbers keep each aligned.
    order = sorted(forms, key=lambda name: (-forms[name][0].itemsize, name))
    sums = dict.fromkeys(order, 0)
    with atomic(path) as temporary, temporary.open("wb") as file:
        file.write(_header(forms, metadata, sums))
        for name in order:
            tensor = tensors[name]
            content, sums[name] = _bytes(tensor), _begin(name, tensor)
            for start in range(0, len(content), _CHUNK):
                part = content[start : start + _CHUNK]
                sums[name] = zlib.crc32(part, sums[name])
                file.write(part)
            del tensor, content  # before the next is made
        file.seek(0)
        file.write(_header(forms, metadata, sums))


def _metadata_checksum(metadata: Mapping[str, Any]) -> str:
    return f"{zlib.crc32(to_json(metadata).encode()):08x}"


def _begin(name: str, tensor: torch.Tensor) -> int:
    return zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())


def _bytes(tensor: torch.Tensor) -> memoryview:
    """Return a tensor's numbers, row-major; a copy only where they lie otherwise or elsewhere."""
    flat = tensor.detach().cpu().reshape(-1)
    if flat.stride(0) != 1:  # as one number may have it, or none
        flat = flat.clone(memory_format=torch.contiguous_format)
    view: memoryview = flat.view(torch.uint8).numpy().data
    return view


def _header(
    forms: Mapping[str, tuple[torch.dtype, tuple[int, ...]]],
    metadata: Mapping[str, Any],
    sums: Mapping[str, int],
) -> bytes:
    """Return the header for tensors in the order of `sums`, on which its length does not depend."""
    checksums = {name: f"{total:08x}" for name, total in sums.items()}
    values = {**metadata, "checksums": checksums}
    values["checksum"] = _metadata_checksum(values)
    # One key holds it all: the library knows strings only.
    content: dict[str, Any] = {"__metadata__": {"factrecall": to_json(values)}}
    start = 0
    for name in sums:
        dtype, shape = forms[name]
        end = start + math.prod(shape) * dtype.itemsize
        content[name] = {"dtype": _NAMES[dtype], "shape": shape, "data_offsets": (start, end)}
        start = end
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


class Tensors(LazyMapping[str, torch.Tensor]):
    """An open tensor file: a tensor is read, and checked, when it is asked for.

    Attributes
    ----------
    path : Path
    metadata : dict
        See `write_tensors`.

    Notes
    -----
    A tensor that was read is a view of the file: it takes memory of the page cache only, and keeps
    the file open.
    """

    def __init__(self, path: Path, file: Any) -> None:
        self.path, self._file = path, file
        self.metadata: dict[str, Any] = json.loads((file.metadata() or {})["factrecall"])
        if self.metadata.pop("checksum", None) != _metadata_checksum(self.metadata):
            raise ValueError("its checksum differs, or it is of another version")
        self._sums: dict[str, str] = self.metadata.pop("checksums")
        if sorted(file.keys()) != sorted(self._sums):
            raise ValueError("its tensors are not those that it was written with")
        super().__init__(self._sums)

    def _read(self, name: str) -> torch.Tensor:
        try:
            tensor: torch.Tensor = self._file.get_tensor(name)
            if f"{zlib.crc32(_bytes(tensor), _begin(name, tensor)):08x}" != self._sums[name]:
                raise ValueError(f"the checksum of {name} differs")
        except (SafetensorError, OSError, RuntimeError, ValueError) as error:
            raise _unreadable_tensors(self.path, error) from error
        return tensor


def open_tensors(path: Path, required: Sequence[str] = ()) -> Tensors:
    """Open a safetensors file of this project.

    Parameters
    ----------
    path : Path
        From `write_tensors`. It may be replaced while it is open: what is read is still of this
        file.
    required : sequence of str
        Keys that its metadata must have.

    Raises
    ------
    FactRecallError
        When the file is missing or cannot be read; a `DamagedFile` when it is cut off, changed,
        not of our making or of another kind. A tensor that was changed is found when it is read.
    """
    while True:
        stamp = _stamp(path)
        try:
            if path.is_dir():
                raise ValueError("it is a folder")
            opened = Tensors(path, safe_open(path, framework="pt"))
        except (SafetensorError, OSError, KeyError, RuntimeError, ValueError) as error:
            if _stamp(path) != stamp:
                continue
            raise _unreadable_tensors(path, error) from error
        # The library opens a file twice, for its header and for its numbers: it may have been
        # replaced between the two.
        if _stamp(path) == stamp:
            break
    if missing := [key for key in required if key not in opened.metadata]:
        why = f"it is a file of another kind: its metadata has no {missing[0]!r}"
        raise DamagedFile(path, why, "name the right file; --help says which")
    return opened


def read_tensors(
    path: Path, required: Sequence[str] = ()
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read all tensors of a safetensors file and its metadata (see `open_tensors`)."""
    opened = open_tensors(path, required)
    return dict(opened), opened.metadata


def _unreadable_tensors(path: Path, error: Exception) -> FactRecallError:
    damaged = not isinstance(error, (OSError, RuntimeError))
    return unreadable(path, "safetensors file of this project", error, damaged)


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns
