"""Shared parameters in the report: what is condensed, judged, said and drawn of made-up tables."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
from factrecall.experiments.grafting.caveats import masks_learn_answers, smallest_was_enough

from factrecall.experiments.ablation.compute import ABLATED, ABLATION, CONTROLS, INTERVALS, NONE
from factrecall.experiments.grafting.grafter import GRAFTING
from factrecall.experiments.grafting.mask_checks import CHECKS
from factrecall.experiments.grafting.mask_choice import MOVEMENT, WHOLE
from factrecall.experiments.grafting.measures import Grafting
from factrecall.experiments.grafting.report import SECTION as GRAFTS
from factrecall.experiments.grafting.report import checks_view, grafting_view
from factrecall.experiments.shared_parameters.compute import SETS, SHARED, SHARED_LOCATIONS
from factrecall.experiments.shared_parameters.report import SECTION as SHARES
from factrecall.experiments.shared_parameters.report import (
    Shared,
    gatherings_view,
    tensors_account_for_most,
)
from factrecall.report.claims import Judged, by_seed_difference
from factrecall.report.published import (
    ABLATIONS,
    LLAMA,
    PYTHIA,
    published,
    published_ablation,
    published_graft,
)
from factrecall.report.published import (
    GRAFTS as PUBLISHED_GRAFTS,
)
from factrecall.report.section import Caveats
from factrecall.report.style import DOTS_PER_INCH, WIDTH
from factrecall.report.tables import Table
from factrecall.runtime.errors import FactRecallError
from factrecall.runtime.storage import read_table, write_table
from factrecall.vocabulary import SPLITS

SEEDS = (0, 1, 2)
ALPHAS = (0.01, 0.05, 0.2)
METHOD = "dual_averaging"
K = 30
"""Of the 1,000 parameters of the synthetic model, as a share of 0.03 says."""

LLAMA_PLACES = (
    ("model.embed_tokens.weight", -1, "model.embed_tokens", 600),
    ("model.layers.0.self_attn.q_proj.weight", 0, "self_attn.q_proj", 200),
    ("model.layers.1.self_attn.q_proj.weight", 1, "self_attn.q_proj", 200),
)
NEOX_PLACES = (
    ("gpt_neox.embed_in.weight", -1, "gpt_neox.embed_in", 200),
    *(
        (f"gpt_neox.layers.{layer}.{kind}", layer, kind.removesuffix(".weight"), 10)
        for layer in range(28)
        for kind in (
            "attention.query_key_value.weight",
            "attention.query_key_value.bias",
            "mlp.dense_h_to_4h.weight",
        )
    ),
)

RATIOS = {"stage": 0.5, "mix": 0.7}
"""|S|/k of the absolute influence; the other readings have less of it."""

LOST = {
    "stage": {"shared": 0.01, "random": 0.0, "random_by_tensor": 0.005, "most_moved": 0.005},
    "mix": {"shared": 0.3, "random": 0.005, "random_by_tensor": 0.2, "most_moved": 0.1},
}
WHOLE_RECALL = {"stage": 0.2, "mix": 0.5}


def shared_rows(seeds: tuple[int, ...] = SEEDS) -> pd.DataFrame:
    """Make curves in which mixed training is ahead at every k."""
    rows = [
        (tuning, seed, influence, name, k, ratio + 0.01 * seed)
        for tuning, level in RATIOS.items()
        for seed in seeds
        for influence, part in (("absolute", 1.0), ("magnitude", 0.6), ("signed", 0.4))
        for name in SETS
        for k in (10, K, 200)
        for ratio in [part * level]
    ]
    columns = ["tuning", "seed", "influence", "set", "k", "ratio"]
    table = pd.DataFrame(rows, columns=columns)
    return table.assign(
        model="m",
        size=(table["ratio"] * table["k"]).astype(int),
        chance=0.03,
        null=0.3,
        selected=(table["k"] == K) & (table["influence"] == "absolute"),
    )


def places_rows(places: tuple[Any, ...], seeds: tuple[int, ...] = SEEDS) -> pd.DataFrame:
    """Make a tenth of every tensor shared."""
    rows = [
        ("m", tuning, seed, name, *place, place[3] // 10)
        for tuning in RATIOS
        for seed in seeds
        for name in SETS
        for place in places
    ]
    return pd.DataFrame(rows, columns=list(SHARED_LOCATIONS))


def ablation_rows(seeds: tuple[int, ...] = SEEDS) -> pd.DataFrame:
    """Make ablations that cost what `LOST` says, on every split."""
    rows = [
        ("m", tuning, seed, ablated, split, "job", 1000, correct, correct / 1000, lost)
        for tuning, drops in LOST.items()
        for seed in seeds
        for split in SPLITS
        for ablated in ABLATED
        for lost in [drops.get(ablated, 0.0)]
        for correct in [round(1000 * (WHOLE_RECALL[tuning] - lost))]
    ]
    return pd.DataFrame(rows, columns=list(ABLATION))


def interval_rows() -> pd.DataFrame:
    """Make intervals of a point to either side."""
    pairs = [(a, NONE) for a in ABLATED if a != NONE] + [("shared", c) for c in CONTROLS]
    rows = [
        ("m", tuning, split, ablated, against, d, d - 0.01, d + 0.01)
        for tuning, lost in LOST.items()
        for split in SPLITS
        for ablated, against in pairs
        for d in [lost[ablated] - lost.get(against, 0.0)]
    ]
    return pd.DataFrame(rows, columns=list(INTERVALS))


def grafting_rows(seeds: tuple[int, ...] = SEEDS, chosen: Any = None) -> pd.DataFrame:
    """Make masks of which Mix-tuned models need the middle size, Stage-tuned ones the largest."""
    chosen = chosen or {"stage": 0.2, "mix": 0.05}
    rows = []
    for tuning, seed, split in [(t, s, p) for t in RATIOS for s in seeds for p in ("in", "out")]:
        key = ("m", tuning, seed, split)
        for held in (True, False):
            rows.append((*key, 1.0, held, WHOLE, 0.5, 1.0, 1000, 0.1, False))
            for alpha in ALPHAS:
                size, picked = int(1000 * alpha), alpha == chosen[tuning]
                recovery = (0.95 if alpha >= (chosen[tuning] or 1) else 0.4) - 0.3 * (not held)
                recovery += 0.5 if tuning == "mix" and held else 0.0
                inside = (0.2 if tuning == "mix" else 0.1) * held
                rows.append(
                    (*key, alpha, held, METHOD, 0.5 * recovery, recovery, size, inside, picked)
                )
                rows.append((*key, alpha, held, MOVEMENT, 0.05, 0.1, size, 0.0, False))
    return pd.DataFrame(rows, columns=list(GRAFTING))


def check_rows(seeds: tuple[int, ...] = SEEDS, others: float = 0.06) -> pd.DataFrame:
    """Make masks that learn answers: other people's do not come back, exchanged ones are fitted."""
    nan = np.nan
    rows: list[tuple[Any, ...]] = []
    for tuning, seed, split in [(t, s, p) for t in RATIOS for s in seeds for p in ("in", "out")]:
        key = ("m", tuning, seed, split)
        for other in (0.0, 1.0):
            rows.append((*key, "pre_trained", nan, other, 0.05))
            rows.append((*key, "fine_tuned", nan, other, 0.5))
        for alpha in ALPHAS:
            rows.append((*key, "others", alpha, nan, others))
            rows.append((*key, "kept", alpha, nan, 0.9))
            rows.append((*key, "gained", alpha, nan, 0.4))
            rows.append((*key, "random", alpha, 0.0, 0.05))
            rows += [(*key, "inclusion", alpha, b, 0.9) for b in ALPHAS if b > alpha]
            rows += [(*key, "overlap_seeds", alpha, float(s), 0.4) for s in seeds if s != seed]
            if seed == seeds[0]:
                rows.append((*key, "overlap_runs", alpha, nan, 0.6))
                rows.append((*key, "shuffled", alpha, nan, 0.35))
    return pd.DataFrame(rows, columns=list(CHECKS))


