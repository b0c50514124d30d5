"""Sets of parameters behave as sets do, and refuse what is not of their space."""

from __future__ import annotations

import operator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from factrecall.parameters.sets import ParameterSet, read_set, read_sets, write_sets
from factrecall.parameters.sorted_sets import difference
from factrecall.parameters.space import ParameterSpace
from factrecall.runtime.errors import DamagedFile, FactRecallError
from factrecall.runtime.seeds import generator
from tests.unit.test_storage import flip

SPACE = ParameterSpace(("a", "b", "c", "d"), ((3, 4), (5,), (0,), (2, 6)))
ALL = set(range(SPACE.size))
MEMBERS = st.sets(st.integers(0, SPACE.size - 1))
SETS = st.tuples(MEMBERS, st.booleans())


def made(members: set[int], complement: bool) -> ParameterSet:
    """Make a set of these members, stored by them or by what it lacks."""
    stored = ALL - members if complement else members
    return ParameterSet(SPACE, np.array(sorted(stored), dtype=np.uint32), complement)


def members(found: ParameterSet) -> set[int]:
    index = set(found.index.tolist())
    assert found.index.dtype == np.uint32
    assert found.index.tolist() == sorted(index)  # rising, each once
    return ALL - index if found.complement else index


@given(SETS, SETS)
@pytest.mark.parametrize("do", [operator.and_, operator.or_, operator.sub, operator.xor])
def test_algebra_is_that_of_sets(do: object, one: object, other: object) -> None:
    (a, _), (b, _) = one, other  # type: ignore[misc]
    assert members(do(made(*one), made(*other))) == do(a, b)  # type: ignore[operator,misc]


@given(SETS, SETS)
def test_length_complement_and_equality(
    one: tuple[set[int], bool], other: tuple[set[int], bool]
) -> None:
    a, b = made(*one), made(*other)
    assert len(a) == len(one[0])
    assert members(~a) == ALL - one[0]
    assert (a == b) == (one[0] == other[0])


@given(st.lists(st.integers(0, SPACE.size - 1)))
def test_of_takes_indices_in_any_order(indices: list[int]) -> None:
    assert members(ParameterSet.of(SPACE, np.array(indices, dtype=np.int64))) == set(indices)


@pytest.mark.parametrize("bad", [[-1], [SPACE.size]])
def test_of_refuses_what_is_outside(bad: list[int]) -> None:
    with pytest.raises(ValueError, match="space of 29"):
        ParameterSet.of(SPACE, np.array(bad))


@given(SETS)
def test_parts_and_counts_by_tensor(one: tuple[set[int], bool]) -> None:
    a = made(*one)
    starts = dict(SPACE.offsets())
    again = {starts[name] + int(i) for name, local in a.by_tensor() for i in local}
    assert again == set(a.index.tolist())
    dense = np.isin(np.arange(SPACE.size), list(one[0]))
    for name, size in zip(SPACE.names, SPACE.sizes, strict=True):
        part = dense[starts[name] : starts[name] + size]
        assert a.counts()[name] == part.sum()


@given(SETS, st.data(), st.integers(0, 99))
def test_a_sample_is_a_subset_of_the_wanted_size(
    one: tuple[set[int], bool], data: st.DataObject, seed: int
) -> None:
    a = made(*one)
    size = data.draw(st.integers(0, len(a)))
    drawn = members(a.sample(size, generator(seed, "x")))
    assert len(drawn) == size and drawn <= one[0]
    counts = a.sample(size, generator(seed, "y")).counts()
    matched = a.sample_by_tensor(counts, generator(seed, "z"))
    assert members(matched) <= one[0] and matched.counts() == counts


def test_samples_are_uniform() -> None:
    everything = ~ParameterSet.empty(SPACE)
    for size in (3, 20):  # few are drawn, of many it is drawn who stays out
        rng = generator(0, "uniform", size)
        hits = sum(
            np.bincount(everything.sample(size, rng).index, minlength=29) for _ in range(3000)
        )
        expected = 3000 * size / 29
        # The hits are no independent draws, but the sum of squares is close to chi-squared.
        assert ((hits - expected) ** 2 / expected).sum() < 60


def test_a_sample_larger_than_its_set_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be drawn"):
        made({1, 2}, False).sample(3, generator(0))
    with pytest.raises(ValueError, match="of b cannot be drawn"):
        made({1, 2}, False).sample_by_tensor({"b": 1}, generator(0))


