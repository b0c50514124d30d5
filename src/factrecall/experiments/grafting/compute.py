"""Grafting one fine-tuned model at every α: opening it, and what its masks recover."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from factrecall.data.files import QA_COLUMNS
from factrecall.experiments.common.model_pair import open_pair
from factrecall.experiments.grafting.grafter import (
    OUTCOMES,
    RECOVERED,
    SHARES,
    Grafter,
    Masks,
    fitted_people,
)
from factrecall.experiments.grafting.mask_checks import overlap
from factrecall.experiments.grafting.mask_choice import UNFITTED
from factrecall.parameters.placement import DUAL_AVERAGING, SIGMOID
from factrecall.parameters.sets import ParameterSet, read_set, read_sets
from factrecall.runtime.storage import read_table

if TYPE_CHECKING:
    import torch

    from factrecall.experiments.grafting.runs import Graft
    from factrecall.experiments.grafting.settings import GraftingSettings
    from factrecall.runtime.checkpoint import Checkpoint


def open_grafter(
    grafting: GraftingSettings,
    max_eval_tokens: int,
    study_seed: int,
    base: Path,
    tuned: Path,
    qa: Path,
    split: str,
    device: torch.device,
    checkpoint: Checkpoint,
) -> Grafter:
    """Open a fine-tuned model and the questions of a split."""
    held = DUAL_AVERAGING if grafting.optimiser.method == "dual_averaging" else SIGMOID
    tokenizer, model, weights = open_pair(base, tuned, device, held=held)
    asked = read_table(qa, QA_COLUMNS)
    asked = asked[asked["split"] == split]
    inside = asked["individual"].isin(
        fitted_people(asked, grafting.fit_individuals, study_seed, split)
    )
    people = asked[inside], asked[~inside]
    return Grafter(
        grafting, max_eval_tokens, tokenizer, model, weights, *people, device, checkpoint
    )


def whole_accuracy(grafter: Grafter) -> float:
    """Return θtask's accuracy on the questions that masks are fitted to."""
    return float(grafter.evaluator(grafter.fitted).answers.right(grafter.model).mean())


def fitted_masks(masks: Masks) -> dict[str, ParameterSet]:
    """Return the masks to keep, by the name of their α."""
    return {repr(alpha): mask for (alpha, method), mask in masks.items() if method not in UNFITTED}


def graft_outcomes(graft: Graft) -> pd.DataFrame:
    """Return what masks with S and without recover; columns ``GRAFTING``."""
    allowed = read_table(graft.table, OUTCOMES)
    without = read_table(graft.without, RECOVERED)
    masks = read_sets(graft.masks)
    shared = read_set(graft.sets, "S", next(iter(masks.values())).space)
    held = read_table(graft.shares, SHARES).set_index(["alpha", "method"])["shared_fraction"]
    allowed["shared_fraction"] = [
        held[alpha, method] if method in UNFITTED else overlap(masks[repr(alpha)], shared)
        for alpha, method in zip(allowed["alpha"].tolist(), allowed["method"], strict=True)
    ]
    without["shared_fraction"] = 0.0
    # Without S as much is grafted as with it, whatever it recovers.
    alpha = allowed.loc[allowed["chosen"], "alpha"].min()
    without["chosen"] = ~without["method"].isin(UNFITTED) & (without["alpha"] == alpha)
    return pd.concat([allowed, without]).assign(**graft.labels)
