"""The bytes of a tensor file: safetensors, written tensor by tensor, each with a checksum.

The format is a header of names, dtypes, shapes and places, in JSON, and then the numbers. What is
written passes through memory once: a tensor of another device is fetched alone, its sum is taken
as it goes by, and the sums are put into the header at the end, which has room for them from the
beginning. So no second copy of anything is made, and a reader may check one tensor without the
others. Reading is left to the library, which checks the header.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

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
    return f"{zlib.crc32(_json(said).encode()):08x}"


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
    content: dict[str, Any] = {"__metadata__": {"factrecall": _json(told)}}
    start = 0
    for name in sums:
        dtype, shape = forms[name]
        end = start + math.prod(shape) * dtype.itemsize
        content[name] = {"dtype": _NAMES[dtype], "shape": shape, "data_offsets": (start, end)}
        start = end
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _json(said: Mapping[str, Any]) -> str:
    return json.dumps(said, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
