"""Attribution and patching in the report: what is judged, said and drawn of made-up tables."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from factrecall.experiments.attribution.claims import CLAIMS, Attributions
from factrecall.experiments.attribution.claims import ROLES as LABELS
from factrecall.experiments.attribution.report import POSITIONS, SECTION
from factrecall.experiments.attribution.tables import ATTRIBUTION, OTHER_RELATION, PATCHING
from factrecall.experiments.common.prompts import ROLES
from factrecall.report.ledger import Judged
from factrecall.report.observations import TOGETHER, where
from factrecall.runtime.storage import write_table
from factrecall.vocabulary import COMPARED, FORMATS
from tests.conftest import draw_readable

pytestmark = pytest.mark.usefixtures("quick_figures")

SEEDS = (0, 1, 2)
PEOPLE = 16
RELATIONS = ("birth_date", "job")
WHOM = (("in", 99), *(("out", person) for person in range(PEOPLE)))
DIRECTIONS = (("bio", "qa"), ("short", "qa"), ("qa", "bio"))

SHARE = {
    "stage": {"subject": 0.2, "relation": 0.25, "attribute": 0.3, "other": 0.2, "start": 0.05},
    "mix": {"subject": 0.5, "relation": 0.3, "attribute": 0.05, "other": 0.1, "start": 0.05},
}
RECALLED = {"stage": 0.25, "mix": 0.5}
"""The share of facts that are answered without a patch."""

RESTORED = {"stage": 0.75, "mix": 0.0}
"""The share of facts not recalled that their own statement's state restores."""

Runs = dict[tuple[str, int], pd.DataFrame]


def attribution_rows(shares: Mapping[str, float], seed: int = 0) -> pd.DataFrame:
    """Make attributions of a run; birth dates have nothing before them, questions no context."""
    noise = np.random.default_rng(seed).normal(0, 0.02, PEOPLE)
    noise -= noise.mean()
    rows = []
    for split, person, relation, form in product(("in", "out"), range(PEOPLE), RELATIONS, FORMATS):
        none = form == "qa" or relation == "birth_date"
        left = {r: s for r, s in shares.items() if not (none and r in ("attribute", "other"))}
        for role in (*ROLES, OTHER_RELATION):
            given = left.get(role, np.nan if role == OTHER_RELATION else 0.0)
            moved = noise[person % PEOPLE] * {"subject": 1, "other": -1}.get(role, 0) * (not none)
            drop = np.nan if role == "start" else 2.0 if role == OTHER_RELATION else 10 * given
            rows.append(
                (split, person, relation, form, role, int(role in left), 4 * (given + moved), 4.0,
                 0.0, 5.0, -1.0, True, 5.0 - drop, -2.0, False, False)
            )  # fmt: skip
    return pd.DataFrame(rows, columns=list(ATTRIBUTION))


def patching_rows(
    tuning: str, recalled: float, restored: float, other: float = 0.0, layers: int = 3
) -> pd.DataFrame:
    """Make patches of a run that restore a share of what is not recalled, early layers nothing.

    Of each four people the first are recalled; of what is not, that of the first fours restored.
    """
    rows = []
    for (split, person), relation, (source, target), layer, position, whose in product(
        WHOM, RELATIONS, DIRECTIONS, range(layers), POSITIONS, ("same", "other")
    ):
        before = person % 4 < 4 * recalled if target == "qa" else True
        share = restored if whose == "same" else other
        reached = person // 4 < 4 * share and layer >= (layers - 1) // 2
        rows.append(
            (split, person, relation, source, target, layer, position, whose, before or reached,
             before, -1.0, -2.0, False)
        )  # fmt: skip
    return pd.DataFrame(rows, columns=list(PATCHING))


def runs(
    shares: Mapping[str, Mapping[str, float]] = SHARE,
    restored: Mapping[str, float] = RESTORED,
    other: float = 0.0,
    layers: int = 3,
) -> tuple[Runs, Runs]:
    """Return the tables of attribution and patching of all runs."""
    keys = list(product(COMPARED, SEEDS))
    return (
        {(t, s): attribution_rows(shares[t], s + 10 * (t == "mix")) for t, s in keys},
        {(t, s): patching_rows(t, RECALLED[t], restored[t], other, layers) for t, s in keys},
    )


def write_attribution_tables(
    results: Path, model: str, tables: tuple[Runs, Runs] | None = None
) -> dict[str, Path]:
    """Write the tables of a model's runs where the workflow has them; by the section's keys."""
    written = {}
    for kind, schema, found in zip(
        ("attribution", "patching"), (ATTRIBUTION, PATCHING), tables or runs(), strict=True
    ):
        for (tuning, seed), table in found.items():
            path = results / f"representations/{model}/{tuning}/seed{seed}.{kind}.parquet"
            write_table(path, table, schema)
            written[f"{kind}/{tuning}/{seed}"] = path
    return written


