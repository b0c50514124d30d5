"""Shared parameters in the report: what is claimed, said and drawn of made-up tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from factrecall.experiments.shared_parameters.compute import SETS, SHARED, SHARED_LOCATIONS
from factrecall.experiments.shared_parameters.report import SECTION, SMALL, Shared, larger
from factrecall.report.ledger import Judged
from factrecall.report.published import LLAMA, PYTHIA
from factrecall.runtime.storage import read_table, write_table
from factrecall.vocabulary import INFLUENCES
from tests.conftest import draw_readable

SEEDS = (0, 1, 2)
N, K = 5_000_000, 150_000
KS = (10, 20, 100, 1000, 10_000, 100_000, K, 500_000)
LLAMA_PLACES = (
    ("model.embed_tokens.weight", -1, "model.embed_tokens", 3_000_000),
    ("model.layers.0.self_attn.q_proj.weight", 0, "self_attn.q_proj", 1_000_000),
    ("model.layers.1.self_attn.q_proj.weight", 1, "self_attn.q_proj", 1_000_000),
)
NEOX_PLACES = tuple(
    (f"gpt_neox.layers.{layer}.{kind}", layer, kind.removesuffix(".weight"), 10)
    for layer in range(28)
    for kind in ("attention.query_key_value.bias", "mlp.dense_h_to_4h.weight")
)
RATIOS = {"stage": 0.5, "mix": 0.7}
COMPARE = {"mix-shares-more", "at-every-k", "every-reading", "beyond-tensors"}


def shared_rows(seeds: tuple[int, ...] = SEEDS, ratios: dict[str, float] = RATIOS) -> pd.DataFrame:
    """Make curves in which tunings differ by as much at every k, and in every reading."""
    rows = [
        ("m", tuning, seed, influence, name, k, int(ratio * k), ratio, 0.03, 0.2)
        for tuning, level in ratios.items()
        for seed in seeds
        for influence in INFLUENCES
        for name in SETS
        for k in KS
        for ratio in [level + 0.001 * seed * (1 if tuning == "mix" else -1)]
    ]
    table = pd.DataFrame(rows, columns=[c for c in SHARED if c != "selected"])
    return table.assign(selected=(table["k"] == K) & (table["influence"] == "absolute"))


def places_rows(
    places: tuple[Any, ...] = LLAMA_PLACES, part: float = 0.01, seeds: tuple[int, ...] = SEEDS
) -> pd.DataFrame:
    """Make the same part of every tensor shared."""
    rows = [
        ("m", tuning, seed, name, *place, round(place[3] * part * (1 + 0.01 * seed)))
        for tuning in RATIOS
        for seed in seeds
        for name in SETS
        for place in places
    ]
    return pd.DataFrame(rows, columns=list(SHARED_LOCATIONS))


def measures(
    rows: pd.DataFrame | None = None, places: pd.DataFrame | None = None, paper: str | None = LLAMA
) -> Shared:
    made = Shared("m", {}, {"influence": "absolute"}, paper)
    made._tables["shared"] = shared_rows() if rows is None else rows
    made._tables["shared_locations"] = places_rows() if places is None else places
    return made


def judged(made: Shared) -> dict[str, Judged]:
    return {claim.id.removeprefix("shared."): claim for claim in SECTION.judged(made)}


def exchanged(labels: dict[str, str]) -> Shared:
    """Give the models other labels."""
    tables = [
        pd.concat([t[t["tuning"] == old].assign(tuning=new) for new, old in labels.items()])
        for t in (shared_rows(), places_rows())
    ]
    return measures(*tables)


def test_all_claims_hold_of_a_study_like_the_papers() -> None:
    found = judged(measures())
    assert {claim.verdict for claim in found.values()} == {"holds"}
    assert [i for i, c in found.items() if c.is_extension] == ["every-reading", "beyond-tensors"]
    more = found["mix-shares-more"]
    assert more.value == pytest.approx(0.2 / 0.5, abs=0.01)
    assert (more.unit, more.seeds, more.people) == ("%", 3, 0)
    assert more.published == pytest.approx(0.2)
    pythia = judged(measures(paper=PYTHIA))["mix-shares-more"]
    assert pythia.published == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("name", "rows", "places"),
    [
        ("mix-shares-more", {"ratios": {"stage": 0.7, "mix": 0.7}}, {}),
        ("every-reading", {"ratios": {"stage": 0.8, "mix": 0.7}}, {}),
        ("small-k", {"ratios": {"stage": 0.3, "mix": 0.5}}, {}),
        ("small-part", {}, {"part": 0.025}),
    ],
)
def test_claims_fail_of_the_opposite(name: str, rows: Any, places: Any) -> None:
    found = judged(measures(shared_rows(**rows), places_rows(**places)))
    assert found[name].verdict == "does not hold"


def test_one_k_with_fewer_is_not_every_k() -> None:
    rows = shared_rows()
    rows.loc[(rows["k"] == 1000) & (rows["tuning"] == "mix"), "ratio"] = 0.45
    found = judged(measures(rows))["at-every-k"]
    assert (found.verdict, found.part) == ("does not hold", "k = 1,000")


def test_what_tensors_account_for_is_not_above_them() -> None:
    rows = shared_rows()
    rows.loc[rows["tuning"] == "mix", "null"] = 0.4
    found = judged(measures(rows))
    assert found["beyond-tensors"].verdict == "does not hold"
    assert found["mix-shares-more"].verdict == "holds"


def test_small_k_are_of_the_papers_share_of_parameters() -> None:
    assert 100 < SMALL * N < 1000
    rows = shared_rows()
    rows.loc[rows["k"] > 100, "ratio"] = 0.1  # larger ones do not count
    assert judged(measures(rows))["small-k"].verdict == "holds"
    few = judged(measures(places=places_rows(NEOX_PLACES)))["small-k"]
    assert few.verdict == "not measurable" and "k < 0 here" in few.reason


def test_a_small_k_cannot_make_s_large() -> None:
    rows = shared_rows()
    rows["selected"] = (rows["k"] == 100_000) & (rows["influence"] == "absolute")
    found = judged(measures(rows))["small-part"]
    assert found.verdict == "not measurable" and "more than k, 2.0 %" in found.reason


def test_exchanging_labels_turns_comparisons_and_one_model_beats_itself_in_none() -> None:
    before, after = judged(measures()), judged(exchanged({"stage": "mix", "mix": "stage"}))
    same = judged(exchanged({"stage": "mix", "mix": "mix"}))
    compare = {c.id for c in SECTION.claims if c.compares_tunings}  # type: ignore[union-attr]
    assert compare == {f"shared.{name}" for name in COMPARE}
    for name in COMPARE:
        assert after[name].value == pytest.approx(-before[name].value)
        assert after[name].verdict == "does not hold"
        assert same[name].value == 0 and same[name].verdict != "holds"


def test_larger_is_relative_to_the_smaller_of_the_same_seed() -> None:
    values = {("mix", 0): 0.6, ("stage", 0): 0.5, ("mix", 1): 0.4, ("stage", 1): 0.5}
    rows = pd.DataFrame([(*k, v) for k, v in values.items()], columns=["tuning", "seed", "ratio"])
    assert larger(rows)["value"].tolist() == pytest.approx([0.2, -0.25])
    assert larger(rows.iloc[:3])["seed"].tolist() == [0]
    assert larger(rows.iloc[:0]).empty and larger(rows.assign(ratio=0.0)).empty


def test_each_run_is_shown_at_its_own_k() -> None:
    rows = shared_rows((0, 1000))
    # k is a share of all parameters, and another replicate has another vocabulary.
    rows.loc[(rows["seed"] == 1000) & (rows["k"] == K), "k"] = K - 7
    found = measures(rows, places_rows(seeds=(0, 1000)))
    shown = found.at_k()[["seed", "k"]].drop_duplicates()
    assert shown.to_numpy().tolist() == [[0, K], [1000, K - 7]]
    assert judged(found)["every-reading"].method == "replicates (t)"


def test_seeds_decide_and_few_do_not() -> None:
    one = judged(measures(shared_rows((1,)), places_rows(seeds=(1,))))
    assert {claim.verdict for claim in one.values()} == {"inconclusive"}


def test_nothing_measured_is_no_verdict() -> None:
    rows, places = shared_rows(), places_rows()
    found = judged(measures(rows.iloc[:0], places.iloc[:0]))
    assert {claim.verdict for claim in found.values()} == {"not measurable"}
    assert SECTION.cautions(measures(rows.iloc[:0], places.iloc[:0])) == []


def test_a_run_whose_overlap_is_spread_needs_no_caution() -> None:
    even = places_rows(tuple((f"t{i}", i, "k", 100_000) for i in range(50)))
    assert SECTION.cautions(measures(places=even)) == []


def test_tensors_that_account_for_most_are_told() -> None:
    even = places_rows(tuple((f"t{i}", i, "k", 100_000) for i in range(50)))
    (said,) = SECTION.cautions(measures(shared_rows().assign(null=0.3), even))
    assert said.startswith("Stage-tuned: of the 49.9 %") and "30.0 come of" in said


def test_a_tensor_that_holds_much_of_s_is_told_with_its_numbers() -> None:
    places = places_rows()
    name = "model.layers.0.self_attn.q_proj.weight"
    places.loc[(places["tensor"] == name) & (places["tuning"] == "mix"), "shared"] = 940_000
    said = SECTION.cautions(measures(places=places))
    (mix,) = [text for text in said if text.startswith("Mix-tuned")]
    # 940,000 of 940,000 and a hundredth of each of the others.
    assert name in mix and "holds 95.9 % of S" in mix and "94.0 % of its parameters" in mix


def test_the_size_of_the_model_and_of_s_are_found_in_the_tables() -> None:
    made = measures()
    assert (made.parameters, made.k, set(made.at_k()["k"])) == (N, K, {K})
    assert made.size_of_s().query("seed == 0")["share"].tolist() == pytest.approx([0.01] * 2)
    assert list(made.decades(1)) == ["k = 10", "k = 100", "k = 1,000", "k = 10,000", "k = 100,000"]
    table = SECTION.tables[0].view(made)
    assert table.groups[0][1][2] == [
        "S: either", "49.9 ± 0.1", "20.0 ± 0.0", "70.1 ± 0.1", "20.0 ± 0.0", "3.0 ± 0.0",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "places"),
    [
        (shared_rows(), places_rows()),
        (shared_rows((1,)), places_rows(NEOX_PLACES, 0.1, (1,))),
        (shared_rows().query("tuning == 'mix'"), places_rows().query("tuning == 'mix'")),
        (shared_rows().iloc[:0], places_rows().iloc[:0]),
    ],
    ids=["whole", "neox, one seed", "one tuning", "nothing"],
)
def test_figures_are_drawn_of_what_there_is(
    rows: pd.DataFrame, places: pd.DataFrame, tmp_path: Path
) -> None:
    write_table(tmp_path / "shared.parquet", rows, SHARED)
    write_table(tmp_path / "shared_locations.parquet", places, SHARED_LOCATIONS)
    files = {name: tmp_path / f"{name}.parquet" for name in SECTION.reads}
    made = Shared("m", files, {"influence": "absolute"})
    draw_readable(SECTION, made, tmp_path / "figures", empty=True)
    drawn = read_table(tmp_path / "figures/shared.parquet")
    assert len(drawn) == len(rows) / len(SETS) and not np.isnan(drawn["ratio"]).any()
