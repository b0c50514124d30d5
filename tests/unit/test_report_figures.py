"""Figures as they are saved: the same bytes twice, of readable size, beside their data."""

from __future__ import annotations

import matplotlib.image
import pytest

from factrecall.experiments.sections import FIGURES, SUFFIXES
from factrecall.report.style import DOTS_PER_INCH, WIDTH
from factrecall.runtime.storage import read_table
from tests.unit.test_report_tables import Synthetic, drawn, synthetic  # noqa: F401


def test_figures_are_the_same_bytes_twice(synthetic: Synthetic) -> None:  # noqa: F811
    folder = synthetic.figures()
    synthetic.draw()
    paths = [folder / f"{name}{suffix}" for name in FIGURES for suffix in SUFFIXES]
    assert sorted(folder.iterdir()) == sorted(paths)
    before = [path.read_bytes() for path in paths]
    synthetic.draw()
    assert before == [path.read_bytes() for path in paths]
    svg = (folder / "recall.svg").read_text()
    assert "<date" not in svg
    assert "<text" not in svg


def test_figures_are_of_readable_size(drawn: Synthetic) -> None:  # noqa: F811
    for name in FIGURES:
        path = drawn.figures() / f"{name}.png"
        height, width, _ = matplotlib.image.imread(path).shape
        assert width == round(WIDTH * DOTS_PER_INCH)
        assert 0.3 < height / width < 1.65


def test_data_of_figures(drawn: Synthetic) -> None:  # noqa: F811
    folder = drawn.figures()
    recall = read_table(folder / "recall.parquet")
    assert len(recall) == 3 * (3 + 3 + 3 + 1 + 1)
    relations = read_table(folder / "recall_by_relation.parquet")
    paper = relations[relations["source"] == "paper"].set_index(["tuning", "relation"])["accuracy"]
    assert paper["mix", "average"] == pytest.approx(0.747)
    assert set(paper.index.get_level_values("tuning")) == {"stage", "mix"}
    losses = read_table(folder / "loss.parquet")
    assert not ((losses["tuning"] == "stage") & (losses["kind"] == "bio")).any()
    assert losses.groupby(["tuning", "seed", "kind"]).size().max() <= 150
    assert losses["progress"].between(0, 1).all()
