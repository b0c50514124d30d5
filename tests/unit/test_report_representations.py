"""Probes in the report: what is judged, said and drawn of made-up tables."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from factrecall.experiments.representations.claims import CLAIMS, Probes
from factrecall.experiments.representations.report import SECTION
from factrecall.experiments.representations.tables import CONSISTENCY, PROBES
from factrecall.report.ledger import Judged
from factrecall.report.observations import TOGETHER, where
from factrecall.runtime.storage import write_table
from factrecall.vocabulary import COMPARED, RELATIONS
from tests.conftest import draw_readable

pytestmark = pytest.mark.usefixtures("quick_figures")

SEEDS = (0, 1, 2)
PEOPLE = 20

Deltas = dict[tuple[str, str, str], float]

PAPERS: Deltas = {
    ("stage", "rep", "bio_long"): 0.3,
    ("mix", "rep", "bio_long"): 0.05,
    ("stage", "rep", "bio_short"): 0.04,
    ("mix", "rep", "bio_short"): 0.02,
    ("stage", "mech", "bio_long"): 0.12,
    ("mix", "mech", "bio_long"): 0.03,
    ("stage", "mech", "bio_short"): 0.02,
    ("mix", "mech", "bio_short"): 0.01,
    ("stage", "mech_bio", "bio_long"): 0.2,
    ("mix", "mech_bio", "bio_long"): 0.04,
    ("stage", "mech_bio", "bio_short"): 0.02,
    ("mix", "mech_bio", "bio_short"): 0.01,
}
"""Signed differences as the paper would have them."""

TURNED = {key: 0.5 - delta for key, delta in PAPERS.items()}
LEVEL = {"stage": 0.5, "mix": 0.8}
"""Accuracy of QA probes on QA states."""


def delta_rows(
    deltas: Deltas = PAPERS, layers: int = 3, spread: float = 0.02, low: float = 0.0
) -> pd.DataFrame:
    """Make differences by person; those of all but the top layer are `low`, as is the other split.

    Means over people are exact.
    """
    noise = np.random.default_rng(0).normal(0, spread, (len(deltas), len(SEEDS), PEOPLE))
    noise -= noise.mean((1, 2), keepdims=True)
    rows = [
        ("m", tuning, seed, layer, bio, split, measure, person,
         (delta if layer == layers - 1 and split == "out" else low) + noise[cell, seed, person])
        for cell, ((tuning, measure, bio), delta) in enumerate(deltas.items())
        for seed, layer, split, person in product(
            SEEDS, range(layers), ("held", "out"), range(PEOPLE)
        )
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=list(CONSISTENCY))


def probe_rows(layers: int = 3, levels: dict[str, float] = LEVEL) -> pd.DataFrame:
    """Make accuracies that go with the differences of the paper."""
    rows = []
    for tuning, seed, layer, relation, split in product(
        COMPARED, SEEDS, range(layers), ("all", *RELATIONS), ("held", "out")
    ):
        level = levels[tuning] + 0.01 * seed
        for trained, tested in product(("bio_long", "bio_short", "qa"), repeat=2):
            lost = 0.0
            if trained != tested:
                measure, bio = ("rep", tested) if trained == "qa" else ("mech", trained)
                lost = PAPERS[tuning, measure, bio]
            shuffled = 0.1 if trained == tested else np.nan
            rows.append(
                ("m", tuning, seed, layer, relation, trained, tested, split, level - lost,
                 shuffled, 0.1, 0.01, 240, 20)
            )  # fmt: skip
    return pd.DataFrame(rows, columns=list(PROBES))


def measured(
    folder: Path,
    consistency: pd.DataFrame | None = None,
    probes: pd.DataFrame | None = None,
) -> Probes:
    """Write tables, and read them as the section does."""
    files = {name: folder / f"{name}.parquet" for name in SECTION.reads}
    write_table(files["probes"], probe_rows() if probes is None else probes, PROBES)
    rows = delta_rows() if consistency is None else consistency
    write_table(files["consistency"], rows, CONSISTENCY)
    return Probes("m", files)


def judged(folder: Path, rows: pd.DataFrame) -> dict[str, Judged]:
    """Judge all claims, by the name behind the section's."""
    found = SECTION.judged(measured(folder, rows))
    return {claim.id.removeprefix("representations."): claim for claim in found}