SCHEMAS = {
    "shared": SHARED,
    "shared_locations": SHARED_LOCATIONS,
    "ablation": ABLATION,
    "ablation_intervals": INTERVALS,
    "grafting": GRAFTING,
    "grafting_checks": CHECKS,
}


def frames(places: tuple[Any, ...] = LLAMA_PLACES, **replaced: pd.DataFrame) -> dict[str, Any]:
    """Return the tables by name, some replaced."""
    return {
        "shared": shared_rows(),
        "shared_locations": places_rows(places),
        "ablation": ablation_rows(),
        "ablation_intervals": interval_rows(),
        "grafting": grafting_rows(),
        "grafting_checks": check_rows(),
    } | replaced


def write_parameter_tables(folder: Path, models: tuple[str, ...] = ("m",)) -> None:
    """Write the synthetic tables of some models."""
    for name, table in frames().items():
        every = pd.concat(table.assign(model=model) for model in models)
        write_table(folder / f"{name}.parquet", every, SCHEMAS[name])


@dataclass(frozen=True)
class Measures:
    """What both sections are made of, and how they read it."""

    shared: Shared
    grafting: Grafting

    def claims(self) -> list[Judged]:
        """Judge all claims."""
        return SHARES.judged(self.shared) + GRAFTS.judged(self.grafting)

    def caveats(self) -> list[str]:
        """Say what speaks against the masks."""
        return Caveats(masks_learn_answers, smallest_was_enough).said(self.grafting)


