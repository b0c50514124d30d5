"""The package's layout: imports go one way, without circles; modules are short and load little."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

SRC = Path(__file__).parents[2] / "src"
MODULES = {
    ".".join(path.relative_to(SRC).with_suffix("").parts).removesuffix(".__init__"): path
    for path in SRC.rglob("*.py")
}

LAYERS = (
    {"vocabulary", "runs", "runtime"},
    {"config"},
    {"data", "models"},
    {"parameters"},
    {"training", "evaluation"},
    {"cost", "report"},
    {"experiments"},
    {"workflow"},
    {"cli", "__main__", ""},
)
"""Parts of the package; each imports from those before it."""

CLIMBS = {
    "config.study": "a study joins the settings that lie with the experiments",
    "experiments.registry": "it names modules of all layers, and imports them when they are needed",
}
"""Modules that climbing imports are allowed from, or to, and why."""

LIGHT = ("report/", "config/", "cost/", "experiments/registry.py", "vocabulary.py")
LIGHT_NAMES = ("settings.py", "report.py", "cost.py", "stages.py")
"""What rules, commands and plans read: it loads no PyTorch by itself."""

LONGEST = 300


class Import(NamedTuple):
    source: str
    target: str
    kind: str
    """ "top" of a module, inside a "function", or of a "type"."""


def imports_of(name: str) -> Iterator[Import]:
    """Yield the imports of a module; of the package those of modules."""
    return _visit(ast.parse(MODULES[name].read_text(encoding="utf-8")), name, "top")


def _visit(node: ast.AST, name: str, kind: str) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Import(name, alias.name, kind) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            for alias in child.names:
                module = f"{child.module}.{alias.name}"
                yield Import(name, module if module in MODULES else str(child.module), kind)
        elif isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            yield from _visit(child, name, "type")
        else:
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
            yield from _visit(child, name, "function" if inside and kind == "top" else kind)


IMPORTS = [found for name in MODULES for found in imports_of(name)]


def short(module: str) -> str:
    return module.partition(".")[2]


def layer(module: str) -> int:
    part = short(module).partition(".")[0]
    return next(number for number, parts in enumerate(LAYERS) if part in parts)


def test_there_is_no_circle() -> None:
    graph: dict[str, set[str]] = {name: set() for name in MODULES}
    for source, target, _ in IMPORTS:
        if target in MODULES and target != source:
            graph[source].add(target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" → ".join(error.args[1]))


def test_imports_go_one_way() -> None:
    climbing = {
        f"{short(source)} imports {short(target)}"
        for source, target, kind in IMPORTS
        if target in MODULES and kind != "type" and layer(source) < layer(target)
        if not {short(source), short(target)} & CLIMBS.keys()
    }
    assert not climbing


def is_light(path: Path) -> bool:
    inside = path.relative_to(SRC / "factrecall").as_posix()
    return inside.startswith(LIGHT) or path.name in LIGHT_NAMES


@pytest.mark.parametrize("name", sorted(name for name, path in MODULES.items() if is_light(path)))
def test_what_rules_and_reports_read_loads_no_pytorch(name: str) -> None:
    loaded, waiting = {name}, [name]
    while waiting:
        source = waiting.pop()
        found = {one.target for one in IMPORTS if one.source == source and one.kind == "top"}
        waiting += found - loaded
        loaded |= found
    heavy = {one.partition(".")[0] for one in loaded} & {"torch", "transformers"}
    assert not heavy


def test_modules_are_short_or_say_why() -> None:
    for name, path in MODULES.items():
        text = path.read_text(encoding="utf-8")
        docstring = ast.get_docstring(ast.parse(text)) or ""
        assert len(text.splitlines()) <= LONGEST or "is long because" in docstring, name
