"""The figures of one model, each with its data: recall, recall by relation, losses."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from factrecall.report.loss_figure import draw_loss
from factrecall.report.recall_figures import draw_recall, draw_recall_by_relation
from factrecall.report.summaries import read_recall

FIGURES = ("recall", "recall_by_relation", "loss")
SUFFIXES = (".png", ".svg", ".parquet")


def draw_figures(
    model: str,
    recall: Path,
    histories: Iterable[tuple[str, int, Path]],
    out: Path,
    published_model: str | None = None,
) -> None:
    """Draw all figures of a model: ``<out>/<figure><suffix>`` for `FIGURES` and `SUFFIXES`.

    Parameters
    ----------
    model : str
        Its name in the study.
    recall : Path
        The study's table of recall.
    histories : iterable of (tuning, seed, Path)
        The model's training histories.
    out : Path
        Folder of this model's figures; made if need be.
    published_model : str, optional
        The paper's model to show beside it (see `published.counterpart`).

    Raises
    ------
    FactRecallError
        When an input is missing, damaged or holds nothing on the model.
    """
    table = read_recall(recall, model)
    draw_recall(table, out / "recall")
    draw_recall_by_relation(table, out / "recall_by_relation", published_model)
    draw_loss(histories, out / "loss")
