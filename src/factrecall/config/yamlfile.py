"""Reading YAML with what PyYAML loses: the line of every key, and keys that are given twice."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from factrecall.runtime.errors import FactRecallError

KeyPath = tuple[str | int, ...]
"""Where a value is: keys of mappings and positions in lists, from the top."""

_FORM = "write `key: value` lines; the files in workflow/presets/ are complete examples"

# PyYAML passes on whatever its constructors meet in a value like 2024-99-99 or `!!bool maybe`.
_UNCAUGHT = (
    yaml.YAMLError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
)


@dataclass(frozen=True)
class Document:
    """A YAML file whose top level is a mapping.

    Attributes
    ----------
    name : str
        The path, as it was given.
    values : dict
        Its content.
    lines : dict of tuple to int
        Line (from 1) of each key and list item; what an alias stands for is listed at its anchor.
    mistakes : tuple of FactRecallError
        Keys that are given twice.
    """

    name: str
    values: dict[Any, Any]
    lines: dict[KeyPath, int]
    mistakes: tuple[FactRecallError, ...]


def read_yaml(path: Path) -> Document:
    """Read a YAML file, or by its name a JSON file (in which YAML would take 1e-05 for text).

    Raises
    ------
    FactRecallError
        When it cannot be read, is not YAML, is empty or is no mapping; names line and column.
    """
    text = _read(path)
    try:
        if path.suffix == ".json":
            return _document(path, json.loads(text), {}, ())
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        lines, mistakes = _survey(str(path), root)
        values = loader.construct_document(root) if root is not None else None
    except yaml.MarkedYAMLError as error:
        raise _broken(path, text, error) from error
    except RecursionError as error:
        raise FactRecallError(str(path), "it is nested too deeply", _FORM) from error
    except _UNCAUGHT as error:
        raise FactRecallError(str(path), f"it is not valid: {_one_line(error)}", _FORM) from error
    return _document(path, values, lines, mistakes)


def _document(
    path: Path, values: Any, lines: dict[KeyPath, int], mistakes: tuple[FactRecallError, ...]
) -> Document:
    if values is None:
        raise FactRecallError(str(path), "it is empty", _FORM)
    if not isinstance(values, dict):
        raise FactRecallError(str(path), "its top level is no mapping of keys to values", _FORM)
    return Document(str(path), values, lines, mistakes)


def _read(path: Path) -> str:
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise FactRecallError(
            str(path), "there is no such file", f"mend the path; it starts at {Path.cwd()}"
        ) from error
    except (OSError, ValueError) as error:  # a folder, no permission; a null byte in the name
        raise FactRecallError(
            str(path), f"it cannot be read: {_one_line(error)}", "name a readable YAML file"
        ) from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise FactRecallError(
            f"{path}:{line}",
            f"it is not UTF-8: {error.reason} (byte {error.start})",
            "save the file with the encoding UTF-8",
        ) from error


def _survey(
    name: str, root: yaml.Node | None
) -> tuple[dict[KeyPath, int], tuple[FactRecallError, ...]]:
    """Return the line of each key, and a mistake for each key that is given twice."""
    lines: dict[KeyPath, int] = {}
    mistakes: list[FactRecallError] = []
    seen: set[yaml.Node] = set()

    def visit(node: yaml.Node, path: KeyPath, above: tuple[yaml.Node, ...]) -> None:
        if node in above:
            raise yaml.MarkedYAMLError(
                problem="the value contains itself", problem_mark=node.start_mark
            )
        if node in seen:
            return
        seen.add(node)
        for key, line, child in _children(node):
            place = (*path, key)
            if place in lines:
                mistakes.append(_twice(name, place, lines[place], line))
            lines[place] = line
            visit(child, place, (*above, node))

    if root is not None:
        visit(root, (), ())
    return lines, tuple(mistakes)


def _children(node: yaml.Node) -> Iterator[tuple[str | int, int, yaml.Node]]:
    if isinstance(node, yaml.SequenceNode):
        for i, item in enumerate(node.value):
            yield i, item.start_mark.line + 1, item
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                yield key.value, key.start_mark.line + 1, value


def _twice(name: str, path: Sequence[str | int], first: int, again: int) -> FactRecallError:
    return FactRecallError(
        f"{name}:{again}: {dotted(path)}",
        f"the key is given twice, first in line {first}",
        "keep one of the two lines: YAML would silently take the last",
    )


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
    line = (text.splitlines() or [""])[min(mark.line, len(text.splitlines()) - 1)]
    if "\t" in line[: mark.column + 1]:
        return FactRecallError(
            where, "a tab is used to indent", "indent with spaces: YAML allows no tabs there"
        )
    return FactRecallError(where, f"it is not YAML: {problem}", _remedy(problem))


def _remedy(problem: str) -> str:
    if "mapping values are not allowed" in problem:
        return "put the value in quotes if it contains a colon, and check the indentation"
    if "expected a single document" in problem:
        return "keep one study in a file, without lines of ---"
    return f"mend this line or the one above it; {_FORM}"


def _one_line(error: object) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
