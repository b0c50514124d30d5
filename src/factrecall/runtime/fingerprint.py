"""Code fingerprint of a stage: a hash that changes when its logic does, and only then.

The workflow engine sees neither imported code nor library versions, so each rule has them among
its parameters. The hash is over the syntax trees (without comments, docstrings and layout) of the
stage's module and all modules of the package it imports, and over the data files they name.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypeGuard

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT.name

SILENT = (
    *("config", "runs", "runtime/stage", "experiments/registry", "workflow"),
    *("runtime/errors", "runtime/signals", "runtime/lease", "runtime/progress"),
)
"""Modules and packages that cannot change a result: settings reach a rule's parameters by value,
the others only name the stages, speak to the user or say when to stop."""

DECORATOR = "stage"
"""What declares a stage; its arguments are not part of the function's logic."""

DATA_SUFFIXES = (".yaml", ".txt", ".j2", ".css")


def code_fingerprint(module: str, function: str = "") -> str:
    """Hash a module of the package with all it imports from it, to 16 hex digits.

    Parameters
    ----------
    module : str
        Dotted name below the package, e.g. ``"training.stages"``.
    function : str
        The stage of this module that is meant; its other stages are left out.
    """
    digest = hashlib.sha256()
    seen: dict[Path, str] = {}
    _collect(_path(module), seen, function)
    for path, part in sorted(seen.items()):
        digest.update(f"{path.relative_to(ROOT)} {part}\n".encode())
    return digest.hexdigest()[:16]


def versions(libraries: Iterable[str]) -> dict[str, str]:
    """Return the installed version of each library ("none" if it is not installed)."""
    return {library: _version(library) for library in sorted(libraries)}


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "none"


def _path(module: str) -> Path:
    base = ROOT.joinpath(*module.split(".")) if module else ROOT
    return base / "__init__.py" if base.is_dir() else base.with_suffix(".py")


def _collect(path: Path, seen: dict[Path, str], function: str = "") -> None:
    name = path.relative_to(ROOT).with_suffix("").as_posix()
    silent = any(name == quiet or name.startswith(f"{quiet}/") for quiet in SILENT)
    if path in seen or silent or path.name == "settings.py":
        return
    seen[path], imported, data = _read(path, function)
    for name in imported:
        _collect(_path(name), seen)
    waiting = list(data)
    while waiting:
        content = (file := waiting.pop()).read_bytes()
        seen[file] = hashlib.sha256(content).hexdigest()
        if file.suffix == ".j2":  # a template may take in others
            names = re.findall(r"\"([^\"]+)\"", content.decode())
            waiting += {other for name in names for other in _data(name, file.parent)} - {*seen}


@cache
def _read(path: Path, function: str = "") -> tuple[str, tuple[str, ...], tuple[Path, ...]]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if function:
        tree.body = [s for s in tree.body if not _is_stage(s) or s.name == function]
    imports: list[str] = []
    data: list[Path] = []
    waiting: list[tuple[ast.AST, bool]] = [(tree, True)]
    while waiting:  # once over the tree: this is most of what a start of the workflow does
        node, runs = waiting.pop()
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            # Strings standing alone are documentation, of the module, a function or an attribute.
            node.body = [s for s in node.body if not _is_text(s)] or [ast.Pass()]
            if _is_stage(node):
                node.decorator_list = []
        elif isinstance(node, ast.Constant):
            data += _data(node.value, path.parent)
        elif isinstance(node, ast.ImportFrom) and runs:
            imports += _imports(node)
        for child in ast.iter_child_nodes(node):
            waiting.append((child, runs and not _is_for_type_checkers(child)))
    digest = hashlib.sha256(ast.dump(tree).encode()).hexdigest()
    return digest, tuple(imports), tuple(data)


def _is_stage(node: ast.AST) -> TypeGuard[ast.FunctionDef]:
    """Say whether a node is a function that is declared to be a stage."""
    return isinstance(node, ast.FunctionDef) and any(
        isinstance(d, ast.Call) and getattr(d.func, "id", "") == DECORATOR
        for d in node.decorator_list
    )


def _is_for_type_checkers(node: ast.AST) -> bool:
    test = node.test if isinstance(node, ast.If) else None
    return isinstance(test, ast.Name) and test.id == "TYPE_CHECKING"


def _data(name: object, folder: Path) -> Iterator[Path]:
    """Yield the package data that a string names: a file beside its module."""
    if isinstance(name, str) and name.endswith(DATA_SUFFIXES) and (folder / name).is_file():
        yield folder / name


def _is_text(statement: ast.stmt) -> bool:
    value = statement.value if isinstance(statement, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)


def _imports(node: ast.ImportFrom) -> Iterator[str]:
    """Yield the modules of the package that may be meant by an import."""
    package, _, module = (node.module or "").partition(".")
    if package == PACKAGE:
        yield module
        for alias in node.names:
            name = f"{module}.{alias.name}".strip(".")
            if _path(name).exists():
                yield name
