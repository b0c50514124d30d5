"""The paper's numbers agree among themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from factrecall.config.model import Folder, Hub
from factrecall.report.published import (
    ABLATIONS,
    GRAFTS,
    LLAMA,
    PYTHIA,
    counterpart,
    published,
    published_ablation,
    published_graft,
)
from factrecall.vocabulary import SPLITS
from tests.conftest import scratch


def test_what_an_ablation_costs_is_what_the_paper_prints_beside_it() -> None:
    changes = {(LLAMA, "mix"): (-85.9, -78.6, -66.0), (PYTHIA, "stage"): (-15.6, -17.8, -1.8)}
    for (model, tuning), printed in changes.items():
        for split, change in zip(SPLITS, printed, strict=True):
            after = published_ablation(model, tuning, "shared", split)
            before = published_ablation(model, tuning, "none", split)
            assert after is not None and before is not None
            assert after - before == pytest.approx(change, abs=0.06)
    assert len({row[:3] for row in ABLATIONS}) == len(ABLATIONS) == 8


def test_recovery_is_accuracy_over_that_of_the_whole_model() -> None:
    for row in GRAFTS:
        assert 100 * row.accuracy / row.whole == pytest.approx(row.recovery, abs=0.25)
        assert row.whole == pytest.approx(published(*row[:2], f"qa_{row.split}"), abs=0.7)


def test_what_is_not_published_is_none() -> None:
    assert published_graft(LLAMA, "bio", "in") is published_ablation("?", "mix", "x", "bio") is None


def hub(repository: str) -> Hub:
    return Hub(source="hub", repository=repository, training=scratch("llama").training)


def folder(path: str) -> Folder:
    return Folder.model_construct(
        source="folder", path=Path(path), training=scratch("llama").training
    )


@pytest.mark.parametrize(
    ("model", "theirs"),
    [
        (scratch("llama"), LLAMA),
        (scratch("gpt_neox"), PYTHIA),
        (hub("EleutherAI/pythia-2.8b"), PYTHIA),
        (hub("meta-llama/Llama-3.2-3B"), LLAMA),
        (folder("/models/Llama-3.2-3B"), LLAMA),
        (hub("HuggingFaceTB/SmolLM2-135M"), LLAMA),
        (folder("/models/own"), None),
        (folder("/llama.cpp/own"), None),
    ],
)
def test_a_model_is_compared_with_the_papers_of_its_kind(model: Any, theirs: str | None) -> None:
    assert counterpart(model.model_dump(mode="json")) == theirs
