"""README.md and docs/claims.md say what the stored run says, and of the claims there are."""

from __future__ import annotations

import json
from typing import Any

import pytest

from factrecall.experiments.sections import SECTIONS
from tests import pages


@pytest.fixture(scope="module")
def run() -> dict[str, Any]:
    stored: dict[str, Any] = json.loads(pages.STORED.read_text(encoding="utf-8"))
    return stored


def test_pages_are_those_of_the_stored_run(run: dict[str, Any]) -> None:
    for path, text in pages.pages(run):
        assert path.read_text(encoding="utf-8") == text, (
            f"{path.name}: run `python -m tests.pages`, with a finished results/laptop if claims "
            "changed"
        )


def test_the_stored_run_has_the_claims_there_are(run: dict[str, Any]) -> None:
    """A claim that was added, dropped or reworded makes the stored run an old one."""
    stored = {c["id"]: c for c in run["claims"]}
    declared = [c for s in SECTIONS if not callable(s.claims) for c in s.claims]
    for claim in declared:
        assert claim.id in stored
        row = stored[claim.id]
        assert (row["source"], row["bound"], row["why"]) == (claim.source, claim.bound, claim.why)
        if isinstance(claim.text, str):
            assert row["text"] == claim.text
    sections = {s.name: s for s in SECTIONS}
    known = {c.id for c in declared}
    for row in run["claims"]:
        assert row["id"] in known or callable(sections[row["section"]].claims)


def test_a_changed_number_changes_the_pages(run: dict[str, Any]) -> None:
    first = run["claims"][0]
    other = {**run, "claims": [{**first, "value": first["value"] + 0.1}, *run["claims"][1:]]}
    for (path, text), (_, changed) in zip(pages.pages(run), pages.pages(other), strict=True):
        assert text != changed, path
