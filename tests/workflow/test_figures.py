"""Figures of the small study: the same bytes twice, of readable size, beside their data."""

from __future__ import annotations

from pathlib import Path

import matplotlib.image

from factrecall.config.study import Study
from factrecall.experiments.report import draw_figures
from factrecall.experiments.sections import FIGURES, SUFFIXES, inputs
from factrecall.report.style import DOTS_PER_INCH, WIDTH
from factrecall.runtime.storage import read_table


def test_all_that_sections_read_is_there(results: Path, study: Study) -> None:
    for model in study.models:
        files = inputs(study, model)
        assert len(files) == len(set(files))
        assert all((results / file).exists() for file in files)


def test_figures_are_the_same_bytes_twice(results: Path, study: Study, tmp_path: Path) -> None:
    model, *_ = study.models
    settings = draw_figures.stage.settings(study, model)  # type: ignore[attr-defined]
    draw_figures.__wrapped__(  # type: ignore[attr-defined]
        None, model=model, results=results, out=tmp_path, **settings
    )
    names = [f"{name}{suffix}" for name in FIGURES for suffix in SUFFIXES]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    folder = results / "figures" / model
    changed = [n for n in names if (tmp_path / n).read_bytes() != (folder / n).read_bytes()]
    assert changed == []
    svg = (folder / "recall.svg").read_text()
    assert "<date" not in svg
    assert "<text" not in svg


def test_figures_are_of_readable_size(results: Path, study: Study) -> None:
    for model in study.models:
        for name in FIGURES:
            path = results / "figures" / model / f"{name}.png"
            height, width, _ = matplotlib.image.imread(path).shape
            assert width == round(WIDTH * DOTS_PER_INCH)
            assert 0.3 < height / width < 1.65, name


def test_data_of_figures(results: Path, study: Study) -> None:
    for model in study.models:
        folder = results / "figures" / model
        recall = read_table(folder / "recall.parquet")
        seeds = len(study.training.seeds)
        assert len(recall) == 3 * (3 * seeds + 1 + 1)
        losses = read_table(folder / "loss.parquet")
        assert not ((losses["tuning"] == "stage") & (losses["kind"] == "bio")).any()
        assert losses.groupby(["tuning", "seed", "kind"]).size().max() <= 150
        assert losses["progress"].between(0, 1).all()
