"""Grafting: how few fine-tuned parameters carry recall, and how many of them are shared.

γ is grafted: θ(γ) holds θtask on γ and θpre elsewhere (paper, section 3.2 and appendix A.5; method,
section 7). Masks are fitted to some people's questions and judged on these, as in the paper, and
on those of the others, which the paper does not do: a mask has enough choice to learn answers by
heart, as weights have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from factrecall.data.files import BIO_COLUMNS
from factrecall.evaluation.exact_match import PER_EXAMPLE, Evaluator
from factrecall.experiments.grafting.dual_averaging import Questions, dual_averaging
from factrecall.experiments.grafting.mask_choice import MOVEMENT, UNFITTED, WHOLE
from factrecall.experiments.grafting.schedule import updates_of
from factrecall.experiments.grafting.sigmoid_sgd import sigmoid_sgd
from factrecall.models.forward import encode
from factrecall.parameters.sets import ParameterSet
from factrecall.runtime.progress import progress
from factrecall.runtime.seeds import generator

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from factrecall.experiments.grafting.settings import GraftingSettings
    from factrecall.parameters.patched_weights import PatchedWeights
    from factrecall.runtime.checkpoint import Checkpoint

ENOUGH = 0.97
"""The accuracy at which the paper's optimiser stops."""

RECOVERED = {
    "alpha": "float64",
    "with_shared": "bool",
    "method": "string",
    "accuracy": "float64",
    "recovery": "float64",
    "size": "int64",
}
"""Columns of what masks without S recover; `alpha` 1 stands for all that may be grafted.

`accuracy` is that on the people the mask was fitted to, `recovery` its share of θtask's, `size`
|γ|0.
"""

OUTCOMES = {**RECOVERED, "chosen": "bool"}
"""Columns of what masks that may hold anything recover."""

SHARES = {"alpha": "float64", "method": "string", "shared_fraction": "float64"}
"""Columns of how much of what was not fitted is in S: |S ∩ γ|/|γ|."""

GRAFTING = {
    "model": "string",
    "tuning": "string",
    "seed": "int32",
    "split": "string",
    **RECOVERED,
    "shared_fraction": "float64",
    "chosen": "bool",
}
"""Columns of ``tables/grafting.parquet``."""

PER_MASK = {
    "alpha": "float64",
    "with_shared": "bool",
    "method": "string",
    "fitted": "bool",
    **PER_EXAMPLE,
}
"""Columns of one model's answers: one row a mask and question; `fitted` people's the mask saw."""

Masks = dict[tuple[float, str], ParameterSet]
"""By α and method."""


@dataclass(frozen=True)
class Grafter:
    """A model to graft and the questions it is judged by, inside its composition's block.

    Attributes
    ----------
    settings : Grafting
        What the configuration says.
    fitted, others : DataFrame
        Questions that masks are fitted to, and those of the other people.
    checkpoint : Checkpoint
        Of the job; each fit keeps its state in a part of it.
    """

    settings: GraftingSettings
    max_eval_tokens: int
    tokenizer: PreTrainedTokenizerBase
    model: PreTrainedModel
    weights: PatchedWeights
    fitted: pd.DataFrame
    others: pd.DataFrame
    device: torch.device
    checkpoint: Checkpoint

    def size(self, alpha: float) -> int:
        """Return how many parameters a mask of a share α of all has."""
        return max(1, round(alpha * self.weights.space.size))

    def excluded(self) -> ParameterSet:
        """Return the parameters that are never grafted: embeddings and output head, or none."""
        ends = (self.model.get_input_embeddings(), self.model.get_output_embeddings())
        ids = {id(end.weight) for end in ends}
        names = [name for name, p in self.model.named_parameters() if id(p) in ids]
        return ParameterSet.tensors(
            self.weights.space, names if self.settings.exclude_embeddings else []
        )

    def evaluator(self, qa: pd.DataFrame) -> Evaluator:
        """Return the questions of a table, ready to be asked."""
        no_bio = pd.DataFrame(columns=list(BIO_COLUMNS))
        return Evaluator.of(self.tokenizer, no_bio, qa, self.max_eval_tokens, self.device)

    def fit(
        self,
        name: str,
        alphas: Sequence[float],
        without: ParameterSet,
        qa: pd.DataFrame,
        rng: np.random.Generator,
    ) -> list[ParameterSet]:
        """Fit a mask of each size, none of `without` in it, to the questions of a table.

        `name` tells this fit from the job's others.
        """
        optimiser = self.settings.optimiser
        spans = zip(qa["attribute_start"], qa["terminator_end"], strict=True)
        texts = encode(self.tokenizer, list(qa["text"]), [[span] for span in spans])
        questions = Questions(texts, self.max_eval_tokens, self.device, rng)
        sizes = [self.size(alpha) for alpha in alphas]
        task = (self.weights, self.model, questions, sizes, without)
        with self.checkpoint.part(name.replace(" ", "-")) as state:
            if optimiser.method == "dual_averaging":
                with progress(updates_of(optimiser, len(sizes)), name, "update") as watch:
                    masks = dual_averaging(optimiser, *task, watch, state)
            else:
                judge = self.evaluator(qa).answers

                def enough(_: int, mask: ParameterSet) -> bool:
                    self.weights.set(mask)
                    return bool(judge.right(self.model).mean() > ENOUGH)

                with progress(optimiser.updates * len(sizes), name, "update") as watch:
                    masks = sigmoid_sgd(optimiser, *task, enough, watch, state)
        return [masks[size] for size in sizes]