@given(SETS, SETS)
def test_files_keep_sets(
    tmp_path_factory: pytest.TempPathFactory,
    one: tuple[set[int], bool],
    other: tuple[set[int], bool],
) -> None:
    path = tmp_path_factory.mktemp("sets") / "sets.safetensors"
    sets = {"one": made(*one), "two": made(*other)}
    write_sets(path, sets, {"k": 3})
    again = read_sets(path, SPACE)
    assert all(again[name] == sets[name] for name in sets) and again.keys() == sets.keys()


def test_a_set_of_another_space_is_refused_with_both_named(tmp_path: Path) -> None:
    other = ParameterSpace(("a",), ((29,),))
    a, b = ParameterSet.empty(SPACE), ParameterSet.empty(other)
    for do in (operator.and_, operator.or_, operator.sub, operator.xor, operator.eq):
        with pytest.raises(FactRecallError) as raised:
            do(a, b)
        assert SPACE.fingerprint in raised.value.why and other.fingerprint in raised.value.why
    write_sets(tmp_path / "sets.safetensors", {"a": a})
    with pytest.raises(FactRecallError, match=other.fingerprint):
        read_sets(tmp_path / "sets.safetensors", other)
    with pytest.raises(FactRecallError, match=other.fingerprint):
        write_sets(tmp_path / "both.safetensors", {"a": a, "b": b})


@given(MEMBERS, MEMBERS, st.sampled_from([29, 100_000]))
def test_exchanged_is_both_differences(before: set[int], after: set[int], size: int) -> None:
    one, other = (np.array(sorted(s), dtype=np.uint32) for s in (before, after))
    enters, leaves = difference(one, other, size)  # merged in a large tensor, marked in a small one
    assert enters.tolist() == sorted(after - before)
    assert leaves.tolist() == sorted(before - after)


def test_tensors_selects_whole_tensors() -> None:
    assert members(ParameterSet.tensors(SPACE, ["b", "d"])) == set(range(12, 29))


def test_indices_of_a_full_space_of_2_32_fit() -> None:
    space = ParameterSpace(("a",), ((2**16, 2**16),))
    last = ParameterSet.of(space, np.array([2**32 - 1]))
    assert last.counts() == {"a": 1} and (~last).counts() == {"a": 2**32 - 1}
    assert len(~last & last) == 0


WIDE = ParameterSpace(("a", "b", "c"), ((2**16, 2**16), (3, 2**31), (5,)))
"""More parameters than 32 bits count."""
NEAR = st.sets(
    st.one_of(
        st.integers(0, 20),
        st.integers(2**32 - 20, 2**32 + 20),
        st.integers(WIDE.size - 20, WIDE.size - 1),
    )
)


@given(NEAR, NEAR, st.booleans(), st.booleans())
@pytest.mark.parametrize("do", [operator.and_, operator.or_, operator.sub, operator.xor])
def test_algebra_beyond_32_bits(
    do: object, one: set[int], other: set[int], turned: bool, other_turned: bool
) -> None:
    sets = []
    for chosen, complement in ((one, turned), (other, other_turned)):
        made_ = ParameterSet.of(WIDE, np.array(sorted(chosen), dtype=np.uint64))
        sets.append(~made_ if complement else made_)
    found = do(*sets)  # type: ignore[operator]
    assert found.index.dtype == np.uint64
    looked_at = one | other | {0, 2**32, WIDE.size - 1}
    for i in looked_at:
        expected = do(
            {i} if (i in one) != turned else set(), {i} if (i in other) != other_turned else set()
        )  # type: ignore[operator]
        assert ((i in set(found.index.tolist())) != found.complement) == bool(expected)
    ends = np.cumsum((0, *WIDE.sizes))
    stored = found.index.tolist()
    for (name, local), start, size in zip(found.by_tensor(), ends, WIDE.sizes, strict=False):
        assert local.tolist() == [i - start for i in stored if start <= i < start + size]
        assert found.counts()[name] == (size - len(local) if found.complement else len(local))


def test_one_set_is_read_without_the_others(tmp_path: Path) -> None:
    path = tmp_path / "sets.safetensors"
    sets = {"one": made({1, 5}, False), "two": made({2}, True)}
    write_sets(path, sets)
    flip(path, "one")
    assert read_set(path, "two", SPACE) == sets["two"]
    with pytest.raises(DamagedFile, match="checksum of one differs"):
        read_set(path, "one", SPACE)
    with pytest.raises(DamagedFile, match="no set 'three'"):
        read_set(path, "three", SPACE)
