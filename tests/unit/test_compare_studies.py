"""The comparison of two results folders of a study finds what differs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from tests.compare_studies import compare

TABLE = pd.DataFrame({"priority": ["S", "random"], "accuracy": [0.5, np.nan], "n": [1, 2]})
TENSORS = {"x": torch.tensor([1.0, torch.nan])}


def study(folder: Path, table: pd.DataFrame, tensors: dict[str, torch.Tensor], name: str) -> Path:
    (folder / "tables").mkdir(parents=True)
    table.to_parquet(folder / "tables" / f"{name}.parquet")
    save_file(tensors, folder / "x.safetensors", {"factrecall": f'{{"provenance": "{folder}"}}'})
    (folder / "logs").mkdir()
    (folder / "logs" / "a.json").write_text(str(folder))
    return folder


def test_names_may_change_and_values_may_not(tmp_path: Path) -> None:
    old = study(tmp_path / "old", TABLE, TENSORS, "a.controls.b")
    renamed = TABLE.rename(columns={"priority": "ranking"})
    assert compare(old, study(tmp_path / "new", renamed, TENSORS, "a.baseline.b")) == []
    more = study(tmp_path / "more", renamed.assign(x=1), TENSORS, "a.baseline.b")
    assert compare(old, more) == ["+ tables/a.baseline.b.parquet: column x"]


@pytest.mark.parametrize(
    ("table", "tensors", "said"),
    [
        (TABLE.assign(accuracy=[0.5, 0.0]), TENSORS, "accuracy differs in 1 of 2 rows"),
        (TABLE.assign(accuracy=[np.nextafter(0.5, 1), np.nan]), TENSORS, "first in row 0"),
        (TABLE.drop(columns="n"), TENSORS, "column n is gone"),
        (TABLE[:1], TENSORS, "2 rows, now 1"),
        (TABLE, {"x": torch.tensor([1.0, 0.0])}, "tensor x differs in"),
        (TABLE, {"x": torch.tensor([1.0])}, "[2], now torch.float32 [1]"),
        (TABLE, {"x": TENSORS["x"].double()}, "now torch.float64"),
        (TABLE, {"y": TENSORS["x"]}, "tensor x is gone"),
    ],
)
def test_each_difference_is_found(
    tmp_path: Path, table: pd.DataFrame, tensors: dict[str, torch.Tensor], said: str
) -> None:
    old = study(tmp_path / "old", TABLE, TENSORS, "a")
    new = study(tmp_path / "new", table, tensors, "a")
    wrong = [line for line in compare(old, new) if not line.startswith("+ ")]
    assert len(wrong) == 1 and said in wrong[0]


def test_a_file_that_is_gone_is_a_difference_and_a_new_one_is_not(tmp_path: Path) -> None:
    old = study(tmp_path / "old", TABLE, TENSORS, "a")
    new = study(tmp_path / "new", TABLE, TENSORS, "b")
    assert compare(old, new) == ["tables/a.parquet: it is gone", "+ tables/b.parquet"]