# --- claims -----------------------------------------------------------------------------------


def test_claims_hold_of_representations_like_the_papers(tmp_path: Path) -> None:
    found = judged(tmp_path, delta_rows())
    assert {c.verdict for c in found.values()} == {"holds"}
    assert [c.id for c in found.values() if c.is_extension] == [
        "representations.mechanisms-agree-long",
        "representations.mechanisms-agree-short",
    ]
    assert found["features-differ"].value == pytest.approx(0.25)
    assert found["features-differ"].people == PEOPLE
    assert found["length-matters"].value == pytest.approx(0.26)
    assert found["mechanisms-differ"].value == pytest.approx(0.16)
    assert found["short-features-agree"].value == pytest.approx(0.04)


@pytest.mark.parametrize(
    ("deltas", "verdict"),
    [(TURNED, "does not hold"), ({k: -v for k, v in PAPERS.items()}, "holds")],
    ids=["the other way round", "signs do not matter"],
)
def test_claims_are_of_absolute_differences(deltas: Deltas, verdict: str, tmp_path: Path) -> None:
    assert {c.verdict for c in judged(tmp_path, delta_rows(deltas)).values()} == {verdict}


def test_differences_are_subtracted_by_their_size(tmp_path: Path) -> None:
    deltas = {**PAPERS, ("mix", "rep", "bio_long"): -0.3, ("stage", "rep", "bio_long"): 0.1}
    claim = judged(tmp_path, delta_rows(deltas))["features-differ"]
    assert claim.value == pytest.approx(-0.2) and claim.verdict == "does not hold"


def test_differences_that_differ_between_people_are_inconclusive(tmp_path: Path) -> None:
    found = judged(tmp_path, delta_rows(spread=2.0))
    assert {c.verdict for c in found.values()} == {"inconclusive"}


@pytest.mark.parametrize(("size", "verdict"), [(0.12, "does not hold"), (0.08, "holds")])
def test_both_models_must_be_below_the_bound(size: float, verdict: str, tmp_path: Path) -> None:
    claim = judged(tmp_path, delta_rows({**PAPERS, ("mix", "rep", "bio_short"): -size}))[
        "short-features-agree"
    ]
    assert claim.verdict == verdict
    if verdict == "does not hold":
        assert claim.part == "Mix-tuned" and claim.value == pytest.approx(size)


def test_exchanged_models_turn_what_compares_them_and_equal_ones_do_not_differ(
    tmp_path: Path,
) -> None:
    rows = delta_rows({**PAPERS, ("mix", "rep", "bio_long"): -0.2})
    exchanged = rows.assign(tuning=rows["tuning"].map({"stage": "mix", "mix": "stage"}))
    stage = rows[rows["tuning"] == "stage"]
    same = pd.concat([stage, stage.assign(tuning="mix")])
    before, after, equal = (
        judged(tmp_path / str(number), table)
        for number, table in enumerate((rows, exchanged, same))
    )
    compared = [c.id.partition(".")[2] for c in CLAIMS if c.compares_tunings]
    assert compared == ["features-differ", "mechanisms-differ"]
    for name in compared:
        assert before[name].verdict == "holds" and after[name].verdict == "does not hold"
        assert after[name].value == pytest.approx(-before[name].value)
        assert after[name].low == pytest.approx(-before[name].high)
        assert equal[name].value == 0 and equal[name].verdict != "holds"


def test_what_was_not_measured_is_said_so(tmp_path: Path) -> None:
    one = delta_rows()
    found = judged(tmp_path / "one", one[one["tuning"] == "stage"])
    assert found["features-differ"].verdict == "not measurable"
    assert found["length-matters"].verdict == "holds"
    found = judged(tmp_path / "none", one.iloc[:0])
    assert {c.verdict for c in found.values()} == {"not measurable"}


@pytest.mark.parametrize(
    ("level", "long", "short"),
    [
        (0.15, "not measurable", "not measurable"),
        (0.25, "not measurable", "holds"),
        (0.35, "holds", "holds"),
    ],
)
def test_probes_near_chance_leave_no_room_for_a_difference(
    level: float, long: str, short: str, tmp_path: Path
) -> None:
    measures = measured(tmp_path, probes=probe_rows(levels={"stage": level, "mix": 0.8}))
    found = {c.id.rpartition("-")[2]: c for c in SECTION.judged(measures) if "-agree-" in c.id}
    assert (found["long"].verdict, found["short"].verdict) == (long, short)
    room = f"only {100 * (level + 0.01 - 0.1):.1f} points above chance"  # the seeds' mean
    assert (room in found["long"].reason) == (long == "not measurable")


