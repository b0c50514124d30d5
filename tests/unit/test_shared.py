"""Shared parameters by entry rank equal those by intersection, for every k."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from factrecall.experiments.shared_parameters import entry_ranks
from factrecall.experiments.shared_parameters.compute import (
    LOCATIONS,
    OVERLAP_CURVE,
    PAIRS,
    Rankings,
    locations,
    overlap_curves,
    read_rankings,
    shared_sets,
)
from factrecall.experiments.shared_parameters.entry_ranks import (
    by_index,
    entries,
    log_grid,
    never,
    sizes,
)
from factrecall.experiments.shared_parameters.stages import select_shared
from factrecall.parameters.amounts import absolute_count
from factrecall.parameters.sets import read_sets, write_sets
from factrecall.parameters.space import ParameterSpace
from factrecall.runtime.errors import DamagedFile, FactRecallError
from factrecall.runtime.job import Job
from factrecall.runtime.safetensors_writer import write_tensors
from factrecall.runtime.seeds import generator
from factrecall.runtime.storage import read_table
from factrecall.vocabulary import INFLUENCES
from tests.benchmarks.scale import bench_scale
from tests.unit.test_storage import flip

SPACE = ParameterSpace(
    ("model.layers.0.a.weight", "model.layers.1.a.weight", "head.weight"), ((4, 5), (10,), (3, 5))
)
TASKS = ("BIO_in", "BIO_out", "QA_in")


def rankings(seed: int, keep: int, dtype: type = np.uint32) -> Rankings:
    """Return rankings of different lengths, as where some parameters have no influence."""
    rng = generator(seed, "rankings")
    index = {
        (task, influence): rng.permutation(SPACE.size)[: rng.integers(1, keep + 1)].astype(dtype)
        for task in TASKS
        for influence in INFLUENCES
    }
    return Rankings(SPACE, keep, index)


@given(st.integers(0, 10_000), st.sampled_from([np.uint32, np.uint64]))
def test_entry_ranks_give_every_intersection(seed: int, dtype: type) -> None:
    found = rankings(seed, SPACE.size, dtype)
    tops = {task: found.index[task, "absolute"] for task in TASKS}
    asked = by_index(tops["QA_in"])
    found_ = {n: entries(asked, by_index(tops[bio])) for n, (bio, _) in PAIRS.items()}
    found_["S"] = np.minimum(found_["S_I"], found_["S_II"])
    assert all(((e <= SPACE.size) | (e == never(e))).all() for e in found_.values())
    ks = np.arange(1, SPACE.size + 1)
    for k in ks:
        naive = {n: set(tops[bio][:k]) & set(tops[qa][:k]) for n, (bio, qa) in PAIRS.items()}
        naive["S"] = naive["S_I"] | naive["S_II"]
        sets = shared_sets(found, "absolute", int(k))
        for name, members in naive.items():
            assert set(asked.at[found_[name] <= k].tolist()) == members
            assert set(sets[name].index.tolist()) == members
            assert sizes(found_[name], ks)[k - 1] == len(members)


@given(st.integers(0, 10_000))
def test_curves_and_places_count_the_sets(seed: int) -> None:
    found = rankings(seed, 30)
    table = overlap_curves(found, 7)
    assert set(table["k"]) == {7, 10, 20, 30}
    for (influence, name, k), rows in table.groupby(["influence", "set", "k"]):
        members = shared_sets(found, str(influence), int(k))[str(name)]
        (row,) = rows.itertuples()
        assert row.size == len(members) and row.ratio == row.size / k
    sets = shared_sets(found, "signed", 20)
    where = locations(sets)
    for name, members in sets.items():
        rows = where[where["set"] == name]
        assert rows["shared"].tolist() == list(members.counts().values())
        assert rows["parameters"].tolist() == list(SPACE.sizes)
    assert where["layer"].tolist() == [0, 1, -1] * 3
    assert where["kind"].tolist() == ["a", "a", "head"] * 3


def test_chance_and_null_are_what_permuting_the_questions_gives() -> None:
    found = rankings(3, 30)
    k = 20
    rows = overlap_curves(found, k).query("influence == 'absolute' and k == @k").set_index("set")
    tops = {task: found.index[task, "absolute"][:k].astype(np.int64) for task in TASKS}
    one, two = set(tops["BIO_in"].tolist()), set(tops["BIO_out"].tolist())
    assert one & two and len(one | two) > k  # neither the same nor independent
    statements = {"S_I": one, "S_II": two, "S": one | two}
    ends = np.cumsum(SPACE.sizes)
    counts = np.bincount(np.searchsorted(ends, tops["QA_in"], side="right"), minlength=3)
    rng, draws = generator(0, "permute"), 4000
    totals = {(name, kind): 0.0 for name in statements for kind in ("chance", "null")}
    for _ in range(draws):
        anywhere = set(rng.permutation(SPACE.size)[: len(tops["QA_in"])].tolist())
        inside: set[int] = set()
        for end, size, count in zip(ends, SPACE.sizes, counts, strict=True):
            inside |= set((end - size + rng.permutation(size)[:count]).tolist())
        for name, members in statements.items():
            for kind, asked in (("chance", anywhere), ("null", inside)):
                totals[name, kind] += len(members & asked) / k / draws
    for (name, kind), mean in totals.items():
        assert rows.loc[name, kind] == pytest.approx(mean, abs=0.01)  # 4 standard errors


def test_statements_ranked_alike_are_not_counted_twice() -> None:
    found = rankings(3, 30)
    index = dict(found.index) | {("BIO_out", i): found.index["BIO_in", i] for i in INFLUENCES}
    rows = overlap_curves(Rankings(SPACE, 30, index), 20).set_index("set")
    for column in ("ratio", "null", "chance"):
        assert rows.loc["S", column].tolist() == rows.loc["S_I", column].tolist()


def test_a_log_grid_has_its_ends_and_k() -> None:
    assert log_grid(500, 30).tolist() == [10, 20, 30, 50, 100, 200, 500]
    assert log_grid(7, 3).tolist() == [3, 7]


@pytest.mark.parametrize(
    ("amount", "count"), [(0.1, 10), (0.004, 1), (7, 7), (700, 100), (1.0, 100)]
)
def test_k_is_a_count_or_a_fraction(amount: float, count: int) -> None:
    assert absolute_count(amount, 100) == count


def write_traces(folder: Path, found: Rankings) -> list[Path]:
    """Write rankings as two traces, as two-stage training leaves them."""
    paths = []
    for name, tasks in (("bio", TASKS[:2]), ("stage", TASKS[2:])):
        paths.append(folder / f"{name}.safetensors")
        tensors = {
            f"{task}/{influence}/index": torch.from_numpy(found.index[task, influence])
            for task in tasks
            for influence in INFLUENCES
        }
        counts = dict.fromkeys(tasks, 3)
        metadata = {**found.space.metadata(), "keep": found.keep, "counts": counts}
        write_tensors(paths[-1], tensors, metadata)
    return paths


def test_the_stage_writes_sets_and_tables(tmp_path: Path) -> None:
    found = rankings(5, 30)
    out, curve, where = (tmp_path / n for n in ("s.safetensors", "c.parquet", "p.parquet"))
    traces = write_traces(tmp_path, found)
    files = {"traces": traces, "out": out, "overlap_curve": curve, "locations": where}
    select_shared(Job(), k=20, influence="magnitude", **files)
    expected = shared_sets(found, "magnitude", 20)
    assert read_sets(out, SPACE).items() == expected.items()
    pd.testing.assert_frame_equal(
        read_table(curve, OVERLAP_CURVE)[["k", "size"]], overlap_curves(found, 20)[["k", "size"]]
    )
    assert read_table(where, LOCATIONS)["shared"].sum() == sum(map(len, expected.values()))


def test_what_the_traces_lack_is_told(tmp_path: Path) -> None:
    traces = write_traces(tmp_path, rankings(5, 30))
    out = {name: tmp_path / name for name in ("out", "overlap_curve", "locations")}
    with pytest.raises(FactRecallError, match=r"trace\.top_fraction"):
        select_shared(Job(), k=31, influence="signed", traces=traces, **out)
    with pytest.raises(FactRecallError, match="no gradient of QA_in"):
        read_rankings(traces[:1])
    with pytest.raises(FactRecallError, match="another trace holds BIO_in"):
        read_rankings([traces[0], *traces])
    sets = shared_sets(rankings(5, 30), "signed", 20)
    write_sets(tmp_path / "sets.safetensors", sets)
    with pytest.raises(FactRecallError, match=r"of another kind.*'keep'"):
        read_rankings([tmp_path / "sets.safetensors"])
    with pytest.raises(FactRecallError, match=r"of another kind.*'inverted'"):
        read_sets(traces[0])
    other = Rankings(ParameterSpace(("x",), ((45,),)), 30, rankings(5, 30).index)
    (tmp_path / "other").mkdir()
    mixed = [traces[0], write_traces(tmp_path / "other", other)[1]]
    with pytest.raises(FactRecallError, match="different parameter spaces"):
        read_rankings(mixed)


def test_rankings_are_read_when_they_are_asked_for(tmp_path: Path) -> None:
    found = rankings(5, 30)
    traces = write_traces(tmp_path, found)
    opened = read_rankings(traces)
    assert set(opened.index) == set(found.index) and len(opened.index) == len(found.index)
    flip(traces[1], "QA_in/signed/index")
    for key, ranking in found.index.items():
        if key != ("QA_in", "signed"):
            assert opened.index[key].tobytes() == ranking.tobytes()
    with pytest.raises(DamagedFile, match="QA_in/signed/index") as caught:
        opened.index["QA_in", "signed"]
    assert caught.value.path == traces[1]
    assert shared_sets(opened, "absolute", 20) == shared_sets(found, "absolute", 20)


@pytest.mark.parametrize("dtype", [np.uint32, np.uint64])
def test_chunks_do_not_show(monkeypatch: pytest.MonkeyPatch, dtype: type) -> None:
    rng = generator(0, "chunks")
    one, other = (rng.permutation(2000)[:1500].astype(dtype) for _ in range(2))
    whole = entries(by_index(one), by_index(other))
    ks = np.array([1, 700, 1500])
    found = sizes(whole, ks)
    assert found.tolist() == [len(set(one[:k]) & set(other[:k])) for k in ks]
    monkeypatch.setattr(entry_ranks, "_CHUNK", 7)
    again = by_index(one)
    assert again.at.dtype == dtype and (one[again.rank - 1] == again.at).all()
    assert (entries(again, by_index(other)) == whole).all()
    assert (sizes(whole, ks) == found).all()


def test_the_benchmark_of_scale_runs() -> None:
    assert bench_scale(small=True)
