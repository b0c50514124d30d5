"""The fingerprint of a stage changes with its logic, and only then."""

from __future__ import annotations

import ast
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from factrecall.runtime import fingerprint
from factrecall.runtime.fingerprint import PACKAGE, SILENT, code_fingerprint, versions
from factrecall.workflow.stages import STAGES

SOURCES = fingerprint.ROOT
STARTS = {name: (stage.module, stage.function.__name__) for name, stage in STAGES.items()}
TRAIN = STARTS["fine-tune"]

Edit = Callable[[str], str]


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the package, which fingerprints are taken of."""
    root = tmp_path / PACKAGE
    shutil.copytree(SOURCES, root, ignore=shutil.ignore_patterns("__pycache__", "*_cache"))
    monkeypatch.setattr(fingerprint, "ROOT", root)
    return root


def after(root: Path, file: str, edit: Edit, start: tuple[str, str] = TRAIN) -> tuple[str, str]:
    """Return a stage's fingerprint before and after the edit of a file."""
    fingerprint._read.cache_clear()
    before = code_fingerprint(*start)
    path = root / file
    text = path.read_text(encoding="utf-8")
    changed = edit(text)
    assert changed != text
    path.write_text(changed, encoding="utf-8")
    fingerprint._read.cache_clear()
    return before, code_fingerprint(*start)


def closure(stage: str) -> set[str]:
    """Return the files a stage's fingerprint covers, relative to the package."""
    seen: dict[Path, str] = {}
    module, function = STARTS[stage]
    fingerprint._collect(fingerprint._path(module), seen, function)
    return {str(path.relative_to(fingerprint.ROOT)) for path in seen}


def swap(old: str, new: str) -> Edit:
    return lambda text: text.replace(old, new, 1)


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: text + "\n# One more remark.\n",
        lambda text: text.replace('"""', '"""Another sentence. ', 1),
        swap('    """Write a training history', '    """Save a training history'),
        lambda text: text.replace("\n\n\ndef", "\n\n\n\n\ndef"),
        lambda text: text.replace('"""Columns of a training history', '"""Columns of a history', 1),
    ],
    ids=["comment", "docstring of module", "docstring of function", "layout", "of an attribute"],
)
def test_words_and_layout_change_nothing(copy: Path, edit: Edit) -> None:
    before, now = after(copy, "training/training_log.py", edit)
    assert before == now


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("data/traced.py", "replace=False", "replace=True"),
        ("training/optimisers.py", "(update + 1)", "(update + 2)"),
        ("models/passes.py", "PASS_COST = 96", "PASS_COST = 97"),
        ("models/loading.py", "torch.float32", "torch.float16"),
        ("runtime/seeds.py", "sha256", "sha512"),
        ("vocabulary.py", '"birth_date"', '"birthday"'),
    ],
)
def test_logic_in_the_module_or_in_what_it_imports_changes_it(
    copy: Path, file: str, old: str, new: str
) -> None:
    before, now = after(copy, file, swap(old, new))
    assert before != now


def test_logic_elsewhere_changes_nothing(copy: Path) -> None:
    before, now = after(copy, "data/pools.py", lambda t: t + "\nX = 1\n")
    assert before == now


def test_modules_that_only_check_or_speak_change_nothing(copy: Path) -> None:
    before = {name: code_fingerprint(*start) for name, start in STARTS.items()}
    for silent in SILENT:
        path = copy / silent
        for file in path.glob("*.py") if path.is_dir() else [path.with_suffix(".py")]:
            file.write_text(file.read_text(encoding="utf-8") + "\nX = 1\n", encoding="utf-8")
    fingerprint._read.cache_clear()
    assert before == {name: code_fingerprint(*start) for name, start in STARTS.items()}


def test_data_files_that_a_module_names_count(copy: Path) -> None:
    covered = closure("make-facts")
    data = sorted(name for name in covered if not name.endswith(".py"))
    assert data
    for name in data:
        before, now = after(copy, name, lambda t: t + "\n", STARTS["make-facts"])
        assert before != now, name


