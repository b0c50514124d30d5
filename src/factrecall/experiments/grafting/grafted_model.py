"""A grafted model, in which circuits are searched."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from factrecall.data.files import QA_COLUMNS
from factrecall.experiments.common.model_pair import open_pair
from factrecall.experiments.grafting.grafter import qa_evaluator
from factrecall.experiments.grafting.mask_choice import mask_name
from factrecall.experiments.grafting.people import fitted_people
from factrecall.experiments.grafting.tables import OUTCOMES
from factrecall.parameters.sets import ParameterSet, read_set
from factrecall.runtime.storage import read_table

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from factrecall.evaluation.exact_match import Evaluator
    from factrecall.parameters.patched_weights import PatchedWeights
    from factrecall.parameters.space import ParameterSpace

SPLIT = "out"
"""Whose questions the mask was fitted to: circuits are those of recall out of distribution."""


@dataclass(frozen=True)
class Grafted:
    """A fine-tuned model and the mask that grafts it.

    Attributes
    ----------
    mask : ParameterSet
        γ: of the first objective whose chosen mask recovers held-out people, else fitted to gold
        answers (`mask_choice.taken_apart`).
    objective : str
        What the mask was fitted to.
    held_out_recovery : float
        Recall of held-out people with it, over that of θtask; NaN: nobody was held out.
    """

    tokenizer: PreTrainedTokenizerBase
    model: PreTrainedModel
    weights: PatchedWeights
    mask: ParameterSet
    objective: str
    held_out_recovery: float
    device: torch.device

    def questions(
        self, qa: Path, grafted_individuals: int | None, individuals: int | None, study_seed: int,
        max_eval_tokens: int,
    ) -> Evaluator:  # fmt: skip
        """Return the evaluator of the people that gold masks were fitted to, or of some of them.

        They are `grafted_individuals`, of whom the first `individuals` are evaluated; None: all.
        """
        asked = read_table(qa, QA_COLUMNS)
        asked = asked[asked["split"] == SPLIT]
        people = fitted_people(asked, grafted_individuals, study_seed, SPLIT)[:individuals]
        asked = asked[asked["individual"].isin(people)]
        return qa_evaluator(self.tokenizer, asked, max_eval_tokens, self.device)

    def right(self, judge: Evaluator) -> np.ndarray:
        """Evaluate the whole grafted model; bool, shape (questions,)."""
        with self.weights:
            self.weights.set(self.mask)
            return judge.answers.right(self.model)


def open_grafted(
    base: Path, tuned: Path, masks: Path, outcomes: Path, device: torch.device, spare: float = 0.0
) -> Grafted:
    """Open a fine-tuned model with the files of grafting it.

    `spare` are the bytes that the job needs on the device besides (see `pair.open_pair`).
    """
    tokenizer, model, weights = open_pair(base, tuned, device, spare=spare)
    row = _taken_apart(outcomes)
    mask = read_set(masks, mask_name(row["objective"], float(row["alpha"])), weights.space)
    recovery = float(row["held_out_recovery"])
    return Grafted(tokenizer, model, weights, mask, row["objective"], recovery, device)


def mask_of_circuits(masks: Path, outcomes: Path, space: ParameterSpace) -> ParameterSet:
    """Read the mask of a grafted model (see `Grafted`)."""
    row = _taken_apart(outcomes)
    return read_set(masks, mask_name(row["objective"], float(row["alpha"])), space)


def _taken_apart(outcomes: Path) -> pd.Series:
    table = read_table(outcomes, OUTCOMES)
    return table[table["taken_apart"].astype(bool)].iloc[0]
