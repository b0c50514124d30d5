"""The paper's numbers, each with the table or figure it was read from.

Two texts of the same authors are used: arXiv 2505.16178 version 1 ("v1"), and a later short
paper on Llama alone ("short paper", same title), which prints numbers that v1 only draws.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

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
    relations = ("birth_date", "birth_city", "university", "job", "employer", "blood_type")
    return [
        Published(model, tuning, "qa_out", relation, value, _RELATIONS)
        for relation, value in zip(relations, values, strict=True)
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


_FIGURE_8 = "v1, figure 8"
_FIGURE_9 = "v1, figure 9"
_TABLES = {LLAMA: "v1, table 1", PYTHIA: "v1, table 3"}


class Ablated(NamedTuple):
    """Accuracies after an ablation, in per cent, by split; `source` says where they are drawn."""

    model: str
    tuning: str
    ablated: str
    bio: float
    qa_in: float
    qa_out: float
    source: str


ABLATIONS: tuple[Ablated, ...] = (
    Ablated(LLAMA, "stage", "shared", 92.3, 95.1, 29.2, _FIGURE_8),
    Ablated(LLAMA, "mix", "shared", 11.5, 19.8, 8.7, _FIGURE_8),
    Ablated(PYTHIA, "stage", "shared", 73.1, 80.6, 8.7, _FIGURE_8),
    Ablated(PYTHIA, "mix", "shared", 87.3, 91.5, 40.0, _FIGURE_8),
    Ablated(LLAMA, "stage", "random", 97.2, 100.0, 36.1, _FIGURE_9),
    Ablated(LLAMA, "mix", "random", 97.4, 98.4, 74.9, _FIGURE_9),
    Ablated(PYTHIA, "stage", "random", 88.9, 98.4, 10.6, _FIGURE_9),
    Ablated(PYTHIA, "mix", "random", 96.6, 98.0, 48.9, _FIGURE_9),
)


class Grafted(NamedTuple):
    """The paper's chosen masks, all numbers in per cent.

    `accuracy` and `recovery` are those with S, `without` and `recovery_without` those of as many
    parameters with S reset; `shared_fraction` is |S ∩ γ|/|γ|.
    """

    model: str
    tuning: str
    split: str
    whole: float
    alpha: float
    accuracy: float
    shared_fraction: float
    recovery: float
    without: float
    recovery_without: float


GRAFTS: tuple[Grafted, ...] = (
    Grafted(LLAMA, "stage", "in", 100.0, 0.5, 96.1, 3.9, 96.1, 36.8, 36.8),
    Grafted(LLAMA, "stage", "out", 35.6, 0.18, 33.0, 5.9, 92.7, 5.4, 15.1),
    Grafted(LLAMA, "mix", "in", 98.3, 0.1, 93.5, 11.0, 95.1, 33.4, 33.9),
    Grafted(LLAMA, "mix", "out", 74.7, 0.135, 69.9, 9.3, 93.6, 11.7, 15.7),
    Grafted(PYTHIA, "stage", "in", 98.4, 0.7, 94.6, 1.9, 96.2, 78.0, 79.2),
    Grafted(PYTHIA, "stage", "out", 10.6, 0.055, 9.9, 7.0, 93.2, 4.0, 38.1),
    Grafted(PYTHIA, "mix", "in", 98.0, 0.3, 92.0, 5.4, 94.0, 40.8, 41.7),
    Grafted(PYTHIA, "mix", "out", 49.5, 0.095, 48.0, 8.3, 96.9, 9.9, 20.1),
)

RATIOS = {LLAMA: 1.2, PYTHIA: 1.5}
"""|S(k)| of mixed over that of two-stage training at k = 10^8 (v1, section 3.1 and A.4.1)."""

MASK_CHECKS = {"overlap_runs": 98.87, "inclusion": 72.5}
"""The least overlap across runs (α = 1 %) and the least inclusion across α, in per cent, of the
Mix-tuned Llama (v1, figures 11 and 12)."""


class Heads(NamedTuple):
    """What the paper reads off its interventions on attention heads, all in per cent.

    A `share` of the nodes reaches more than `reached` completeness if they are taken by shared
    parameters, and `grafted` (or less) by grafted ones; they hold more than `held` of S in
    attention. The first 10 % hold more than `top_held`, and putting them back costs more than
    `top_lost`.
    """

    share: float
    reached: float
    grafted: float
    held: float
    top_held: float
    top_lost: float
    source: str


HEADS = {
    LLAMA: Heads(60, 80, 70, 95, 60, 90, "v1, section 4.1 and figure 4"),
    PYTHIA: Heads(80, 80, 70, 95, 60, 90, "v1, appendix A.7.1 and figure 17"),
}
TOP_HEADS = 10
"""Per cent of the heads that are the top ones."""


class Columns(NamedTuple):
    """What it reads off those on MLP neurons: the first `nodes` of Llama's `of`, in per cent.

    All of S in the MLP is in the first `all_held`.
    """

    nodes: int
    of: int
    held: float
    lost: float
    all_held: int
    source: str


COLUMNS = Columns(320, 401_408, 30, 60, 40_960, "v1, appendix A.6.2, figures 15 and 16")


class Continuity(NamedTuple):
    """Ratios of table 4: overall, longest streak, retained at the last step; in per cent."""

    overall: float
    longest: float
    retained: float


CONTINUITY = {LLAMA: Continuity(91.96, 80.74, 91.44), PYTHIA: Continuity(79.75, 63.44, 84.87)}
CONTINUITY_SOURCE = "v1, table 4"

DELTA_BOUNDS = {"rep_short": 10, "mech_long": 20, "mech_short": 10}
"""What Δrep and Δmech stay below in both of Llama's tunings, in points, by the biography probed
(short paper, section 3.2). It prints "< 10 %" for Δrep of short ones, "relatively small" for Δmech
of long ones, and "nearly zero" for that of short ones. The bounds of Δmech are our reading: its "≈
20 %" at one layer is of BIO states, not of QA states as its formula."""


def published_ablation(model: str, tuning: str, ablated: str, split: str) -> float | None:
    """Return a published accuracy after an ablation in per cent; ``none`` is before any."""
    if ablated == "none":
        return published(model, tuning, split)
    for row in ABLATIONS:
        if row[:3] == (model, tuning, ablated):
            return float(getattr(row, split))
    return None


def published_graft(model: str, tuning: str, split: str) -> Grafted | None:
    """Return the paper's chosen mask for a model, tuning and split (``in`` or ``out``)."""
    for row in GRAFTS:
        if row[:3] == (model, tuning, split):
            return row
    return None


def graft_source(model: str) -> str:
    """Return the table that a model's published masks are in."""
    return _TABLES[model]


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
    said = " ".join(str(model.get(key, "")) for key in ("architecture", "repository"))
    said += " " + Path(model.get("path", "")).name
    signs = (("llama", LLAMA), ("smollm", LLAMA), ("neox", PYTHIA), ("pythia", PYTHIA))
    for sign, name in signs:
        if sign in said.lower():
            return name
    return None
