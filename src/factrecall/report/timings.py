"""What a study cost: time and memory of each stage, from the workflow engine's benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from factrecall.report.style import TUNING_LABELS
from factrecall.report.tables import MISSING, View
from factrecall.runtime.errors import FactRecallError

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Timing:
    """A benchmark file: tab-separated, with columns ``s`` (seconds) and ``max_rss`` (MB).

    `model` and `tuning` are empty for stages that are not repeated over them.
    """

    stage: str
    model: str
    tuning: str
    path: Path


def summarise(timings: Sequence[Timing]) -> pd.DataFrame:
    """Read benchmarks and condense them over seeds.

    Returns
    -------
    DataFrame
        One row per stage, model and tuning, in the order given: stage, model, tuning, runs,
        seconds (mean a run), total (seconds of all runs), memory (peak, MB; NaN if unknown).

    Raises
    ------
    FactRecallError
        When a file is missing or is no benchmark.
    """
    import pandas as pd

    rows = [(t.stage, t.model, t.tuning, *found) for t in timings for found in _read(t.path)]
    frame = pd.DataFrame(rows, columns=["stage", "model", "tuning", "s", "max_rss"])
    grouped = frame.groupby(["stage", "model", "tuning"], sort=False)
    return grouped.agg(
        runs=("s", "count"), seconds=("s", "mean"), total=("s", "sum"), memory=("max_rss", "max")
    ).reset_index()


def timing_view(timings: Sequence[Timing]) -> View:
    """Return time and memory by stage, model and tuning."""
    rows = [
        [
            row.stage,
            row.model or MISSING,
            TUNING_LABELS.get(row.tuning, row.tuning) or MISSING,
            str(row.runs),
            duration(row.seconds),
            duration(row.total),
            MISSING if row.memory != row.memory else f"{row.memory:,.0f}",
        ]
        for row in summarise(timings).itertuples()
    ]
    return View(
        "Wall-clock time and peak memory as the workflow measured them.",
        ["Stage", "Model", "Tuning", "runs", "mean a run", "all runs", "peak MB"],
        [(None, rows)],
    )


def duration(seconds: float) -> str:
    """Write a duration as a reader would say it: 0.8 s, 43 s, 3 min 5 s, 2 h 10 min."""
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _read(path: Path) -> list[tuple[float, float]]:
    import pandas as pd

    try:
        table = pd.read_csv(path, sep="\t", usecols=["s", "max_rss"], na_values=["-", "NA"])
        return [(float(s), float(memory)) for s, memory in table.to_numpy()]
    except FileNotFoundError:
        why = "there is no such file"
    except (OSError, ValueError) as error:
        why = f"it is no benchmark of the workflow ({str(error).splitlines()[0]})"
    raise FactRecallError(str(path), why, "run the workflow again, or leave timings out")