def test_the_top_third_of_the_layers_is_judged(tmp_path: Path) -> None:
    for layers, top in ((1, [0]), (2, [1]), (4, [2, 3]), (7, [4, 5, 6])):
        rows = delta_rows(layers=layers)
        assert measured(tmp_path, rows[rows["individual"] < 2]).top == top
    assert measured(tmp_path, delta_rows().iloc[:0]).top == []


# --- what is said -----------------------------------------------------------------------------


def test_runs_like_the_papers_need_no_word(tmp_path: Path) -> None:
    assert SECTION.cautions(measured(tmp_path)) == []


def test_what_speaks_against_the_measures_is_said(tmp_path: Path) -> None:
    rows = delta_rows({key: -delta for key, delta in PAPERS.items()})
    probes = probe_rows(levels={"stage": 0.1, "mix": 0.8})
    said = SECTION.cautions(measured(tmp_path, rows, probes))
    assert "Stage-tuned: QA probes decode only 11.0 % of facts out" in "".join(said)
    assert "(chance 10.0 %)" in said[0] and len(said) == 5
    assert said[-1].startswith("Mix-tuned: QA probes decode BIO states better")


# --- what is drawn ----------------------------------------------------------------------------


def test_accuracies_are_condensed_over_seeds(tmp_path: Path) -> None:
    table = measured(tmp_path).accuracies()
    row = where(table, tuning="mix", trained="qa", tested="bio_long", layer=1).iloc[0]
    assert [row["low"], row["mean"], row["high"]] == pytest.approx([0.75, 0.76, 0.77])
    assert np.isnan(row["shuffled"])


def test_differences_are_those_of_each_seed_and_of_all(tmp_path: Path) -> None:
    rows = delta_rows({key: -delta for key, delta in PAPERS.items()})
    table = measured(tmp_path, rows).differences()
    table = where(table, split="out", tuning="stage", measure="rep", bio="bio_long", layer=2)
    assert sorted(table["seed"]) == [TOGETHER, *SEEDS]
    every = table[table["seed"] == TOGETHER].iloc[0]
    assert (every["signed"], every["value"]) == pytest.approx((-0.3, 0.3))
    assert every["low"] < -0.3 < every["high"] < -0.28
    assert table.loc[table["seed"] >= 0, "signed"].mean() == pytest.approx(-0.3)


def test_relations_have_a_table_of_their_own(tmp_path: Path) -> None:
    (table,) = SECTION.tables
    view = table.view(measured(tmp_path))
    assert "layers 2 and seeds" in view.caption
    assert view.head == ["Relation", "Stage, BIO long", "Stage, BIO short", "Mix, BIO long",
                         "Mix, BIO short"]  # fmt: skip
    ((_, rows),) = view.groups
    assert rows[0] == ["Birth date", "+30.0 ± 0.0", "+4.0 ± 0.0", "+5.0 ± 0.0", "+2.0 ± 0.0"]
    assert len(rows) == len(RELATIONS)
    empty = measured(tmp_path / "none", delta_rows().iloc[:0], probe_rows().iloc[:0])
    assert table.view(empty).groups[0][1][0][1:] == ["–"] * 4


@pytest.mark.parametrize("layers", [3, 28])
def test_figures_are_of_readable_size_and_hold_their_data(layers: int, tmp_path: Path) -> None:
    rows = delta_rows(layers=layers)
    m = measured(tmp_path, rows[rows["individual"] < 4], probe_rows(layers))
    draw_readable(SECTION, m, tmp_path / "figures", tallest=2.1)


@pytest.mark.parametrize("kept", ["stage", "nothing"])
def test_figures_of_missing_rows_are_drawn(kept: Any, tmp_path: Path) -> None:
    rows, probes = (where(table, tuning=kept) for table in (delta_rows(), probe_rows()))
    SECTION.draw(measured(tmp_path, rows[rows["individual"] < 4], probes), tmp_path / "figures")
    assert len(list((tmp_path / "figures").iterdir())) == 2 * len(SECTION.figures)
