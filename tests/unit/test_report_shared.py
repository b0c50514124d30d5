"""Shared parameters in the report: what is condensed, judged, said and drawn of made-up tables."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pandas as pd
import pytest

from factrecall.experiments.ablation.compute import ABLATED, ABLATION, CONTROLS, INTERVALS, NONE
from factrecall.experiments.grafting.figures import RECOVERY_DATA, draw_grafting, draw_grafting_size
from factrecall.experiments.grafting.grafter import GRAFTING, MOVEMENT, WHOLE
from factrecall.experiments.grafting.mask_checks import CHECKS
from factrecall.experiments.grafting.overlap_figure import OVERLAP_DATA, draw_grafting_overlap
from factrecall.experiments.shared_parameters.caveats import (
    grafting_cautions,
    shared_cautions,
)
from factrecall.experiments.shared_parameters.claims import judge_claims
from factrecall.experiments.shared_parameters.compute import SETS, SHARED, SHARED_LOCATIONS
from factrecall.experiments.shared_parameters.figures import (
    PLACES_DATA,
    draw_shared,
    draw_shared_places,
)
from factrecall.experiments.shared_parameters.report_tables import (
    checks_table,
    grafting_table,
    shared_table,
)
from factrecall.report.measures import Measures, TableFiles, by_seed_difference, read_measures
from factrecall.report.published import (
    ABLATIONS,
    GRAFTS,
    LLAMA,
    PYTHIA,
    published,
    published_ablation,
    published_graft,
)
from factrecall.report.sections import PARTIALS, parameters
from factrecall.report.style import DOTS_PER_INCH, WIDTH
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
        model="m", size=(table["ratio"] * table["k"]).astype(int), chance=0.03, null=0.3
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


def write_parameter_tables(folder: Path, models: tuple[str, ...] = ("m",)) -> TableFiles:
    """Write the synthetic tables of some models."""
    files = TableFiles.of(folder)
    for name, table in frames().items():
        every = pd.concat(table.assign(model=model) for model in models)
        write_table(getattr(files, name), every, SCHEMAS[name])
    return files


def measures_of(folder: Path, tables: dict[str, Any]) -> Measures:
    """Write tables and read them as the report does."""
    files = vars(TableFiles.of(folder))
    for name, table in tables.items():
        write_table(files[name], table, SCHEMAS[name])
    return read_measures(files, "m", k=0.03, influence="absolute", recovery=0.92)


@pytest.fixture
def measures(tmp_path: Path) -> Measures:
    """Return measures that are as the paper says, but for what masks do for other people."""
    return measures_of(tmp_path, frames())


def about(claims: Sequence[Any], *words: str) -> list[str]:
    """Return the verdicts on the claims with all these words."""
    return [c.verdict for c in claims if all(w in c.text for w in words)]


# --- measures ---------------------------------------------------------------------------------


def test_what_the_configuration_says_is_found_in_the_tables(measures: Measures) -> None:
    assert (measures.parameters, measures.k) == (1000, K)
    assert set(measures.at_k()["k"]) == {K}
    assert measures.size_of_s()["share"].tolist() == pytest.approx([0.1] * 6)
    assert measures.shared["tuning"].drop_duplicates().tolist() == ["stage", "mix"]


def test_the_mask_looked_at_is_the_chosen_one_or_the_best(tmp_path: Path) -> None:
    masks = measures_of(tmp_path, frames()).masks()
    assert masks.groupby("tuning")["alpha"].unique().map(list).to_dict() == {
        "stage": [0.2],
        "mix": [0.05],
    }
    assert (masks["accuracy"] > masks["accuracy_without"]).all()
    none = grafting_rows(chosen={"stage": None, "mix": 0.05})
    unchosen = measures_of(tmp_path, frames(grafting=none)).masks()
    stage = unchosen[unchosen["tuning"] == "stage"]
    # Of equally good ones the smallest.
    assert not stage["chosen"].any()
    assert set(stage["alpha"]) == {0.01}


def test_what_fine_tuning_added_to_other_peoples_recall(measures: Measures) -> None:
    others = measures.others_of_masks()
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
    claims = judge_claims(measures, LLAMA)
    failed = [c for c in claims if c.word != "holds"]
    assert [c.own for c in failed] == [True, True]
    assert about(claims, "people it was not fitted to") == ["does not hold"] * 2
    first = claims[0]
    assert "Mix-tuned 71.0\u00a0%, Stage-tuned 51.0\u00a0%" in first.evidence
    assert first.paper == "1.2 times as large"


def test_claims_the_other_way_round_do_not_hold(tmp_path: Path) -> None:
    tables = {
        name: table.assign(tuning=table["tuning"].map({"mix": "stage", "stage": "mix"}))
        for name, table in frames().items()
    }
    claims = judge_claims(measures_of(tmp_path, tables), PYTHIA)
    assert about(claims, "|S|/k is larger at shared.k") == ["does not hold"]
    assert about(claims, "at every k") == ["does not hold"]
    assert about(claims, "fewer grafted") == ["does not hold"] * 2
    assert about(claims, "chosen mask is in S") == ["does not hold"] * 2
    assert about(claims, "S adds more") == ["does not hold"] * 2


def test_behind_at_one_k_in_every_seed_is_not_at_every_k(tmp_path: Path) -> None:
    rows = shared_rows()
    behind = (rows["k"] == 10) & (rows["tuning"] == "mix")
    rows.loc[behind, "ratio"] = 0.1
    claims = judge_claims(measures_of(tmp_path, frames(shared=rows)), LLAMA)
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
        claims = judge_claims(measures_of(tmp_path, tables), LLAMA)
        assert about(claims, "fewer grafted") == [expected] * 2
        if None in chosen.values():
            assert about(claims, "chosen mask is in S") == ["inconclusive"] * 2


def test_masks_that_find_recall_are_said_to(tmp_path: Path) -> None:
    tables = frames(grafting_checks=check_rows(others=0.49))
    found = measures_of(tmp_path, tables)
    assert about(judge_claims(found, LLAMA), "not fitted to") == ["holds"] * 2
    assert grafting_cautions(found) == []


def test_masks_are_held_against_what_they_recover_themselves(tmp_path: Path) -> None:
    for own, others, expected in (
        (0.9, 0.45, "holds"),  # 90 % of either: no worse on people not fitted to
        (0.9, 0.38, "does not hold"),
        (3.0, 0.47, "holds"),  # more than all cannot be asked for
        (0.4, 0.2, "inconclusive"),  # of masks that recover next to nothing
    ):
        grafts = grafting_rows().assign(accuracy=0.5 * own, recovery=own)
        tables = frames(grafting=grafts, grafting_checks=check_rows(others=others))
        claims = judge_claims(measures_of(tmp_path, tables), LLAMA)
        assert about(claims, "people it was not fitted to") == [expected] * 2


def test_a_model_that_recalls_nothing_needs_no_parameters_nor_all(tmp_path: Path) -> None:
    rows, checks = grafting_rows(chosen={"stage": None, "mix": 0.05}), check_rows()
    dead = (rows["tuning"] == "stage") & (rows["seed"] == 0)
    rows.loc[dead, ["accuracy", "recovery"]] = (0.0, np.nan)
    silent = (checks["tuning"] == "stage") & (checks["check"] == "fine_tuned")
    checks.loc[silent & (checks["seed"] == 0), "value"] = 0.0
    measures = measures_of(tmp_path, frames(grafting=rows, grafting_checks=checks))
    claims = [c for c in judge_claims(measures, LLAMA) if "fewer grafted" in c.text]
    # Two seeds are left, too few without an interval.
    assert [c.word for c in claims] == ["inconclusive"] * 2
    stage = "Stage-tuned \u2013, none enough, none enough (to recall 33.3\u00a0%)"
    assert all(stage in c.evidence for c in claims)


def test_what_there_is_to_recall_is_measured_not_inferred(tmp_path: Path) -> None:
    rows = grafting_rows().assign(accuracy=0.0, recovery=0.0)
    measures = measures_of(tmp_path, frames(grafting=rows))
    assert cells(grafting_table(measures, LLAMA), 0, 0)[3] == "50.0 ± 0.0"
    claims = judge_claims(measures, LLAMA)
    assert all("to recall 50.0" in c.evidence for c in claims if "fewer grafted" in c.text)


def test_s_may_be_more_of_a_mask_only_because_it_is_larger(tmp_path: Path) -> None:
    rows = grafting_rows()
    rows.loc[(rows["tuning"] == "mix") & (rows["method"] == WHOLE), "shared_fraction"] = 0.4
    claims = judge_claims(measures_of(tmp_path, frames(grafting=rows)), LLAMA)
    assert about(claims, "chosen mask is in S") == ["holds"] * 2
    assert about(claims, "even for the size of S") == ["does not hold"] * 2
    said = next(c.evidence for c in claims if "even for the size" in c.text)
    assert "Mix-tuned 0.50 times, Stage-tuned 1.00 times; difference by seed \u22120.50" in said
    assert said.endswith("both have: Mix-tuned 0.50 times, Stage-tuned 1.00 times.")


# --- cautions ---------------------------------------------------------------------------------


def test_learning_is_told_with_its_numbers(measures: Measures) -> None:
    said = " ".join(grafting_cautions(measures))
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
    only = " ".join(grafting_cautions(measures_of(tmp_path, frames(grafting=rows))))
    assert "not of others (Mix-tuned 12.0\u00a0%; with" in only
    assert "fitted to (Mix-tuned 145.0\u00a0%)" in only
    some = (checks["check"] == "others") & (checks["tuning"] == "stage")
    checks.loc[some, "value"] = 0.2
    said = " ".join(grafting_cautions(measures_of(tmp_path, frames(grafting_checks=checks))))
    assert "not of others (Mix-tuned 12.0\u00a0%; with" in said
    assert "far less of others\u2019 (Stage-tuned 40.0\u00a0%; with" in said


def test_what_is_right_without_fitting_is_not_learnt(tmp_path: Path) -> None:
    checks = check_rows()
    checks.loc[checks["check"].isin(["gained", "shuffled"]), "value"] = 0.14
    assert "has wrong" not in " ".join(
        grafting_cautions(measures_of(tmp_path, frames(grafting_checks=checks)))
    )
    rows = grafting_rows()
    rows["accuracy"], rows["recovery"] = 0.515, 1.03
    near = measures_of(tmp_path, frames(grafting=rows, grafting_checks=checks))
    assert "More than 100" not in " ".join(grafting_cautions(near))
    assert "not of others" in " ".join(grafting_cautions(near))


def test_cautions_need_their_data(tmp_path: Path, measures: Measures) -> None:
    assert len(shared_cautions(measures)) == 1  # 30 % permuted, of 51 % in two-stage training
    assert "Mix-tuned" not in shared_cautions(measures)[0]
    calm = measures_of(tmp_path, frames(shared=shared_rows().assign(null=0.1)))
    assert shared_cautions(calm) == []


def test_the_end_of_the_grid_is_told(tmp_path: Path) -> None:
    tables = frames(grafting=grafting_rows(chosen={"stage": 0.01, "mix": 0.05}))
    said = " ".join(grafting_cautions(measures_of(tmp_path, tables)))
    assert "α = 1\u00a0%" in said
    assert "(Stage-tuned, QA in; Stage-tuned, QA out)" in said


# --- tables -----------------------------------------------------------------------------------


def cells(table: Any, group: int, row: int) -> list[str]:
    found: list[str] = table.groups[group][1][row]
    return found


def test_tables_hold_our_numbers_and_theirs(measures: Measures) -> None:
    shared = shared_table(measures, LLAMA)
    assert cells(shared, 0, 2) == [
        "S: either", "51.0 ± 1.0", "30.0", "71.0 ± 1.0", "30.0", "3.0", "1.39",
    ]  # fmt: skip
    assert "1.2 for Llama" in shared.caption
    mix = cells(grafting_table(measures, PYTHIA), 1, 4)
    assert mix[1:5] == ["5.00 ± 0.00", "0.095", "72.5 ± 0.0 (+40.0)", "48.0 (+38.1)"]
    checks = checks_table(measures)
    assert len(checks.groups) == 2
    assert cells(checks, 0, 5)[1:3] == ["35.0", "35.0"]  # of the first seed only
    assert cells(checks, 0, 6)[1:3] == cells(checks, 0, 7)[1:3] == ["5.0 ± 0.0"] * 2
    for table in (shared, checks):
        assert all(len(r) == len(table.head) for _, rows in table.groups for r in rows)


def test_a_split_without_a_chosen_mask_says_so(tmp_path: Path) -> None:
    tables = frames(grafting=grafting_rows(chosen={"stage": None, "mix": 0.05}))
    row = cells(grafting_table(measures_of(tmp_path, tables), LLAMA), 0, 1)
    assert "none enough" in row[0]
    assert row[1] == row[3] == "\u2013"


def test_published_numbers_agree_among_themselves() -> None:
    changes = {(LLAMA, "mix"): (-85.9, -78.6, -66.0), (PYTHIA, "stage"): (-15.6, -17.8, -1.8)}
    for (model, tuning), printed in changes.items():
        for split, change in zip(SPLITS, printed, strict=True):
            after, before = (published_ablation(model, tuning, a, split) for a in ("shared", NONE))
            assert after is not None and before is not None
            assert after - before == pytest.approx(change, abs=0.06)
    for row in GRAFTS:
        assert 100 * row.accuracy / row.whole == pytest.approx(row.recovery, abs=0.25)
        assert row.whole == pytest.approx(published(*row[:2], f"qa_{row.split}"), abs=0.7)
    assert len({row[:3] for row in ABLATIONS}) == len(ABLATIONS) == 8
    assert published_graft(LLAMA, "bio", "in") is published_ablation("?", "mix", "x", "bio") is None


# --- figures ----------------------------------------------------------------------------------

FIGURES = {
    "shared": draw_shared,
    "shared_places": draw_shared_places,
    "grafting": draw_grafting,
    "grafting_size": draw_grafting_size,
    "grafting_overlap": draw_grafting_overlap,
}


def draw(measures: Measures, folder: Path) -> dict[str, bytes]:
    for name, function in FIGURES.items():
        function(measures, folder / name)
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_figures_are_written_twice_the_same_and_of_readable_size(
    measures: Measures, tmp_path: Path
) -> None:
    one, two = (draw(measures, tmp_path / name) for name in ("one", "two"))
    assert one == two
    assert len(one) == 3 * 5
    for path in (tmp_path / "one").glob("*.png"):
        height, width, _ = matplotlib.image.imread(path).shape
        assert width == round(WIDTH * DOTS_PER_INCH)
        assert 0.3 < height / width < 1.65


def test_data_of_figures(measures: Measures, tmp_path: Path) -> None:
    draw(measures, tmp_path / "figures")
    lines = read_table(tmp_path / "figures/grafting.parquet", RECOVERY_DATA)
    assert set(lines["line"]) == {"with", "without", "movement", "others"}
    assert lines[lines["line"] == "others"]["recovery"].tolist() == pytest.approx([0.12] * 36)
    overlap = read_table(tmp_path / "figures/grafting_overlap.parquet", OVERLAP_DATA)
    assert (overlap["matrix"] == "inclusion").sum() == 4 * 3
    assert (overlap["matrix"] == "seeds").sum() == 4 * 6


def test_other_architectures_and_many_layers(tmp_path: Path) -> None:
    measures = measures_of(tmp_path, frames(NEOX_PLACES))
    draw(measures, tmp_path / "figures")
    data = read_table(tmp_path / "figures/shared_places.parquet", PLACES_DATA)
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
def test_missing_rows_are_shown_as_missing(tables: dict[str, Any], tmp_path: Path) -> None:
    measures = measures_of(tmp_path, tables)
    draw(measures, tmp_path / "figures")
    study = {"grafting": {"optimiser": {"method": METHOD}}}
    shown = parameters(study, measures, (), LLAMA)
    assert len(shown.claims) == 2
    text = str(dataclasses.asdict(shown))
    assert "nan" not in text
    assert not re.search(r"\binf\b", text)


def test_tables_that_are_not_given_count_as_empty() -> None:
    empty = read_measures({}, "m", k=0.03, influence="absolute", recovery=0.92)
    assert {c.word for c in judge_claims(empty, LLAMA)} == {"inconclusive"}


def test_parts_of_the_page_are_beside_the_module_that_names_them() -> None:
    import factrecall.report.sections as module

    folder = Path(str(module.__file__)).parent
    parts = sorted(path.name for path in folder.glob("*.html.j2"))
    assert sorted([*PARTIALS, "page.html.j2"]) == parts