def measures_of(folder: Path, tables: dict[str, Any], paper: str = LLAMA) -> Measures:
    """Write tables and read them as the report does."""
    for name, table in tables.items():
        write_table(folder / f"{name}.parquet", table, SCHEMAS[name])
    files = {name: folder / f"{name}.parquet" for name in SCHEMAS}
    return Measures(
        Shared("m", files, {"influence": "absolute"}, paper),
        Grafting("m", files, {"recovery": 0.92}, paper),
    )


@pytest.fixture
def measures(tmp_path: Path) -> Measures:
    """Return measures that are as the paper says, but for what masks do for other people."""
    return measures_of(tmp_path, frames())


def about(claims: Sequence[Any], *words: str) -> list[str]:
    """Return the verdicts on the claims with all these words."""
    return [c.verdict for c in claims if all(w in c.text for w in words)]


# --- measures ---------------------------------------------------------------------------------


def test_what_the_configuration_says_is_found_in_the_tables(measures: Measures) -> None:
    assert (measures.shared.parameters, measures.shared.k) == (1000, K)
    assert set(measures.shared.at_k()["k"]) == {K}
    assert measures.shared.size_of_s()["share"].tolist() == pytest.approx([0.1] * 6)
    assert measures.shared.rows("shared")["tuning"].drop_duplicates().tolist() == ["stage", "mix"]


def test_the_mask_looked_at_is_the_chosen_one_or_the_best(tmp_path: Path) -> None:
    masks = measures_of(tmp_path, frames()).grafting.masks
    assert masks.groupby("tuning")["alpha"].unique().map(list).to_dict() == {
        "stage": [0.2],
        "mix": [0.05],
    }
    assert (masks["accuracy"] > masks["accuracy_without"]).all()
    none = grafting_rows(chosen={"stage": None, "mix": 0.05})
    unchosen = measures_of(tmp_path, frames(grafting=none)).grafting.masks
    stage = unchosen[unchosen["tuning"] == "stage"]
    # Of equally good ones the smallest.
    assert not stage["chosen"].any()
    assert set(stage["alpha"]) == {0.01}


def test_what_fine_tuning_added_to_other_peoples_recall(measures: Measures) -> None:
    others = measures.grafting.others_of_masks()
    assert len(others) == 12
    assert others["recovery"].tolist() == pytest.approx([0.12] * 12)
    assert others["closed"].tolist() == pytest.approx([0.01 / 0.45] * 12)


