"""The paper's numbers, each with the table or figure it was read from.

Two texts of the same authors are used: arXiv 2505.16178 version 1 ("v1"), and a later short
paper on Llama alone ("short paper", same title), which prints numbers that v1 only draws.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from factrecall.facts import RELATIONS

LLAMA = "Llama-3.2-3B"
PYTHIA = "Pythia-2.8B"

_SHORT = "short paper, figure 5"
_DIFFERENCE = "v1, figure 8: accuracy after ablation minus the change printed beside it"
_RELATIONS = "short paper, figure 1"


class Published(NamedTuple):
    """One published accuracy, in per cent, the mean of three seeds where the model was trained.

    `relation` is None for the average over all six.
    """

    model: str
    tuning: str
    split: str
    relation: str | None
    percent: float
    source: str


def _row(
    model: str, tuning: str, source: str, bio: float, qa_in: float, qa_out: float
) -> list[Published]:
    values = {"bio": bio, "qa_in": qa_in, "qa_out": qa_out}
    return [Published(model, tuning, split, None, v, source) for split, v in values.items()]


def _by_relation(model: str, tuning: str, values: tuple[float, ...]) -> list[Published]:
    return [
        Published(model, tuning, "qa_out", relation, value, _RELATIONS)
        for relation, value in zip(RELATIONS, values, strict=True)
    ]


PUBLISHED: tuple[Published, ...] = (
    *_row(LLAMA, "majority", _SHORT, 2.8, 2.9, 2.8),
    *_row(LLAMA, "base", _SHORT, 0.1, 0.0, 0.0),
    *_row(LLAMA, "bio", _SHORT, 98.7, 0.2, 0.2),
    *_row(LLAMA, "stage", _SHORT, 97.2, 100.0, 35.9),
    *_row(LLAMA, "mix", _SHORT, 97.4, 98.4, 74.7),
    *_row(PYTHIA, "stage", _DIFFERENCE, 88.7, 98.4, 10.5),
    *_row(PYTHIA, "mix", _DIFFERENCE, 96.7, 98.1, 48.9),
    *_by_relation(LLAMA, "stage", (78.9, 47.8, 21.7, 19.1, 16.4, 31.3)),
    *_by_relation(LLAMA, "mix", (89.0, 89.4, 79.4, 74.5, 64.8, 51.3)),
)


def published(model: str, tuning: str, split: str, relation: str | None = None) -> float | None:
    """Return a published accuracy in per cent, or None if the paper does not print it."""
    for row in PUBLISHED:
        if row[:4] == (model, tuning, split, relation):
            return row.percent
    return None


def counterpart(model: Mapping[str, Any]) -> str | None:
    """Return the paper's model that a configured one is to be compared with.

    Parameters
    ----------
    model : mapping
        A section of ``models`` in the resolved configuration.

    Returns
    -------
    str or None
        `LLAMA` for Llama's sequential blocks, `PYTHIA` for the parallel blocks of GPT-NeoX,
        None for anything else.
    """
    said = " ".join(str(model.get(key, "")) for key in ("architecture", "repository", "path"))
    for sign, name in (("llama", LLAMA), ("neox", PYTHIA), ("pythia", PYTHIA)):
        if sign in said.lower():
            return name
    return None