def measured(folder: Path, tables: tuple[Runs, Runs] | None = None) -> Attributions:
    return Attributions("m", write_attribution_tables(folder, "m", tables))


def judged(folder: Path, tables: tuple[Runs, Runs] | None = None) -> dict[str, Judged]:
    """Judge all claims, by the name behind the section's."""
    found = SECTION.judged(measured(folder, tables))
    return {claim.id.removeprefix("attribution."): claim for claim in found}


def exchanged(found: Runs) -> Runs:
    return {({"stage": "mix", "mix": "stage"}[t], s): table for (t, s), table in found.items()}


# --- claims -----------------------------------------------------------------------------------


def test_claims_hold_of_a_model_like_the_papers(tmp_path: Path) -> None:
    found = judged(tmp_path)
    assert {c.verdict for c in found.values()} == {"holds"}
    assert [c.is_extension for c in found.values()] == [False, False, True, True]
    assert {c.people for c in list(found.values())[:2]} == {PEOPLE}


def test_shares_of_roles_are_added_up_fact_by_fact(tmp_path: Path) -> None:
    found = judged(tmp_path)
    # Of jobs 0.8 less 0.45; of birth dates, which have no context, 0.8 / 0.85 less 0.45 / 0.5.
    expected = (0.8 - 0.45 + 0.8 / 0.85 - 0.45 / 0.5) / 2
    assert found["mix-reads-subject-and-relation"].value == pytest.approx(expected, abs=1e-6)
    # Only jobs have a context.
    assert found["stage-reads-context"].value == pytest.approx(0.5 - 0.15, abs=1e-6)


def test_patching_is_judged_on_what_is_not_recalled(tmp_path: Path) -> None:
    found = judged(tmp_path)
    own = found["stage-knows-more-than-it-recalls"]
    # A quarter of the people are recalled: they take no part, else the value would be smaller.
    assert own.value == pytest.approx(0.75) and own.people == 0.75 * PEOPLE
    more = found["stage-knows-more-than-mix"]
    # Half of the people are recalled by neither.
    assert more.value == pytest.approx(0.75) and more.people == 0.5 * PEOPLE


def test_a_state_that_restores_no_more_than_anothers_is_no_knowledge(tmp_path: Path) -> None:
    found = judged(tmp_path, runs(other=0.75))
    own = found["stage-knows-more-than-it-recalls"]
    assert own.value == 0 and own.verdict == "inconclusive" and own.low == -own.high


def test_patching_is_judged_after_the_middle_layer(tmp_path: Path) -> None:
    for layers, middle in ((1, 0), (2, 0), (3, 1), (28, 13)):
        attribution, _ = runs()
        patching = {
            ("mix", 0): patching_rows("mix", 0.5, 0.5, layers=layers).query("individual == 0")
        }
        assert measured(tmp_path / str(layers), (attribution, patching)).middle == middle
    tables = runs()
    for rows in tables[1].values():
        rows.loc[(rows["layer"] == 1) & ~rows["unpatched"], "right"] = False
    found = judged(tmp_path / "late", tables)
    assert found["stage-knows-more-than-it-recalls"].value == 0


def test_exchanged_models_turn_what_compares_them_and_equal_ones_do_not_differ(
    tmp_path: Path,
) -> None:
    attribution, patching = runs()
    before = judged(tmp_path / "before", (attribution, patching))
    after = judged(tmp_path / "after", (exchanged(attribution), exchanged(patching)))
    same = tuple({(t, s): found["stage", s] for t, s in found} for found in (attribution, patching))
    equal = judged(tmp_path / "equal", same)  # type: ignore[arg-type]
    compared = [c.id.partition(".")[2] for c in CLAIMS if c.compares_tunings]
    assert len(compared) == 3
    for name in compared:
        assert before[name].verdict == "holds" and after[name].verdict == "does not hold"
        assert after[name].value == pytest.approx(-before[name].value)
        assert after[name].low == pytest.approx(-before[name].high)
        assert equal[name].value == 0 and equal[name].verdict != "holds"


def test_what_was_not_measured_is_said_so(tmp_path: Path) -> None:
    attribution, patching = runs()
    one = tuple({k: v for k, v in f.items() if k[0] == "stage"} for f in (attribution, patching))
    found = judged(tmp_path / "one", one)  # type: ignore[arg-type]
    assert [c.verdict for c in found.values()] == [
        "not measurable", "not measurable", "holds", "not measurable",
    ]  # fmt: skip
    none = tuple({k: v.iloc[:0] for k, v in f.items()} for f in (attribution, patching))
    found = judged(tmp_path / "none", none)  # type: ignore[arg-type]
    assert {c.verdict for c in found.values()} == {"not measurable"}


