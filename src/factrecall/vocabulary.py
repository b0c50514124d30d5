"""The words of a study, each list once: relations, fine-tunings, splits, formats, kinds.

Stages import this module, so that another word reruns them. Labels for readers are the report's.
"""

from __future__ import annotations

from typing import Literal, get_args

RELATIONS = ("birth_date", "birth_city", "university", "job", "employer", "blood_type")
"""Relations of a fact; own individuals have the same."""

Tuning = Literal["bio", "stage", "mix"]
TUNINGS: tuple[Tuning, ...] = get_args(Tuning)
"""Fine-tunings, in the order in which they run."""

COMPARED: tuple[Tuning, Tuning] = ("stage", "mix")
"""Fine-tunings that learn questions: the conditions that are compared, in the order shown."""

PHASES: dict[str, tuple[Tuning, ...]] = {
    "base": (),
    "bio": ("bio",),
    "stage": ("bio", "stage"),
    "mix": ("mix",),
}
"""The fine-tunings that lead from the pre-trained model (`base`) to each model."""

Side = Literal["in", "out"]
SIDES: tuple[Side, ...] = get_args(Side)
"""In distribution: the individual's questions are trained on; out of distribution: they are not."""

SPLITS = ("bio", "qa_in", "qa_out")
"""Texts on which recall is measured."""

FORMATS = ("bio", "qa")
"""A fact as a statement in a biography, and as a question."""

STATE_FORMATS = ("bio_long", "bio_short", "qa")
"""Prompts whose hidden states are captured: the statement after all before it, or alone."""

TRACED_TASKS: dict[str, tuple[str, ...]] = {
    "base": (),
    "bio": ("BIO_in", "BIO_out"),
    "stage": ("QA_in",),
    "mix": ("BIO_in", "BIO_out", "QA_in"),
}
"""Tasks whose gradients each fine-tuning traces."""

TASKS = TRACED_TASKS["mix"]

Influence = Literal["absolute", "magnitude", "signed", "adam"]
INFLUENCES: tuple[Influence, ...] = get_args(Influence)
"""Σ|lr·g|, |Σ lr·g|, Σ lr·g and |Σ lr·h/√v| of a parameter (docs/method.md, gradient trace)."""

NodeKind = Literal["attention", "column", "unit"]
NODE_KINDS: tuple[NodeKind, ...] = get_args(NodeKind)
"""A head's slices of the projections; a column of an MLP matrix; a hidden unit of the MLP."""
