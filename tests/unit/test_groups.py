"""`make test` leaves no test out."""

from __future__ import annotations

from tests.groups import GROUPS, ROOT

APART = {"tests/gpu"}
"""Tests that need what a machine need not have, with commands of their own."""


def test_every_folder_of_tests_is_in_a_group() -> None:
    folders = {
        path.parent.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("test_*.py")
    }
    named = {word for command in GROUPS.values() for word in command if word.startswith("tests/")}
    assert folders - APART == named
