"""Shared parameters: those moved both by statements and by questions (paper, section 3.1).

Rankings are read one at a time. Memory of a selection: at most 32 bytes a kept parameter, whatever
the number of tasks and influences.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd

from factrecall.experiments.shared_parameters.entry_ranks import (
    Ranked,
    by_index,
    entries,
    log_grid,
    sizes,
)
from factrecall.parameters.sets import ParameterSet, different_spaces
from factrecall.parameters.space import ParameterSpace
from factrecall.runs import RUN
from factrecall.runtime.errors import FactRecallError
from factrecall.runtime.lazy_mapping import LazyMapping
from factrecall.runtime.safetensors_writer import open_tensors
from factrecall.vocabulary import INFLUENCES, TASKS

PAIRS = {"S_I": ("BIO_in", "QA_in"), "S_II": ("BIO_out", "QA_in")}
"""The shared sets and the two tasks of each (equation 4); S is their union."""

SETS = (*PAIRS, "S")

OVERLAP_CURVE = {
    **dict.fromkeys(("influence", "set"), "string"),
    **dict.fromkeys(("k", "size"), "int64"),
    **dict.fromkeys(("ratio", "chance", "null"), "float64"),
    "selected": "bool",
}
"""Columns of a curve; `selected` marks shared.k and the influence that S is ranked by; `ratio`,
`chance` and `null` are shares of k.

`chance` is the overlap of random rankings of all parameters; `null` that of these rankings permuted
within each tensor, which keeps how much of each tensor is moved. Both are exact expectations.
"""

SHARED = {**RUN, **OVERLAP_CURVE}
"""Columns of ``tables/shared.parquet``."""

LOCATIONS = {
    **dict.fromkeys(("set", "tensor"), "string"),
    "layer": "int32",
    "kind": "string",
    **dict.fromkeys(("parameters", "shared"), "int64"),
}
"""Columns of a table of where S lives; `layer` is -1 outside the layers."""

SHARED_LOCATIONS = {**RUN, **LOCATIONS}
"""Columns of ``tables/shared_locations.parquet``."""


@dataclass(frozen=True)
class Rankings:
    """The rankings in the traces of one training history.

    Attributes
    ----------
    keep : int
        How many parameters each ranking holds at most.
    index : mapping of (task, influence) to ndarray, shape (ranked,)
        Flat indices, most influenced first; read from a file each time they are asked for.
    """

    space: ParameterSpace
    keep: int
    index: Mapping[tuple[str, str], np.ndarray]


def read_rankings(paths: Sequence[Path]) -> Rankings:
    """Open the rankings of one training history: its trace or, for two-stage, both of its traces.

    Raises
    ------
    FactRecallError
        When a trace is missing or damaged, or they are of different models or lack a task. A
        damaged ranking is found when it is read.
    """
    trace: dict[tuple[str, str], Path] = {}
    spaces, keeps = [], []
    for path in paths:
        metadata = open_tensors(path, ("names", "shapes", "keep", "counts")).metadata
        spaces.append(ParameterSpace.from_metadata(metadata))
        keeps.append(int(metadata["keep"]))
        if spaces[0] != spaces[-1]:
            names = ", ".join(map(str, paths))
            raise different_spaces(names, spaces[0].fingerprint, spaces[-1].fingerprint)
        for task in metadata["counts"]:
            if (task, INFLUENCES[0]) in trace:
                raise FactRecallError(
                    str(path),
                    f"another trace holds {task}, too",
                    "give the trace of mixed training alone, or those of both stages",
                )
            trace |= dict.fromkeys(((task, influence) for influence in INFLUENCES), path)
    for task in TASKS:
        if (task, INFLUENCES[0]) not in trace:
            raise FactRecallError(
                ", ".join(map(str, paths)),
                f"no gradient of {task} was traced: no traced person was in a batch",
                "trace more people (trace.in_distribution, trace.out_of_distribution) or train "
                "for more updates",
            )

    def read(key: tuple[str, str]) -> np.ndarray:
        index: np.ndarray = open_tensors(trace[key])["/".join((*key, "index"))].numpy()
        return index

    return Rankings(spaces[0], min(keeps), LazyMapping(trace, read))


def overlap_curves(rankings: Rankings, k: int) -> pd.DataFrame:
    """Return |S_I(k)|, |S_II(k)| and |S(k)| by k for every influence.

    Columns are those of `OVERLAP_CURVE` but `selected`.
    """
    ks = log_grid(rankings.keep, k)
    share = ks / rankings.space.size
    chance = {"S_I": share, "S_II": share, "S": share * (2 - share)}
    parts = []
    for influence in INFLUENCES:
        found, shares = _found(rankings, influence, ks)
        null = _nulls(rankings.space, shares)
        for name, size in found.items():
            row = {"influence": influence, "set": name, "chance": chance[name]}
            curve = {"k": ks, "size": size, "ratio": size / ks, "null": null[name] / ks}
            parts.append(pd.DataFrame(row | curve))
    return pd.concat(parts, ignore_index=True)


def _found(
    rankings: Rankings, influence: str, ks: np.ndarray
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return the sizes of all sets and, for `_nulls`, each task's share of each tensor, by k."""
    size = np.array(rankings.space.sizes, dtype=float)
    shares: dict[str, np.ndarray] = {}

    def ranked(task: str) -> Ranked:
        found = by_index(rankings.index[task, influence])
        shares[task] = _tops_by_tensor(found, rankings.space, ks) / size
        return found

    (_, qa), (_, _) = PAIRS.values()
    asked = ranked(qa)
    entry = {name: entries(asked, ranked(bio)) for name, (bio, _) in PAIRS.items()}
    found = {name: sizes(one, ks) for name, one in entry.items()}
    # What is in one of the sets is in S from the smaller of its two entry ranks on.
    return {**found, "S": sizes(np.minimum(*entry.values()), ks)}, shares


def _nulls(space: ParameterSpace, shares: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Expect the overlap of tops whose members are drawn anew within each tensor."""
    size = np.array(space.sizes, dtype=float)
    one, two, asked = (shares[task] for task in TASKS)
    return {
        "S_I": (one * asked) @ size,
        "S_II": (two * asked) @ size,
        "S": ((one + two - one * two) * asked) @ size,
    }


def _tops_by_tensor(ranked: Ranked, space: ParameterSpace, ks: np.ndarray) -> np.ndarray:
    """Count the top k of each tensor, for every k; shape (ks, tensors)."""
    found = [sizes(ranked.rank[a:b], ks) for a, b in pairwise(space.cuts(ranked.at))]
    return np.stack(found, axis=1)


def shared_sets(rankings: Rankings, influence: str, k: int) -> dict[str, ParameterSet]:
    """Return S_I(k), S_II(k) and S(k) (equations 3 and 4)."""

    def top(task: str) -> ParameterSet:
        return ParameterSet(rankings.space, np.sort(rankings.index[task, influence][:k]))

    (_, qa), (_, _) = PAIRS.values()
    asked = top(qa)
    found = {name: top(bio) & asked for name, (bio, _) in PAIRS.items()}
    return {**found, "S": found["S_I"] | found["S_II"]}


def locations(sets: Mapping[str, ParameterSet]) -> pd.DataFrame:
    """Return how much of each set is in each tensor; columns `LOCATIONS`."""
    rows = [
        (name, tensor, *members.space.place(tensor), members.space.size_of[tensor], shared)
        for name, members in sets.items()
        for tensor, shared in members.counts().items()
    ]
    return pd.DataFrame(rows, columns=list(LOCATIONS))
