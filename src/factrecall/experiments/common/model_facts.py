"""A fine-tuned model opened together with the facts that it is tested on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class ModelFacts:
    """A model and the tables of facts.

    Attributes
    ----------
    model, tokenizer
        The model is in evaluation mode.
    individuals, bio, qa : DataFrame
        The tables of people, of statements and of questions.
    study_seed : int
        Draws people and counterfactual prompts, the same for every model.
    max_eval_tokens : int
        Largest padded size of a batch.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    individuals: pd.DataFrame
    bio: pd.DataFrame
    qa: pd.DataFrame
    study_seed: int
    max_eval_tokens: int