def test_differences_pair_the_seeds_of_both_tunings() -> None:
    rows = pd.DataFrame(
        [("mix", 0, 0.5), ("mix", 1, 0.4), ("stage", 0, 0.2), ("stage", 2, 0.1)],
        columns=["tuning", "seed", "x"],
    )
    assert by_seed_difference(rows, "x") == {0: pytest.approx(0.3)}
    assert by_seed_difference(rows[rows["tuning"] == "mix"], "x") == {}


# --- claims -----------------------------------------------------------------------------------


def test_claims_that_hold_and_the_check_that_fails(measures: Measures) -> None:
    claims = measures.claims()
    failed = [c for c in claims if c.verdict != "holds"]
    assert [c.is_extension for c in failed] == [True, True]
    assert about(claims, "people it was not fitted to") == ["does not hold"] * 2
    first = claims[0]
    assert "Mix-tuned 71.0\u00a0%, Stage-tuned 51.0\u00a0%" in first.evidence
    assert first.paper == "1.2 times as large"


def test_claims_the_other_way_round_do_not_hold(tmp_path: Path) -> None:
    tables = {
        name: table.assign(tuning=table["tuning"].map({"mix": "stage", "stage": "mix"}))
        for name, table in frames().items()
    }
    claims = measures_of(tmp_path, tables, PYTHIA).claims()
    assert about(claims, "|S|/k is larger at shared.k") == ["does not hold"]
    assert about(claims, "at every k") == ["does not hold"]
    assert about(claims, "fewer grafted") == ["does not hold"] * 2
    assert about(claims, "chosen mask is in S") == ["does not hold"] * 2
    assert about(claims, "S adds more") == ["does not hold"] * 2


def test_behind_at_one_k_in_every_seed_is_not_at_every_k(tmp_path: Path) -> None:
    rows = shared_rows()
    behind = (rows["k"] == 10) & (rows["tuning"] == "mix")
    rows.loc[behind, "ratio"] = 0.1
    claims = measures_of(tmp_path, frames(shared=rows)).claims()
    assert about(claims, "larger at shared.k") == ["holds"]
    assert about(claims, "at every k") == ["does not hold"]
    assert "k = 10." in next(c.evidence for c in claims if "every k" in c.text)


def test_no_mask_chosen_counts_as_needing_all(tmp_path: Path) -> None:
    for chosen, expected in (
        ({"stage": None, "mix": 0.05}, "holds"),
        ({"stage": 0.05, "mix": None}, "does not hold"),
        ({"stage": None, "mix": None}, "inconclusive"),
        ({"stage": 0.05, "mix": 0.05}, "inconclusive"),
    ):
        tables = frames(grafting=grafting_rows(chosen=chosen))
        claims = measures_of(tmp_path, tables).claims()
        assert about(claims, "fewer grafted") == [expected] * 2
        if None in chosen.values():
            assert about(claims, "chosen mask is in S") == ["inconclusive"] * 2


def test_masks_that_find_recall_are_said_to(tmp_path: Path) -> None:
    tables = frames(grafting_checks=check_rows(others=0.49))
    found = measures_of(tmp_path, tables)
    assert about(found.claims(), "not fitted to") == ["holds"] * 2
    assert found.caveats() == []


def test_masks_are_held_against_what_they_recover_themselves(tmp_path: Path) -> None:
    for own, others, expected in (
        (0.9, 0.45, "holds"),  # 90 % of either: no worse on people not fitted to
        (0.9, 0.38, "does not hold"),
        (3.0, 0.47, "holds"),  # more than all cannot be asked for
        (0.4, 0.2, "inconclusive"),  # of masks that recover next to nothing
    ):
        grafts = grafting_rows().assign(accuracy=0.5 * own, recovery=own)
        tables = frames(grafting=grafts, grafting_checks=check_rows(others=others))
        claims = measures_of(tmp_path, tables).claims()
        assert about(claims, "people it was not fitted to") == [expected] * 2


