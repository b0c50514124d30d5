"""Ablation in the report: what is condensed, judged, said and drawn of made-up tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from factrecall.evaluation.exact_match import SUMMARY
from factrecall.experiments.ablation.compute import ABLATED, ABLATION, CONTROLS, INTERVALS, NONE
from factrecall.experiments.ablation.report import SECTION, Ablation, tensors_cost_most
from factrecall.report.published import LLAMA
from factrecall.report.tables import Table, View
from factrecall.runtime.storage import read_table, write_table
from factrecall.vocabulary import SPLITS
from tests.unit.test_report_shared import ablation_rows, about, cells, interval_rows

pytestmark = pytest.mark.usefixtures("quick_figures")


def recall_rows() -> pd.DataFrame:
    """Make the majority vote, which is all that the figure takes of recall."""
    rows = [("m", "majority", 0, split, "job", 100, 6, 0.06) for split in SPLITS]
    return pd.DataFrame(rows, columns=list(SUMMARY))


SCHEMAS = {"ablation": ABLATION, "ablation_intervals": INTERVALS, "recall": SUMMARY}


def frames(**replaced: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the tables of a run that is as the paper says, some replaced."""
    return {
        "ablation": ablation_rows(),
        "ablation_intervals": interval_rows(),
        "recall": recall_rows(),
    } | replaced


def measured(folder: Path, **replaced: pd.DataFrame) -> Ablation:
    """Write tables and read them as the report does."""
    files = {name: folder / f"{name}.parquet" for name in SECTION.tables}
    for name, table in frames(**replaced).items():
        write_table(files[name], table, SCHEMAS[name])
    return Ablation("m", files, {}, LLAMA)


def tables(measures: Ablation) -> list[View]:
    """Return the section's tables."""
    return [part.view(measures) for part in SECTION.body if isinstance(part, Table)]


def test_ablations_are_pooled_over_relations(tmp_path: Path) -> None:
    one = ablation_rows((0,))
    other = one.assign(relation="employer", n=3000, correct=0)
    table = measured(tmp_path, ablation=pd.concat([one, other])).accuracies()
    row = table[(table["tuning"] == "mix") & (table["split"] == "qa_out")].set_index("ablated")
    assert row.loc["none", "accuracy"] == pytest.approx(0.5 / 4)
    assert row.loc["shared", "drop"] == pytest.approx(0.3 / 4)


def test_claims_hold_and_the_other_way_round_do_not(tmp_path: Path) -> None:
    claims = SECTION.judged(measured(tmp_path))
    assert {c.verdict for c in claims} == {"holds"}
    assert [c.is_extension for c in claims] == [False, True, False, True, True, False]
    assert "Lost: Mix-tuned 30.0\u00a0points, Stage-tuned 1.0" in claims[0].evidence
    assert claims[0].paper == "Mix-tuned 66.0 points, Stage-tuned 6.7 points"
    swapped = {
        name: table.assign(tuning=table["tuning"].replace({"mix": "stage", "stage": "mix"}))
        for name, table in frames().items()
    }
    claims = SECTION.judged(measured(tmp_path, **swapped))
    assert about(claims, "than Stage-tuned ones") == ["does not hold"]


def test_a_random_ablation_that_costs_or_may_cost_more_than_nothing(tmp_path: Path) -> None:
    rows, intervals = ablation_rows(), interval_rows()
    hit = (rows["ablated"] == "random") & (rows["split"] == "qa_in") & (rows["tuning"] == "mix")
    rows.loc[hit, "correct"] -= 100
    at = (intervals["ablated"] == "random") & (intervals["split"] == "qa_in")
    intervals.loc[at & (intervals["tuning"] == "mix"), ["low", "high"]] = (0.09, 0.12)
    claims = SECTION.judged(measured(tmp_path, ablation=rows, ablation_intervals=intervals))
    assert about(claims, "less than 2 points") == ["does not hold"]
    intervals.loc[at, ["low", "high"]] = (-0.05, 0.05)
    wide = SECTION.judged(measured(tmp_path, ablation_intervals=intervals))
    assert about(wide, "less than 2 points") == ["inconclusive"]


def test_the_caveat_needs_its_data(tmp_path: Path) -> None:
    said = tensors_cost_most(measured(tmp_path))
    assert said is not None and "20.0" in said
    rows = ablation_rows()
    harmless = rows["ablated"] == "random_by_tensor"
    rows.loc[harmless, "correct"] = rows.loc[rows["ablated"] == NONE, "correct"].to_numpy()
    assert tensors_cost_most(measured(tmp_path, ablation=rows)) is None


def test_tables_hold_our_numbers_and_theirs(tmp_path: Path) -> None:
    accuracies, intervals = tables(measured(tmp_path))
    row = cells(accuracies, 2, 1)
    assert row[1:4] == ["19.0 ± 0.0", "\u22121.0 ± 0.0", "29.2 (\u22126.7)"]
    assert row[4:] == ["20.0 ± 0.0", "\u221230.0 ± 0.0", "8.7 (\u221266.0)"]
    assert cells(intervals, 2, 0)[2] == "+30.0 (+29.0 to +31.0)"
    assert len(intervals.groups[0][1]) == 2 * len(CONTROLS) + 1
    assert [len(rows) for _, rows in accuracies.groups] == [len(ABLATED)] * 3


SPARSE: dict[str, Any] = {
    "one seed": {"ablation": ablation_rows((1,))},
    "one tuning": {n: t[t["tuning"] != "stage"] for n, t in frames().items()},
    "no rows": {n: t.iloc[:0] for n, t in frames().items()},
}


@pytest.mark.parametrize("replaced", SPARSE.values(), ids=SPARSE)
def test_missing_rows_are_shown_as_missing(replaced: dict[str, Any], tmp_path: Path) -> None:
    measures = measured(tmp_path, **replaced)
    SECTION.draw(measures, tmp_path / "figures")
    said = str([*SECTION.judged(measures), *tables(measures), tensors_cost_most(measures)])
    assert "nan" not in said
    data = read_table(tmp_path / "figures/ablation.parquet")
    assert len(data) == len(measures.accuracies())
