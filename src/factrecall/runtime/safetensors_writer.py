"""Tensor files: safetensors, written and read tensor by tensor, each with a checksum.

The format is a header of names, dtypes, shapes and places, in JSON, and then the numbers. What is
written passes through memory once: a tensor of another device is fetched alone, its sum is taken
as it goes by, and the sums are put into the header at the end, which has room for them from the
beginning. So no second copy of anything is made, and a reader may open a file and check one tensor
without the others. Reading is left to the library, which checks the header.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from factrecall.runtime.errors import DamagedFile, FactRecallError
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
"""Bytes that are summed and written at a time."""


def write(path: Path, tensors: Mapping[str, torch.Tensor], said: Mapping[str, Any]) -> None:
    """Write a safetensors file with all that is said of it under the metadata key ``factrecall``.

    Parameters
    ----------
    path : Path
        The file, which is overwritten.
    tensors : mapping of str to tensor
        Each is asked for, written and let go: a mapping may make or fetch them. One that knows
        their dtypes and shapes before has a method `forms`; others are asked twice.
    said : mapping
        Values for JSON. ``checksums`` (of each tensor) and ``checksum`` (of all that is said) are
        added.
    """
    if hasattr(tensors, "forms"):
        forms = tensors.forms()
    else:
        forms = {name: (t.dtype, tuple(t.shape)) for name, t in tensors.items()}
    # Falling sizes of numbers keep each aligned.
    order = sorted(forms, key=lambda name: (-forms[name][0].itemsize, name))
    sums = dict.fromkeys(order, 0)
    with path.open("wb") as file:
        file.write(_header(forms, said, sums))
        for name in order:
            tensor = tensors[name]
            content, sums[name] = _bytes(tensor), _begin(name, tensor)
            for start in range(0, len(content), _CHUNK):
                part = content[start : start + _CHUNK]
                sums[name] = zlib.crc32(part, sums[name])
                file.write(part)
            del tensor, content  # before the next is made
        file.seek(0)
        file.write(_header(forms, said, sums))


def checksum(name: str, tensor: torch.Tensor) -> str:
    """Return the sum over a tensor's name, dtype, shape and numbers (8 hex digits)."""
    return f"{zlib.crc32(_bytes(tensor), _begin(name, tensor)):08x}"


def checksum_of(said: Mapping[str, Any]) -> str:
    """Return the sum over what is said in a header (8 hex digits)."""
    return f"{zlib.crc32(to_json(said).encode()):08x}"


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
    said: Mapping[str, Any],
    sums: Mapping[str, int],
) -> bytes:
    """Return the header for tensors in the order of `sums`, on which its length does not depend."""
    told = {**said, "checksums": {name: f"{total:08x}" for name, total in sums.items()}}
    told["checksum"] = checksum_of(told)
    # One key holds it all: the library knows texts only.
    content: dict[str, Any] = {"__metadata__": {"factrecall": to_json(told)}}
    start = 0
    for name in sums:
        dtype, shape = forms[name]
        end = start + math.prod(shape) * dtype.itemsize
        content[name] = {"dtype": _NAMES[dtype], "shape": shape, "data_offsets": (start, end)}
        start = end
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def write_tensors(
    path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, Any]
) -> None:
    """Write named tensors as safetensors; `metadata` values are kept as JSON.

    Tensors of another device are fetched one at a time; those of this one are not copied.
    """
    with atomic(path) as temporary:
        # As it will be read, where all keys are texts: the checksum is over that.
        write(temporary, tensors, json.loads(to_json(dict(metadata))))


class Tensors(Mapping[str, torch.Tensor]):
    """A tensor file that is open: a tensor is read, and checked, when it is asked for.

    Attributes
    ----------
    path : Path
        The file.
    metadata : dict
        What it says of its own making (see `write_tensors`).

    Notes
    -----
    A tensor that was read is a view of the file: it takes memory of the page cache, which the
    system takes back when it needs to, and keeps the file open for as long as it is there.
    """

    def __init__(self, path: Path, file: Any) -> None:
        self.path, self._file = path, file
        self.metadata: dict[str, Any] = json.loads((file.metadata() or {})["factrecall"])
        if self.metadata.pop("checksum", None) != checksum_of(self.metadata):
            raise ValueError("its checksum differs, or it is of another version")
        self._sums: dict[str, str] = self.metadata.pop("checksums")
        if sorted(file.keys()) != sorted(self._sums):
            raise ValueError("its tensors are not those that it was written with")

    def __getitem__(self, name: str) -> torch.Tensor:
        total = self._sums[name]
        try:
            tensor: torch.Tensor = self._file.get_tensor(name)
            if checksum(name, tensor) != total:
                raise ValueError(f"the checksum of {name} differs")
        except (SafetensorError, OSError, RuntimeError, ValueError) as error:
            raise _unreadable_tensors(self.path, error) from error
        return tensor

    def __contains__(self, name: object) -> bool:
        return name in self._sums

    def __iter__(self) -> Iterator[str]:
        return iter(self._sums)

    def __len__(self) -> int:
        return len(self._sums)


def open_tensors(path: Path, said: Sequence[str] = ()) -> Tensors:
    """Open a safetensors file of this project; its tensors are read when they are asked for.

    Parameters
    ----------
    path : Path
        From `write_tensors`. Another file may take its place while it is open: what is read is
        still of this one.
    said : sequence of str
        What its metadata has to say.

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
        # The library opens a file twice, for its header and for its numbers: between the two
        # another file may have taken its place.
        if _stamp(path) == stamp:
            break
    if missing := [key for key in said if key not in opened.metadata]:
        why = f"it is a file of another kind: its metadata has no {missing[0]!r}"
        raise DamagedFile(path, why, "name the right file; --help says which")
    return opened


def read_tensors(
    path: Path, said: Sequence[str] = ()
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read all tensors of a safetensors file and its metadata (see `open_tensors`)."""
    opened = open_tensors(path, said)
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