def test_a_model_that_recalls_nothing_needs_no_parameters_nor_all(tmp_path: Path) -> None:
    rows, checks = grafting_rows(chosen={"stage": None, "mix": 0.05}), check_rows()
    dead = (rows["tuning"] == "stage") & (rows["seed"] == 0)
    rows.loc[dead, ["accuracy", "recovery"]] = (0.0, np.nan)
    silent = (checks["tuning"] == "stage") & (checks["check"] == "fine_tuned")
    checks.loc[silent & (checks["seed"] == 0), "value"] = 0.0
    measures = measures_of(tmp_path, frames(grafting=rows, grafting_checks=checks))
    claims = [c for c in measures.claims() if "fewer grafted" in c.text]
    # Two seeds are left, too few without an interval.
    assert [c.verdict for c in claims] == ["inconclusive"] * 2
    stage = "Stage-tuned \u2013, none enough, none enough (to recall 33.3\u00a0%)"
    assert all(stage in c.evidence for c in claims)


def test_what_there_is_to_recall_is_measured_not_inferred(tmp_path: Path) -> None:
    rows = grafting_rows().assign(accuracy=0.0, recovery=0.0)
    measures = measures_of(tmp_path, frames(grafting=rows))
    assert cells(grafting_view(measures.grafting), 0, 0)[3] == "50.0 ± 0.0"
    claims = measures.claims()
    assert all("to recall 50.0" in c.evidence for c in claims if "fewer grafted" in c.text)


def test_s_may_be_more_of_a_mask_only_because_it_is_larger(tmp_path: Path) -> None:
    rows = grafting_rows()
    rows.loc[(rows["tuning"] == "mix") & (rows["method"] == WHOLE), "shared_fraction"] = 0.4
    claims = measures_of(tmp_path, frames(grafting=rows)).claims()
    assert about(claims, "chosen mask is in S") == ["holds"] * 2
    assert about(claims, "even for the size of S") == ["does not hold"] * 2
    said = next(c.evidence for c in claims if "even for the size" in c.text)
    assert "Mix-tuned 0.50 times, Stage-tuned 1.00 times; difference by seed \u22120.50" in said
    assert said.endswith("both have: Mix-tuned 0.50 times, Stage-tuned 1.00 times.")


# --- cautions ---------------------------------------------------------------------------------


def test_learning_is_told_with_its_numbers(measures: Measures) -> None:
    said = " ".join(measures.caveats())
    assert "Mix-tuned 145.0\u00a0%" in said
    assert "not of others (Stage-tuned 12.0\u00a0%" in said
    assert "More than 100 % cannot be recovered" in said
    assert "has wrong: Stage-tuned 40.0\u00a0%" in said
    assert "get right: Stage-tuned 35.0\u00a0%" in said
    assert said.count("is itself a way to learn") == 1


def test_each_tuning_is_cautioned_by_its_own_numbers(tmp_path: Path) -> None:
    rows, checks = grafting_rows(), check_rows()
    poor = rows["tuning"] == "stage"
    rows.loc[poor, ["accuracy", "recovery"]] = (0.05, 0.1)
    only = " ".join(measures_of(tmp_path, frames(grafting=rows)).caveats())
    assert "not of others (Mix-tuned 12.0\u00a0%; with" in only
    assert "fitted to (Mix-tuned 145.0\u00a0%)" in only
    some = (checks["check"] == "others") & (checks["tuning"] == "stage")
    checks.loc[some, "value"] = 0.2
    said = " ".join(measures_of(tmp_path, frames(grafting_checks=checks)).caveats())
    assert "not of others (Mix-tuned 12.0\u00a0%; with" in said
    assert "far less of others\u2019 (Stage-tuned 40.0\u00a0%; with" in said


