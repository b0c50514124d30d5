"""A fine-tuned model opened together with the facts that it is tested on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class ModelFacts:
    """A model in evaluation mode, and the tables of facts.

    The study's seed draws people and counterfactual prompts, the same for every model. Batches are
    of at most `max_eval_tokens` with their padding.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    individuals: pd.DataFrame
    bio: pd.DataFrame
    qa: pd.DataFrame
    study_seed: int
    max_eval_tokens: int
