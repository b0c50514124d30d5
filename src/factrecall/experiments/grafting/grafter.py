"""Grafting: how few fine-tuned parameters carry recall, and how many of them are shared.

θ(γ) holds θtask on the mask γ and θpre elsewhere (paper, section 3.2 and appendix A.5; method,
section 7). Masks are fitted to some people's questions and evaluated on these, as in the paper, and
on those of held-out people, which the paper does not do: a mask may memorise answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from factrecall.data.files import BIO_COLUMNS, QA_COLUMNS
from factrecall.evaluation.exact_match import PER_EXAMPLE, Evaluator
from factrecall.experiments.common.model_pair import open_pair
from factrecall.experiments.grafting.dual_averaging import MaskProblem, Questions, dual_averaging
from factrecall.experiments.grafting.mask_choice import MOVEMENT, UNFITTED, WHOLE
from factrecall.experiments.grafting.schedule import updates_of
from factrecall.experiments.grafting.sigmoid_sgd import sigmoid_sgd
from factrecall.models.forward import encode
from factrecall.parameters.placement import DUAL_AVERAGING, SIGMOID
from factrecall.parameters.sets import ParameterSet, write_sets
from factrecall.runs import RUN
from factrecall.runtime.progress import progress
from factrecall.runtime.seeds import generator

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from factrecall.experiments.grafting.settings import GraftingSettings
    from factrecall.parameters.patched_weights import PatchedWeights
    from factrecall.runtime.checkpoint import Checkpoint
    from factrecall.runtime.job import Job

ENOUGH = 0.97
"""The accuracy at which the paper's optimiser stops."""

MASK = {"alpha": "float64", "with_shared": "bool", "method": "string"}

RECOVERED = {**MASK, "accuracy": "float64", "recovery": "float64", "size": "int64"}
"""Columns of what masks without S recover; `alpha` 1 stands for all that may be grafted.

`accuracy` is that on the people the mask was fitted to, `recovery` its share of θtask's, `size`
|γ|0.
"""

OUTCOMES = {**RECOVERED, "chosen": "bool"}
"""Columns of what masks that may hold anything recover."""

SHARES = {"alpha": "float64", "method": "string", "shared_fraction": "float64"}
"""Columns of how much of what was not fitted is in S: |S ∩ γ|/|γ|."""

GRAFTING = {**RUN, "split": "string", **RECOVERED, "shared_fraction": "float64", "chosen": "bool"}
"""Columns of ``tables/grafting.parquet``."""

PER_MASK = {**MASK, "fitted": "bool", **PER_EXAMPLE}
"""Columns of a model's answers: a row a mask and question; `fitted` people's the mask saw."""

Masks = dict[tuple[float, str], ParameterSet]
"""By α and method."""


class Sweep(NamedTuple):
    """The masks of every α; per-example answers (`PER_MASK`) and outcomes (`RECOVERED`)."""

    masks: Masks
    answers: pd.DataFrame
    outcomes: pd.DataFrame


