"""Shared parameters: those that both tasks rank highly by summed gradients (paper, section 3.1).

Memory of a selection: at most 32 bytes a kept parameter, whatever the number of influences.
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

`chance` and `null` are exact expectations if the members of the QA top were drawn anew: from all
parameters, or within each tensor, which keeps how many each tensor has. BIO tops stay as they are.
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
    parts = []
    for influence in INFLUENCES:
        found, bio, asked = _tops(rankings, influence, ks)
        for name, size in found.items():
            chance = bio[name].sum(1) * asked.sum(1) / rankings.space.size
            null = (bio[name] * asked / np.array(rankings.space.sizes)).sum(1)
            row = {"influence": influence, "set": name, "k": ks, "size": size, "ratio": size / ks}
            parts.append(pd.DataFrame(row | {"chance": chance / ks, "null": null / ks}))
    return pd.concat(parts, ignore_index=True)


def _tops(
    rankings: Rankings, influence: str, ks: np.ndarray
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], np.ndarray]:
    """Return the sizes of all sets by k, and what BIO and QA tops have of each tensor.

    The BIO top of S is the union of both.
    """

    def by_tensor(ranked: Ranked, entry: np.ndarray) -> np.ndarray:
        cuts = pairwise(rankings.space.cuts(ranked.at))
        return np.stack([sizes(entry[a:b], ks) for a, b in cuts], axis=1)

    ((_, qa), _) = PAIRS.values()
    tops = {name: by_index(rankings.index[bio, influence]) for name, (bio, _) in PAIRS.items()}
    bio = {name: by_tensor(ranked, ranked.rank) for name, ranked in tops.items()}
    one, other = tops.values()
    bio["S"] = bio["S_I"] + bio["S_II"] - by_tensor(one, entries(one, other))
    del one, other
    asked = by_index(rankings.index[qa, influence])
    entry = {name: entries(asked, tops.pop(name)) for name in PAIRS}
    found = {name: sizes(ranks, ks) for name, ranks in entry.items()}
    # What is in one of the sets is in S from the smaller of its two entry ranks on.
    found["S"] = sizes(np.minimum(*entry.values()), ks)
    return found, bio, by_tensor(asked, asked.rank)


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
