"""YAML files, with the line of every key and a message for every key that is given twice.

PyYAML reads them because Snakemake reads with it, and both must see the same values. With
ruamel.yaml `1e-4` is a number, values are not plain, and reading ends at the first key given twice.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from factrecall.runtime.errors import FactRecallError

KeyPath = tuple[str | int, ...]
"""Place of a value: keys of mappings and positions in lists, from the top."""

_FORM = "write `key: value` lines; the files in workflow/presets/ are complete examples"

# PyYAML passes on whatever its constructors meet in a value like 2024-99-99 or `!!bool maybe`.
_UNCAUGHT = (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError)


@dataclass(frozen=True)
class Document:
    """A YAML file whose top level is a mapping."""

    name: str
    values: dict[Any, Any]
    lines: dict[KeyPath, int]
    """Line (from 1) of each key and list item; what an alias stands for is listed at its anchor."""
    mistakes: tuple[FactRecallError, ...]
    """Keys given twice."""


def read_yaml(path: Path) -> Document:
    """Read a YAML file, or by its suffix a JSON file (where YAML would take 1e-05 for text).

    Raises
    ------
    FactRecallError
        With line and column, when it cannot be read, is not YAML, is empty or is no mapping.
    """
    text, values = _text(path), None
    lines: dict[KeyPath, int] = {}
    twice = []
    try:
        if path.suffix == ".json":
            values = json.loads(text)
        else:
            loader = yaml.SafeLoader(text)
            if root := loader.get_single_node():
                for place, line in _keys(root, (), (), set()):
                    if place in lines:
                        twice.append(_twice(f"{path}:{line}: {dotted(place)}", lines[place]))
                    lines[place] = line
                values = loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        raise _broken(path, text, error) from error
    except RecursionError as error:
        raise FactRecallError(str(path), "it is nested too deeply", _FORM) from error
    except _UNCAUGHT as error:
        raise FactRecallError(str(path), f"it is not valid: {_one_line(error)}", _FORM) from error
    if values is None:
        raise FactRecallError(str(path), "it is empty", _FORM)
    if not isinstance(values, dict):
        raise FactRecallError(str(path), "its top level is no mapping of keys to values", _FORM)
    return Document(str(path), values, lines, tuple(twice))


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        remedy = f"mend the path; it starts at {Path.cwd()}"
        raise FactRecallError(str(path), "there is no such file", remedy) from error
    except (OSError, ValueError) as error:  # a folder, no permission; a null byte in the name
        why = f"it cannot be read: {_one_line(error)}"
        raise FactRecallError(str(path), why, "name a readable YAML file") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        why = f"it is not UTF-8: {error.reason} (byte {error.start})"
        remedy = "save the file with the encoding UTF-8"
        raise FactRecallError(f"{path}:{line}", why, remedy) from error


def _keys(
    node: yaml.Node, path: KeyPath, above: tuple[yaml.Node, ...], seen: set[yaml.Node]
) -> Iterator[tuple[KeyPath, int]]:
    """Yield place and line of every key and list item, those behind an alias once."""
    if node in above:
        raise yaml.MarkedYAMLError(
            problem="the value contains itself", problem_mark=node.start_mark
        )
    if node in seen:
        return
    seen.add(node)
    children: list[tuple[str | int, yaml.Node, yaml.Node]] = []
    if isinstance(node, yaml.SequenceNode):
        children = [(i, item, item) for i, item in enumerate(node.value)]
    elif isinstance(node, yaml.MappingNode):
        children = [(k.value, k, v) for k, v in node.value if isinstance(k, yaml.ScalarNode)]
    for key, marked, child in children:
        yield (*path, key), marked.start_mark.line + 1
        yield from _keys(child, (*path, key), (*above, node), seen)


def _twice(where: str, first: int) -> FactRecallError:
    why = f"the key is given twice, first in line {first}"
    return FactRecallError(where, why, "keep one: YAML would silently take the last")


def merge(below: Mapping[Any, Any], above: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return both, key by key; values of `above` win."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            value = merge(old, value)
        merged[key] = value
    return merged


def dotted(path: Sequence[str | int]) -> str:
    """Return a path in the form ``training.seeds[0]``."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def _broken(path: Path, text: str, error: yaml.MarkedYAMLError) -> FactRecallError:
    mark = error.problem_mark
    problem = _one_line(", ".join(filter(None, (error.context, error.problem))))
    if mark is None:
        return FactRecallError(str(path), f"it is not YAML: {problem}", _FORM)
    where = f"{path}:{mark.line + 1}, column {mark.column + 1}"
    lines = text.splitlines() or [""]
    if "\t" in lines[min(mark.line, len(lines) - 1)][: mark.column + 1]:
        remedy = "indent with spaces: YAML allows no tabs there"
        return FactRecallError(where, "a tab is used to indent", remedy)
    remedy = f"mend this line or the one above it; {_FORM}"
    if "mapping values are not allowed" in problem:
        remedy = "put the value in quotes if it contains a colon, and check the indentation"
    elif "expected a single document" in problem:
        remedy = "keep one study in a file, without lines of ---"
    return FactRecallError(where, f"it is not YAML: {problem}", remedy)


def _one_line(error: object) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
