"""The locked environments agree with each other and with what the package asks for."""

from __future__ import annotations

import itertools
import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"].values()
ASKED = [*PROJECT["dependencies"], *itertools.chain.from_iterable(EXTRAS)]
LOCKS = ("cpu", "gpu")


def lines(kind: str) -> list[str]:
    text = (ROOT / "envs" / f"requirements-{kind}.txt").read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def pins(kind: str) -> dict[str, str]:
    found = dict(line.split("==") for line in lines(kind))
    return {canonicalize_name(name): version for name, version in found.items()}


@pytest.mark.parametrize("kind", LOCKS)
def test_every_line_is_an_exact_version_and_no_library_is_there_twice(kind: str) -> None:
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!+]+", line) for line in lines(kind))
    assert len(pins(kind)) == len(lines(kind))


def test_the_conda_environment_holds_the_cpu_lock() -> None:
    environment = yaml.safe_load((ROOT / "envs/environment.yaml").read_text(encoding="utf-8"))
    (pip,) = [d["pip"] for d in environment["dependencies"] if isinstance(d, dict)]
    assert pip == lines("cpu")
    (python,) = [d for d in environment["dependencies"] if str(d).startswith("python=")]
    assert Requirement(f"python{PROJECT['requires-python']}").specifier.contains(python[7:] + ".0")


def test_the_gpu_lock_is_the_cpu_lock_and_more() -> None:
    assert pins("cpu").items() <= pins("gpu").items()


@pytest.mark.parametrize("kind", LOCKS)
@pytest.mark.parametrize("requirement", ASKED)
def test_what_the_package_asks_for_is_locked_within_its_bounds(kind: str, requirement: str) -> None:
    wanted = Requirement(requirement)
    assert wanted.specifier.contains(pins(kind)[canonicalize_name(wanted.name)])