def test_what_is_right_without_fitting_is_not_learnt(tmp_path: Path) -> None:
    checks = check_rows()
    checks.loc[checks["check"].isin(["gained", "shuffled"]), "value"] = 0.14
    assert "has wrong" not in " ".join(
        measures_of(tmp_path, frames(grafting_checks=checks)).caveats()
    )
    rows = grafting_rows()
    rows["accuracy"], rows["recovery"] = 0.515, 1.03
    near = measures_of(tmp_path, frames(grafting=rows, grafting_checks=checks))
    assert "More than 100" not in " ".join(near.caveats())
    assert "not of others" in " ".join(near.caveats())


def test_the_caveat_on_tensors_needs_its_data(tmp_path: Path, measures: Measures) -> None:
    said = tensors_account_for_most(measures.shared)  # 30 % permuted, of 51 % in two-stage training
    assert said is not None and "Mix-tuned" not in said
    calm = measures_of(tmp_path, frames(shared=shared_rows().assign(null=0.1)))
    assert tensors_account_for_most(calm.shared) is None


def test_a_table_that_does_not_say_its_k_is_refused(tmp_path: Path) -> None:
    rows = shared_rows().drop(columns="selected")
    schema = {name: kind for name, kind in SHARED.items() if name != "selected"}
    write_table(tmp_path / "old.parquet", rows, schema)
    with pytest.raises(FactRecallError, match="at which k the shared parameters were selected"):
        SHARES.judged(Shared("m", {"shared": tmp_path / "old.parquet"}))


def test_the_end_of_the_grid_is_told(tmp_path: Path) -> None:
    tables = frames(grafting=grafting_rows(chosen={"stage": 0.01, "mix": 0.05}))
    said = " ".join(measures_of(tmp_path, tables).caveats())
    assert "α = 1\u00a0%" in said
    assert "(Stage-tuned, QA in; Stage-tuned, QA out)" in said


# --- tables -----------------------------------------------------------------------------------


def cells(table: Any, group: int, row: int) -> list[str]:
    found: list[str] = table.groups[group][1][row]
    return found


def test_tables_hold_our_numbers_and_theirs(tmp_path: Path, measures: Measures) -> None:
    shared = next(p for p in SHARES.body if isinstance(p, Table) and p.row).view(measures.shared)
    assert cells(shared, 0, 2) == [
        "S: either", "51.0 ± 1.0", "30.0", "71.0 ± 1.0", "30.0", "3.0", "1.39",
    ]  # fmt: skip
    assert "1.2 for Llama" in shared.caption
    pythia = measures_of(tmp_path, frames(), PYTHIA)
    mix = cells(grafting_view(pythia.grafting), 1, 4)
    assert mix[1:5] == ["5.00 ± 0.00", "0.095", "72.5 ± 0.0 (+40.0)", "48.0 (+38.1)"]
    checks = checks_view(measures.grafting)
    assert len(checks.groups) == 2
    assert cells(checks, 0, 5)[1:3] == ["35.0", "35.0"]  # of the first seed only
    assert cells(checks, 0, 6)[1:3] == cells(checks, 0, 7)[1:3] == ["5.0 ± 0.0"] * 2
    for table in (shared, checks):
        assert all(len(r) == len(table.head) for _, rows in table.groups for r in rows)


def test_a_split_without_a_chosen_mask_says_so(tmp_path: Path) -> None:
    tables = frames(grafting=grafting_rows(chosen={"stage": None, "mix": 0.05}))
    row = cells(grafting_view(measures_of(tmp_path, tables).grafting), 0, 1)
    assert "none enough" in row[0]
    assert row[1] == row[3] == "\u2013"


def test_published_numbers_agree_among_themselves() -> None:
    changes = {(LLAMA, "mix"): (-85.9, -78.6, -66.0), (PYTHIA, "stage"): (-15.6, -17.8, -1.8)}
    for (model, tuning), printed in changes.items():
        for split, change in zip(SPLITS, printed, strict=True):
            after, before = (published_ablation(model, tuning, a, split) for a in ("shared", NONE))
            assert after is not None and before is not None
            assert after - before == pytest.approx(change, abs=0.06)
    for row in PUBLISHED_GRAFTS:
        assert 100 * row.accuracy / row.whole == pytest.approx(row.recovery, abs=0.25)
        assert row.whole == pytest.approx(published(*row[:2], f"qa_{row.split}"), abs=0.7)
    assert len({row[:3] for row in ABLATIONS}) == len(ABLATIONS) == 8
    assert published_graft(LLAMA, "bio", "in") is published_ablation("?", "mix", "x", "bio") is None


