"""Ablation in the report: what is judged, said and drawn of made-up tables."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from factrecall.evaluation.exact_match import SUMMARY
from factrecall.experiments.ablation import compute
from factrecall.experiments.ablation.measures import CONTROLS, MAIN, SUFFICIENT, Ablation, pooled
from factrecall.experiments.ablation.report import SECTION
from factrecall.experiments.layer_ablation.report import SECTION as LAYERS
from factrecall.experiments.layer_ablation.report import layers
from factrecall.report.ledger import Judged
from factrecall.report.published import LLAMA
from factrecall.runtime.storage import read_table, write_table
from factrecall.vocabulary import INFLUENCES, SPLITS

pytestmark = pytest.mark.usefixtures("quick_figures")

PEOPLE = 16
TOP = "model.layers.0.v"
PARTS = [f"{kind}:{TOP}" for kind in ("tensor", "shared_in", "shared_without")]
LAYER = [f"{kind}:{layer}" for kind in ("layer", "layer_random") for layer in (-1, 0, 1)]
NAMES = [*MAIN, *CONTROLS, *SUFFICIENT, *PARTS, *LAYER]
COSTS = {
    "shared": 0.3, f"shared_without:{TOP}": 0.25, f"tensor:{TOP}": 0.1, "only_shared": 0.1,
    "only_random": 0.3, "mix_into_stage_random": 0.01, "mix_into_stage": -0.2, "layer:0": 0.1,
}  # fmt: skip
"""What each ablation costs Mix-tuned models of what they recall, as the paper would have it."""

Cost = Callable[[str, str], float]


def as_claimed(tuning: str, ablated: str) -> float:
    """What an ablation costs if every claim holds."""
    whole = tuning == "mix" or ablated not in ("shared", f"shared_without:{TOP}")
    return COSTS.get(ablated, 0.0) if whole else 0.01


def tables(folder: Path, cost: Cost = as_claimed, swap: bool = False) -> dict[str, Path]:
    """Write the tables of three seeds and some people whose losses are drawn around `cost`."""
    rng, rows = np.random.default_rng(3), []
    for tuning in ("mix", "stage"):
        before = 0.6 if tuning == "mix" else 0.5
        for influence in INFLUENCES:
            for ablated in dict.fromkeys(NAMES):
                for split in SPLITS:
                    for seed in range(3):
                        n, lost = 600, cost(tuning, ablated) + rng.normal(0, 0.001, PEOPLE)
                        correct = np.rint(n * (before - lost)).astype(int)
                        rows += [
                            (
                                "m",
                                tuning,
                                seed,
                                ablated,
                                influence,
                                0,
                                split,
                                i,
                                n,
                                c,
                                before - c / n,
                            )
                            for i, c in enumerate(correct)
                        ]
    people = pd.DataFrame(rows, columns=list(compute.PEOPLE))
    if swap:
        people["tuning"] = people["tuning"].map({"mix": "stage", "stage": "mix"})
    by = [*compute.RUN, *compute.LABELS, "split"]
    whole = people.assign(before=people["correct"] + people["drop"] * people["n"])
    whole = whole.groupby(by, sort=False)[["n", "correct", "before"]].sum().reset_index()
    accuracy = whole.assign(
        relation="job",
        accuracy=whole["correct"] / whole["n"],
        drop=(whole["before"] - whole["correct"]) / whole["n"],
    )
    none = accuracy[accuracy["ablated"] == "shared"].assign(ablated="none", influence="", drop=0.0)
    sets = pd.DataFrame(
        [("m", t, 0, "shared", i, 0, tensor, 10, members, members)
         for t in ("mix", "stage") for i in INFLUENCES
         for tensor, members in ((TOP, 8), ("other", 2))],
        columns=list(compute.SETS),
    )  # fmt: skip
    recall = [("m", "majority", 0, split, "job", 100, 6, 0.06) for split in SPLITS]
    found = {
        "ablation": (pd.concat([accuracy, none]), compute.ABLATION),
        "ablation_people": (people, compute.PEOPLE),
        "ablation_sets": (sets, compute.SETS),
        "recall": (pd.DataFrame(recall, columns=list(SUMMARY)), SUMMARY),
    }
    for name, (table, schema) in found.items():
        write_table(folder / f"{name}.parquet", table[list(schema)], schema)
    return {name: folder / f"{name}.parquet" for name in found}


def measured(folder: Path, **keys: Any) -> Ablation:
    return Ablation("m", tables(folder, **keys), {"influence": "absolute"}, LLAMA)


def judged(m: Ablation) -> dict[str, Judged]:
    return {c.id: c for section in (SECTION, LAYERS) for c in section.judged(m)}


def test_all_claims_hold_where_everything_is_as_claimed(tmp_path: Path) -> None:
    claims = judged(measured(tmp_path))
    assert {name: c.verdict for name, c in claims.items()} == dict.fromkeys(claims, "holds")
    first = claims["ablation.mix-loses-more"]
    assert first.value == pytest.approx(0.29, abs=0.002)
    assert first.published == pytest.approx(0.593)
    assert (first.people, first.seeds) == (PEOPLE, 3)


def test_exchanged_models_turn_the_comparisons(tmp_path: Path) -> None:
    claims = judged(measured(tmp_path, swap=True))
    for declared in SECTION.claims:  # type: ignore[union-attr]
        if declared.compares_tunings:
            assert claims[declared.id].verdict == "does not hold"


def test_nothing_holds_where_everything_costs_the_same(tmp_path: Path) -> None:
    claims = judged(measured(tmp_path, cost=lambda tuning, ablated: 0.2))
    # S without its largest tensor costs as much as S.
    assert [c.id for c in claims.values() if c.verdict == "holds"] == ["ablation.not-one-tensor"]


@pytest.mark.parametrize("control", ["random_same_rows", "qa_only", "bio_top"])
def test_one_control_that_costs_as_much_is_named(tmp_path: Path, control: str) -> None:
    def cost(tuning: str, ablated: str) -> float:
        return 0.3 if ablated == control else as_claimed(tuning, ablated)

    found = [c for c in judged(measured(tmp_path, cost=cost)).values() if c.verdict != "holds"]
    assert [c.part for c in found] == [CONTROLS[control]]


@pytest.mark.parametrize("lost", [0.05, -0.05])
def test_random_parameters_may_neither_cost_nor_gain(tmp_path: Path, lost: float) -> None:
    m = measured(tmp_path, cost=lambda t, a: lost if a == "random" else as_claimed(t, a))
    found = judged(m)["ablation.random-costs-nothing"]
    assert found.verdict == "does not hold"
    assert found.part.endswith("lost" if lost > 0 else "gained")


def test_what_the_largest_tensor_costs_is_said(tmp_path: Path) -> None:
    (said,) = SECTION.cautions(measured(tmp_path))
    assert TOP in said
    assert "costs 10.0" in said and "costs 25.0" in said
    none = measured(tmp_path, cost=lambda tuning, ablated: 0.55 if tuning == "stage" else 0.3)
    none.rows("recall")["correct"] = 45
    assert any("little to lose" in said for said in SECTION.cautions(none))


def test_accuracies_are_of_all_answers_of_the_first_draw() -> None:
    rows = [
        ("job", "shared", "absolute", 0, 10, 2, 0.5),
        ("employer", "shared", "absolute", 0, 30, 24, 0.1),
        ("job", "none", "", 0, 10, 7, 0.0),
        ("job", "shared", "signed", 0, 10, 10, 0.0),
        ("job", "random", "absolute", 1, 10, 10, 0.0),
        ("job", "qa_top", "absolute", 0, 10, 10, 0.0),
    ]
    columns = ["relation", "ablated", "influence", "draw", "n", "correct", "drop"]
    table = pd.DataFrame(rows, columns=columns).assign(tuning="mix", seed=0, split="qa_out")
    m = Ablation("m", {}, {"influence": "absolute"}, LLAMA, {"ablation": table})
    found = m.accuracies().set_index("ablated")[["accuracy", "drop", "n"]]
    # Of 40 answers 26 are right, and 5 + 3 are lost.
    assert found.loc["shared"].tolist() == pytest.approx([0.65, 0.2, 40])
    assert found.loc["none"].tolist() == [0.7, 0, 10] and len(found) == 2
    draws = pooled(table[table["influence"] == "absolute"])
    assert draws.set_index("ablated")["accuracy"].to_dict() == {
        "shared": 0.65, "random": 1.0, "qa_top": 1.0
    }  # fmt: skip


@pytest.mark.parametrize(("members", "small"), [(8, True), (9, False)])
def test_controls_smaller_than_s_are_said_and_decide_nothing(
    tmp_path: Path, members: int, small: bool
) -> None:
    m = measured(tmp_path)
    sets = m.rows("ablation_sets")
    fewer = sets[sets["tensor"] == TOP].assign(ablated="bio_only", members=members)
    m._tables["ablation_sets"] = pd.concat([sets, fewer])
    said = "too few parameters are left outside it (in % of |S|: BIO-isolate 80.0)"
    assert any(said in caution for caution in SECTION.cautions(m)) == small
    claims = judged(m)
    claim = claims["ablation.more-than-isolate"]
    assert claim.verdict == ("not measurable" if small else "holds")
    assert (said in claim.reason) == small
    assert claims["ablation.not-just-tensors"].verdict == "holds"


@pytest.mark.parametrize(("lost", "verdict"), [(0.01, "not measurable"), (0.1, "holds")])
def test_no_part_of_s_is_judged_where_s_costs_nothing(
    tmp_path: Path, lost: float, verdict: str
) -> None:
    found = judged(measured(tmp_path, cost=lambda tuning, ablated: lost))["ablation.not-one-tensor"]
    assert found.verdict == verdict
    assert ("may cost Mix-tuned models next to nothing" in found.reason) == (lost < 0.02)


def test_figures_hold_what_is_judged(tmp_path: Path) -> None:
    m = measured(tmp_path)
    SECTION.draw(m, tmp_path)
    LAYERS.draw(m, tmp_path)
    data = read_table(tmp_path / "ablation_controls.parquet")
    assert set(data["ablated"]) == set(CONTROLS)
    row = data[(data["ablated"] == "shared") & (data["tuning"] == "mix")]
    assert row["drop"].mean() == pytest.approx(0.3, abs=0.001)
    assert set(read_table(tmp_path / "ablation.parquet")["ablated"]) == set(MAIN)
    assert set(read_table(tmp_path / "ablation_sufficient.parquet")["ablated"]) == set(SUFFICIENT)
    assert sorted(set(layers(m)["layer"])) == [-1, 0, 1]
    view = SECTION.tables[0].view(m)
    assert view.groups[0][1][0][0] == TOP