def fitted_people(
    asked: pd.DataFrame, individuals: int | None, study_seed: int, split: str
) -> np.ndarray:
    """Draw the people whose questions masks are fitted to, in the order they are drawn in.

    Parameters
    ----------
    asked : DataFrame
        The questions of one split.
    individuals : int, optional
        How many; None, or more than there are, takes all.
    study_seed, split
        Say which draw it is.
    """
    people = np.sort(asked["individual"].unique())
    count = min(len(people), individuals or len(people))
    drawn = generator(study_seed, "grafted people", split).choice(people, count, replace=False)
    return np.asarray(drawn)


def unfitted(grafter: Grafter, without: ParameterSet) -> Masks:
    """Return the masks that take no fitting, none of `without` in them."""
    masks: Masks = {(1.0, WHOLE): ~without}
    for alpha in grafter.settings.alphas:
        masks[alpha, MOVEMENT] = grafter.weights.largest_change(grafter.size(alpha), without)
    return masks


def sweep(grafter: Grafter, name: str, without: ParameterSet, seed: Sequence[int | str]) -> Masks:
    """Return the masks of every α, fitted and not, none of `without` in them."""
    settings, masks = grafter.settings, unfitted(grafter, without)
    rng = generator(int(seed[0]), "grafting", *seed[1:])
    fitted = grafter.fit(name, settings.alphas, without, grafter.fitted, rng)
    for alpha, mask in zip(settings.alphas, fitted, strict=True):
        masks[alpha, settings.optimiser.method] = mask
    return masks


def answers(grafter: Grafter, masks: Masks, *, with_shared: bool) -> pd.DataFrame:
    """Ask every grafted model the fitted people's questions, and, with S, some all questions."""
    parts = []
    for fitted, qa in ((True, grafter.fitted), (False, grafter.others)):
        if not len(qa):
            continue
        judge = grafter.evaluator(qa)
        for (alpha, method), mask in masks.items():
            if fitted or (with_shared and method != MOVEMENT):
                grafter.weights.set(mask)
                rows = judge.evaluate(grafter.model)
                kept = {"alpha": alpha, "with_shared": with_shared, "method": method}
                parts.append(rows.assign(fitted=fitted, **kept))
    return pd.concat(parts, ignore_index=True)


def outcomes(masks: Masks, found: pd.DataFrame, whole: float) -> pd.DataFrame:
    """Condense answers; columns ``RECOVERED``.

    Parameters
    ----------
    masks, found
        From `sweep` and `answers`.
    whole : float
        θtask's accuracy on the same questions.
    """
    keys = ["alpha", "with_shared", "method"]
    table = found[found["fitted"]].groupby(keys, sort=False)["correct"].mean().reset_index()
    table = table.rename(columns={"correct": "accuracy"})
    sizes = [len(masks[key]) for key in zip(table["alpha"], table["method"], strict=True)]
    return table.assign(recovery=table["accuracy"] / whole if whole else np.nan, size=sizes)


def smallest(table: pd.DataFrame, least: float) -> pd.Series:
    """Say of each row of ``RECOVERED`` whether it is the smallest fitted mask to recover enough.

    None is, where none recovers `least`.
    """
    fitted = ~table["method"].isin(UNFITTED)
    enough = table[fitted & (table["recovery"] >= least)]
    return fitted & (table["alpha"] == enough["alpha"].min())