# --- what is said -----------------------------------------------------------------------------


def test_a_model_like_the_papers_needs_no_word(tmp_path: Path) -> None:
    assert SECTION.cautions(measured(tmp_path)) == []


def test_what_speaks_against_the_measures_is_said(tmp_path: Path) -> None:
    attribution, patching = runs({t: {**SHARE[t], "start": -1.0} for t in COMPARED})
    for (tuning, _), rows in patching.items():
        rows.loc[(rows["target"] == "bio") & (tuning == "stage"), "unpatched"] = False
    start, known = SECTION.cautions(measured(tmp_path, (attribution, patching)))
    assert "has up to 69.0 % of the attribution" in start
    assert "The Stage-tuned model continues only 0.0 % of these biographies" in known


# --- what is drawn ----------------------------------------------------------------------------


def test_roles_without_tokens_have_no_share(tmp_path: Path) -> None:
    table = measured(tmp_path).by_role()
    none = (table["format"] == "qa") & table["role"].isin(["attribute", "other"])
    none |= table["role"] == OTHER_RELATION
    assert table["share"].isna().equals(none)
    row = where(table, tuning="mix", format="bio", role="subject", seed=TOGETHER).iloc[0]
    assert row["share"] == pytest.approx((0.5 + 0.5 / 0.85) / 2, abs=0.02)
    assert row["share_low"] < row["share"] < row["share_high"]
    assert row["logit_drop"] == pytest.approx(5.0)
    assert (row["facts"], row["replaced"]) == (2 * PEOPLE * 3, 2 * PEOPLE * 3)


def test_gains_are_of_all_facts_out(tmp_path: Path) -> None:
    table = measured(tmp_path).gains()
    row = where(table, tuning="stage", source="bio", target="qa", layer=1, position="last")
    row = where(row, source_fact="same", seed=TOGETHER).iloc[0]
    assert row["gain"] == pytest.approx(0.75 * 0.75, abs=0.01)
    assert row["gain_low"] < row["gain"] < row["gain_high"]


def test_layers_have_a_table_of_what_is_not_recalled(tmp_path: Path) -> None:
    (table,) = SECTION.tables
    view = table.view(measured(tmp_path))
    assert view.head[:4] == ["Layer", "Stage, own", "Stage, another's", "Stage, questions"]
    ((_, rows),) = view.groups
    assert rows[0] == ["0", "0.0", "0.0", "72", "0.0", "0.0", "48"]
    assert rows[1][:4] == ["1", "75.0", "0.0", "72"]


def test_facts_without_a_control_are_left_out(tmp_path: Path) -> None:
    tables = runs()
    rows = tables[1]["stage", 0]
    fact = (rows["split"] == "out") & (rows["individual"] == 5) & (rows["relation"] == "job")
    tables[1]["stage", 0] = rows[~(fact & (rows["source_fact"] == "other"))]
    found = measured(tmp_path, tables).restored()
    # Of twelve people two facts in each of three seeds, but one.
    assert where(found, tuning="stage").groupby("layer").size().tolist() == [71] * 3
    assert where(found, tuning="mix").groupby("layer").size().tolist() == [48] * 3
    assert set(where(found, tuning="stage", seed=0, individual=5)["relation"]) == {"birth_date"}


@pytest.mark.parametrize("layers", [2, 28])
def test_figures_are_of_readable_size_and_hold_their_data(layers: int, tmp_path: Path) -> None:
    attribution, patching = runs(layers=layers)
    few = {key: rows[rows["individual"] < 3] for key, rows in patching.items() if key[1] == 0}
    m = measured(tmp_path, (attribution, few))
    draw_readable(SECTION, m, tmp_path / "figures", tallest=2.1)


@pytest.mark.parametrize("kept", ["stage", "nothing"])
def test_figures_of_missing_rows_are_drawn(kept: str, tmp_path: Path) -> None:
    tables = tuple(
        {key: rows if key[0] == kept else rows.iloc[:0] for key, rows in found.items()}
        for found in runs(layers=1)
    )
    SECTION.draw(measured(tmp_path, tables), tmp_path / "figures")  # type: ignore[arg-type]
    assert len(list((tmp_path / "figures").iterdir())) == 2 * len(SECTION.figures)


def test_every_role_has_a_label() -> None:
    assert set(LABELS) == {*ROLES, OTHER_RELATION}