# --- figures ----------------------------------------------------------------------------------


def draw(measures: Measures, folder: Path) -> None:
    """Draw the figures of both sections."""
    SHARES.draw(measures.shared, folder)
    GRAFTS.draw(measures.grafting, folder)


def test_figures_hold_their_data_and_are_of_readable_size(
    measures: Measures, tmp_path: Path
) -> None:
    draw(measures, tmp_path)
    for figure in (*SHARES.figures, *GRAFTS.figures):
        height, width, _ = matplotlib.image.imread(tmp_path / f"{figure.name}.png").shape
        assert width == round(WIDTH * DOTS_PER_INCH)
        assert 0.3 < height / width < 1.65
    lines = read_table(tmp_path / "grafting.parquet")
    assert set(lines["line"]) == {"with", "without", "movement", "others"}
    assert lines[lines["line"] == "others"]["recovery"].tolist() == pytest.approx([0.12] * 36)
    overlap = read_table(tmp_path / "grafting_overlap.parquet")
    assert (overlap["matrix"] == "inclusion").sum() == 4 * 3
    assert (overlap["matrix"] == "seeds").sum() == 4 * 6


def test_other_architectures_and_many_layers(tmp_path: Path) -> None:
    measures = measures_of(tmp_path, frames(NEOX_PLACES))
    SHARES.draw(measures.shared, tmp_path)
    data = read_table(tmp_path / "shared_places.parquet")
    assert data["layer"].max() == 27
    assert set(data["kind"]) >= {"attention.query_key_value.bias", "mlp.dense_h_to_4h"}


SPARSE = {
    "one seed": frames(
        shared=shared_rows((1,)),
        shared_locations=places_rows(LLAMA_PLACES, (1,)),
        ablation=ablation_rows((1,)),
        grafting=grafting_rows((1,)),
        grafting_checks=check_rows((1,)),
    ),
    "one tuning": {n: t[t["tuning"] == "mix"] for n, t in frames().items()},
    "no rows": {n: t.iloc[:0] for n, t in frames().items()},
    "nobody else": frames(grafting_checks=check_rows().query("other != 1 and check != 'others'")),
    "nothing checked": frames(grafting_checks=check_rows().iloc[:0]),
    "no mask chosen": frames(grafting=grafting_rows(chosen={"stage": None, "mix": None})),
    "one size": frames(grafting=grafting_rows().query("alpha in (0.05, 1)")),
    "nothing recalled": frames(
        grafting=grafting_rows().assign(accuracy=0.0, recovery=np.nan),
        grafting_checks=check_rows().assign(value=0.0),
    ),
    "nothing of others recalled": frames(
        grafting_checks=check_rows().assign(value=lambda c: c["value"].where(c["other"] != 1, 0.0))
    ),
}


@pytest.mark.parametrize("tables", SPARSE.values(), ids=SPARSE)
def test_missing_rows_are_shown_as_missing(
    tables: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("factrecall.report.style.IMAGE_SUFFIXES", (".svg",))
    measures = measures_of(tmp_path, tables)
    draw(measures, tmp_path / "figures")
    said: list[Any] = [*measures.claims(), *measures.caveats(), measures.shared.sizes()]
    for section, m in ((SHARES, measures.shared), (GRAFTS, measures.grafting)):
        tabled = (p for p in section.body if isinstance(p, Table) and p.data is not gatherings_view)
        said += [table.view(m) for table in tabled]
        said += [f.alt(m) for f in section.figures if callable(f.alt)]
    text = str(said)
    assert "nan" not in text
    assert not re.search(r"\binf\b", text)
