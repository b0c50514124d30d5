"""A grafted model, in which circuits are searched."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from factrecall.data.files import QA_COLUMNS
from factrecall.experiments.common.model_pair import open_pair
from factrecall.experiments.grafting.grafter import OUTCOMES, fitted_people, qa_evaluator
from factrecall.experiments.grafting.mask_choice import looked_at
from factrecall.parameters.sets import ParameterSet, read_set
from factrecall.runtime.storage import read_table

if TYPE_CHECKING:
    import numpy as np
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
        γ of the chosen size; where none recovers enough, of the one that recovers most.
    """

    tokenizer: PreTrainedTokenizerBase
    model: PreTrainedModel
    weights: PatchedWeights
    mask: ParameterSet
    device: torch.device

    def questions(
        self, qa: Path, grafted_individuals: int | None, individuals: int | None, study_seed: int,
        max_eval_tokens: int,
    ) -> Evaluator:  # fmt: skip
        """Return the evaluator of the people that the mask was fitted to, or of some of them.

        Masks were fitted to `grafted_individuals`, of whom the first `individuals` are evaluated;
        None: all.
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
    mask = looked_at_mask(masks, outcomes, weights.space)
    return Grafted(tokenizer, model, weights, mask, device)


def looked_at_mask(masks: Path, outcomes: Path, space: ParameterSpace) -> ParameterSet:
    """Read the mask of a grafted model (see `Grafted`)."""
    alpha = float(looked_at(read_table(outcomes, OUTCOMES), [])["alpha"].iloc[0])
    return read_set(masks, repr(alpha), space)