def test_every_data_file_of_the_package_is_covered_by_a_stage() -> None:
    there = {
        str(path.relative_to(SOURCES))
        for path in SOURCES.rglob("*")
        if path.suffix in fingerprint.DATA_SUFFIXES and "_cache" not in str(path)
    }
    covered = set().union(*(closure(name) for name in STARTS))
    assert there
    assert there <= covered


@pytest.mark.parametrize("stage", STAGES)
def test_no_stage_depends_on_what_checks_the_configuration(stage: str) -> None:
    names = {name.removesuffix(".py") for name in closure(stage)}
    places = names | {name.split("/")[0] for name in names}
    assert not places & {*SILENT, "cli", "__main__", "runtime/fingerprint"}


COMPUTE = [n for n in STAGES if n not in ("draw-figures", "judge-claims", "write-report")]


def test_what_an_experiment_says_and_costs_reruns_no_compute_stage(copy: Path) -> None:
    spoken = ("report", "settings", "cost", "claims", "section", "caveats", "figures")
    edited = [p for p in (copy / "experiments").rglob("*.py") if p.stem.endswith(spoken)]
    edited += [*(copy / "report").glob("*.py"), copy / "experiments/registry.py"]
    assert len(edited) > 20
    before = {name: code_fingerprint(*STARTS[name]) for name in COMPUTE}
    for path in edited:
        path.write_text(path.read_text(encoding="utf-8") + "\nX = 1\n", encoding="utf-8")
    fingerprint._read.cache_clear()
    assert {name: code_fingerprint(*STARTS[name]) for name in COMPUTE} == before


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        ("# The largest changes", "# Most", set()),
        ('    "graft-without-shared",', '    "another-name",', set()),
        ("per=grafts", "per=histories", set()),
        ('"thorough": int(seed) ==', '"thorough": int(seed) !=', set()),
        ("job.write(checks, trusted, CHECK)", "job.write(checks, trusted)", {"graft"}),
        ('"grafting without S"', '"else"', {"graft-without-shared"}),
        ("overlaps(masks).assign(", "overlaps(masks).assign(x=1, ", {"summarise-grafting"}),
    ],
)
def test_a_stage_depends_on_its_own_function_alone(
    copy: Path, old: str, new: str, changed: set[str]
) -> None:
    stages = ("graft", "graft-without-shared", "summarise-grafting")
    path = copy / "experiments/grafting/stages.py"
    before = {name: code_fingerprint(*STARTS[name]) for name in stages}
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    fingerprint._read.cache_clear()
    assert {n for n in stages if code_fingerprint(*STARTS[n]) != before[n]} == changed


def test_the_silent_modules_exist() -> None:
    for name in SILENT:
        assert (SOURCES / name).is_dir() or (SOURCES / f"{name}.py").is_file()


def test_stages_cover_what_they_run_and_no_more() -> None:
    train = closure("fine-tune")
    assert {
        "training/loop.py",
        "training/trace.py",
        "runtime/storage.py",
        "runtime/seeds.py",
    } <= train
    assert {"data/files.py", "models/forward.py"} <= train
    assert not {"data/pools.py", "data/people.py", "data/tables.py", "models/scratch.py"} & train
    assert "training/trace.py" not in closure("recall")
    assert not any(name.startswith("training/") for name in closure("make-facts"))


def test_imports_have_the_one_form_that_is_followed() -> None:
    for path in SOURCES.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0, path
            if isinstance(node, ast.Import):
                assert all(a.name.split(".")[0] != PACKAGE for a in node.names), path


def test_versions_are_those_installed() -> None:
    found = versions(("torch", "no-such-library", "numpy"))
    assert list(found) == ["no-such-library", "numpy", "torch"]
    assert found["no-such-library"] == "none"
    assert found["torch"][0].isdigit()


def test_words_of_the_page_draw_no_figure_anew() -> None:
    assert "report/page.html.j2" in closure("write-report")
    assert "report/page.html.j2" not in closure("draw-figures")