@dataclass(frozen=True)
class Grafter:
    """A fine-tuned model to graft, and the questions it is evaluated on.

    Attributes
    ----------
    weights : PatchedWeights
        Of `model`; all methods need to be called inside their block.
    fitted, others : DataFrame
        Questions that masks are fitted to, and those of held-out people.
    checkpoint : Checkpoint
        Of the job; each fit keeps its state in a part of it.
    study_seed, seed, split
        Seed the draws: of the study, of the fine-tuning, and whose questions these are.
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
    study_seed: int
    seed: int
    split: str

    def rng(self, purpose: str) -> np.random.Generator:
        """Return the generator of this model's draws for a purpose."""
        return generator(self.study_seed, purpose, self.seed, self.split)

    def excluded(self) -> ParameterSet:
        """Return the parameters that are never grafted: embeddings and output head, or none."""
        ends = (self.model.get_input_embeddings(), self.model.get_output_embeddings())
        ids = {id(end.weight) for end in ends if self.settings.exclude_embeddings}
        names = [name for name, p in self.model.named_parameters() if id(p) in ids]
        return ParameterSet.tensors(self.weights.space, names)

    def evaluator(self, qa: pd.DataFrame) -> Evaluator:
        """Return the evaluator of a table of questions."""
        return qa_evaluator(self.tokenizer, qa, self.max_eval_tokens, self.device)

    def right(self, mask: ParameterSet, evaluator: Evaluator) -> np.ndarray:
        """Return which questions θ(mask) answers correctly; bool, shape (questions,)."""
        self.weights.set(mask)
        return evaluator.answers.right(self.model)

    def unfitted(self, without: ParameterSet) -> Masks:
        """Return the masks that take no fitting, none of `without` in them."""
        masks: Masks = {(1.0, WHOLE): ~without}
        for alpha in self.settings.alphas:
            masks[alpha, MOVEMENT] = self.weights.largest_change(self._size(alpha), without)
        return masks

    def fit(
        self, name: str, alphas: Sequence[float], without: ParameterSet, qa: pd.DataFrame,
        rng: np.random.Generator,
    ) -> list[ParameterSet]:  # fmt: skip
        """Fit a mask of each α, none of `without` in it, to the questions of a table.

        `name` tells this fit from the job's others; `rng` orders the questions.
        """
        optimiser = self.settings.optimiser
        spans = zip(qa["attribute_start"], qa["terminator_end"], strict=True)
        texts = encode(self.tokenizer, list(qa["text"]), [[span] for span in spans])
        questions = Questions(texts, self.max_eval_tokens, self.device, rng)
        sizes = [self._size(alpha) for alpha in alphas]
        total = updates_of(optimiser, len(sizes))
        with (
            self.checkpoint.part(name.replace(" ", "-")) as state,
            progress(total, name, "update") as watch,
        ):
            task = MaskProblem(self.weights, self.model, questions, sizes, without, watch, state)
            if optimiser.method == "dual_averaging":
                masks = dual_averaging(optimiser, task)
            else:
                evaluator = self.evaluator(qa)

                def enough(_: int, mask: ParameterSet) -> bool:
                    return bool(self.right(mask, evaluator).mean() > ENOUGH)

                masks = sigmoid_sgd(optimiser, task, enough)
        return [masks[size] for size in sizes]

    def sweep(self, name: str, without: ParameterSet, *, with_shared: bool) -> Sweep:
        """Fit and evaluate masks of every α, none of `without` in them."""
        settings = self.settings
        everything = ~ParameterSet.empty(self.weights.space)
        whole = float(self.right(everything, self.evaluator(self.fitted)).mean())
        masks = self.unfitted(without)
        fitted = self.fit(name, settings.alphas, without, self.fitted, self.rng("grafting"))
        for alpha, mask in zip(settings.alphas, fitted, strict=True):
            masks[alpha, settings.optimiser.method] = mask
        found = self._answers(masks, with_shared=with_shared)
        return Sweep(masks, found, outcomes(masks, found, whole))

    def _size(self, alpha: float) -> int:
        return max(1, round(alpha * self.weights.space.size))

    def _answers(self, masks: Masks, *, with_shared: bool) -> pd.DataFrame:
        """Evaluate masks on fitted people's questions and, with S, some on held-out people's."""
        parts = []
        for fitted, qa in ((True, self.fitted), (False, self.others)):
            if not len(qa):
                continue
            evaluator = self.evaluator(qa)
            for (alpha, method), mask in masks.items():
                if fitted or (with_shared and method != MOVEMENT):
                    right = self.right(mask, evaluator)
                    labels = {"alpha": alpha, "with_shared": with_shared, "method": method}
                    parts.append(evaluator.rows.assign(correct=right, fitted=fitted, **labels))
        return pd.concat(parts, ignore_index=True)

    def write(self, job: Job, sweep: Sweep, out: Path, examples: Path) -> None:
        """Write the fitted masks of a sweep, named by their α, and its answers."""
        masks = {
            repr(a): mask for (a, method), mask in sweep.masks.items() if method not in UNFITTED
        }
        write_sets(out, masks, {"split": self.split, "provenance": dict(job.provenance)})
        job.write(examples, sweep.answers, PER_MASK)


def open_grafter(
    job: Job, base: Path, tuned: Path, qa: Path, settings: GraftingSettings, max_eval_tokens: int,
    study_seed: int, seed: int, split: str,
) -> Grafter:  # fmt: skip
    """Open a fine-tuned model and the questions of a split."""
    checkpoint = job.checkpoint()
    held = DUAL_AVERAGING if settings.optimiser.method == "dual_averaging" else SIGMOID
    pair = open_pair(base, tuned, job.device, held=held)
    asked = job.read(qa, QA_COLUMNS)
    asked = asked[asked["split"] == split]
    people = fitted_people(asked, settings.fit_individuals, study_seed, split)
    inside = asked["individual"].isin(people)
    return Grafter(
        settings, max_eval_tokens, *pair, asked[inside], asked[~inside], job.device, checkpoint,
        study_seed, seed, split,
    )  # fmt: skip


def qa_evaluator(
    tokenizer: PreTrainedTokenizerBase, qa: pd.DataFrame, max_eval_tokens: int, device: torch.device
) -> Evaluator:
    """Return the evaluator of questions alone."""
    no_bio = pd.DataFrame(columns=list(BIO_COLUMNS))
    return Evaluator.of(tokenizer, no_bio, qa, max_eval_tokens, device)


def fitted_people(
    asked: pd.DataFrame, individuals: int | None, study_seed: int, split: str
) -> np.ndarray:
    """Draw the people whose questions masks are fitted to, in the order they are drawn in.

    `asked` are the questions of one split; `individuals` None, or more than there are, takes all.
    """
    people = np.sort(asked["individual"].unique())
    count = min(len(people), individuals or len(people))
    drawn = generator(study_seed, "grafted people", split).choice(people, count, replace=False)
    return np.asarray(drawn)


def overlap(one: ParameterSet, other: ParameterSet) -> float:
    """Return which share of `one` is in `other`."""
    return len(one & other) / max(1, len(one))


def outcomes(masks: Masks, found: pd.DataFrame, whole: float) -> pd.DataFrame:
    """Condense answers, given θtask's accuracy on the same questions; columns ``RECOVERED``."""
    table = found[found["fitted"]].groupby(list(MASK), sort=False)["correct"].mean().reset_index()
    table = table.rename(columns={"correct": "accuracy"})
    sizes = [len(masks[key]) for key in zip(table["alpha"], table["method"], strict=True)]
    return table.assign(recovery=table["accuracy"] / whole if whole else np.nan, size=sizes)


def smallest(table: pd.DataFrame, least: float) -> pd.Series:
    """Mark the smallest fitted mask that recovers `least`, if one does, in ``RECOVERED``."""
    fitted = ~table["method"].isin(UNFITTED)
    enough = table[fitted & (table["recovery"] >= least)]
    return fitted & (table["alpha"] == enough["alpha"].min())
