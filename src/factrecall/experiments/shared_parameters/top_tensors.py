"""Top tensors of a gradient trace: how many gradients it sums, and where the largest sums are.

Only the metadata and the head of each ranking are read.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from factrecall.runtime.storage import unreadable

if TYPE_CHECKING:
    import numpy as np

TOP = 1_000
"""How many of the most influenced parameters are counted."""


@dataclass(frozen=True)
class Gathering:
    """Where the most influenced parameters of one task are.

    Attributes
    ----------
    task : str
        BIO_in, BIO_out or QA_in.
    gradients, top : int
        How many gradients were summed, and how many parameters are counted.
    kinds : list of (str, float, float)
        Kind of tensor (all layers together), its share of those parameters, and its share of all
        parameters, which is chance; the largest first.
    """

    task: str
    gradients: int
    top: int
    kinds: list[tuple[str, float, float]]


def read_gatherings(path: Path, influence: str) -> tuple[int, list[Gathering]]:
    """Return the number of parameters of the traced model, and a `Gathering` per task.

    Raises
    ------
    FactRecallError
        When the file is missing or damaged.
    """
    import numpy as np
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            metadata = json.loads((file.metadata() or {})["factrecall"])
            heads = {}
            for task in metadata["counts"]:
                ranking = file.get_slice(f"{task}/{influence}/index")
                heads[task] = ranking[: min(TOP, ranking.get_shape()[0])]
            names, shapes = metadata["names"], metadata["shapes"]
            n, counts = int(metadata["n"]), metadata["counts"]
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise unreadable(path, "gradient trace", error, not isinstance(error, OSError)) from error
    sizes = np.array([math.prod(shape) for shape in shapes], dtype=np.int64)
    kinds = np.array([re.sub(r"\.\d+\.", ".*.", name) for name in names])
    return n, [
        Gathering(task, int(counts[task]), len(index), _largest(index, sizes, kinds))
        for task, index in sorted(heads.items())
    ]


def _largest(
    index: np.ndarray, sizes: np.ndarray, kinds: np.ndarray, most: int = 3
) -> list[tuple[str, float, float]]:
    import numpy as np

    tensor = np.searchsorted(np.cumsum(sizes), index.astype(np.int64), side="right")
    hits = np.bincount(tensor, minlength=len(sizes))
    by_kind = [
        (str(kind), hits[kinds == kind].sum() / max(1, len(index)), sizes[kinds == kind].sum())
        for kind in np.unique(kinds)
    ]
    ranked = sorted(by_kind, key=lambda row: (-row[1], row[0]))[:most]
    return [(k, float(share), float(size / sizes.sum())) for k, share, size in ranked if share]
