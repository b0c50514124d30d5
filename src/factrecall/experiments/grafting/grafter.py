"""Grafting: how few fine-tuned parameters carry recall, and how many of them are shared.

θ(γ) holds θtask on the mask γ and θpre elsewhere (paper, section 3.2 and appendix A.5; method,
section 7). Masks are fitted to gold answers to some people's questions and evaluated on these, as
in the paper, and on those of held-out people, which the paper does not do: a mask may memorise
answers. Beside these are masks fitted to θtask's own answers to everybody else's questions.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from factrecall.data.files import BIO_COLUMNS, QA_COLUMNS
from factrecall.evaluation.batching import Answers
from factrecall.evaluation.exact_match import Evaluator
from factrecall.experiments.common.model_pair import open_pair
from factrecall.experiments.grafting.dual_averaging import MaskProblem, Questions, dual_averaging
from factrecall.experiments.grafting.mask_choice import (
    MOVEMENT,
    UNFITTED,
    WHOLE,
    mask_name,
    smallest,
)
from factrecall.experiments.grafting.own_answers import own_answers
from factrecall.experiments.grafting.people import GraftedPeople
from factrecall.experiments.grafting.schedule import updates_of
from factrecall.experiments.grafting.sigmoid_sgd import sigmoid_sgd
from factrecall.experiments.grafting.tables import MASK, PER_MASK, RECOVERED
from factrecall.models.forward import encode
from factrecall.parameters.placement import DUAL_AVERAGING, SIGMOID
from factrecall.parameters.sets import ParameterSet, write_sets
from factrecall.runtime.progress import progress
from factrecall.runtime.seeds import generator

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from factrecall.experiments.grafting.settings import GraftingSettings, Objective
    from factrecall.models.forward import Encoded
    from factrecall.parameters.patched_weights import PatchedWeights
    from factrecall.runtime.checkpoint import Checkpoint
    from factrecall.runtime.job import Job

ENOUGH = 0.97
"""The accuracy at which the paper's optimiser stops."""

Masks = dict[tuple[float, str, str], ParameterSet]
"""By α, method and objective."""


class Sweep(NamedTuple):
    """The masks that were evaluated, their answers (`PER_MASK`) and outcomes (`RECOVERED`)."""

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
    people : GraftedPeople
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
    people: GraftedPeople
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
        masks: Masks = {(1.0, WHOLE, ""): ~without}
        for alpha in self.settings.alphas:
            masks[alpha, MOVEMENT, ""] = self.weights.largest_change(self._size(alpha), without)
        return masks

    def gold(self, qa: pd.DataFrame) -> list[Encoded]:
        """Tokenise questions with their gold answers."""
        spans = zip(qa["attribute_start"], qa["terminator_end"], strict=True)
        return encode(self.tokenizer, list(qa["text"]), [[span] for span in spans])

    def texts(self, objective: Objective) -> list[Encoded]:
        """Return the texts to whose answers masks of an objective are fitted."""
        if objective == "gold":
            return self.gold(self.people.fitted)
        self.weights.set(~ParameterSet.empty(self.weights.space))
        return own_answers(self.model, self.gold(self.people.distilled), self.max_eval_tokens)

    def fit(
        self, name: str, alphas: Sequence[float], without: ParameterSet, texts: Sequence[Encoded],
        rng: np.random.Generator,
    ) -> list[ParameterSet]:  # fmt: skip
        """Fit a mask of each α, none of `without` in it, to the answers of texts.

        `name` tells this fit from the job's others; `rng` orders the questions.
        """
        optimiser = self.settings.optimiser
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
                answers = Answers.of(texts, self.max_eval_tokens, self.device)

                def enough(_: int, mask: ParameterSet) -> bool:
                    self.weights.set(mask)
                    return bool(answers.right(self.model).mean() > ENOUGH)

                masks = sigmoid_sgd(optimiser, task, enough)
        return [masks[size] for size in sizes]

    def sweep(
        self, name: str, without: ParameterSet, objectives: Sequence[Objective], *,
        with_shared: bool, also: Collection[float] = (),
    ) -> Sweep:  # fmt: skip
        """Fit masks of every α, none of `without` in them, and evaluate some.

        Evaluated are those of the configured `alphas` and of `also`; with S then those between the
        chosen one and the next smaller of them.
        """
        settings, method = self.settings, self.settings.optimiser.method
        sizes, asked = settings.sizes(), {*settings.alphas, *also}
        fits: Masks = {}
        for objective in objectives:
            own = "" if objective == "gold" else f" {objective}"
            texts, rng = self.texts(objective), self.rng(f"grafting{own}")
            found = self.fit(f"{name}{own}", sizes, without, texts, rng)
            fits |= {(a, method, objective): m for a, m in zip(sizes, found, strict=True)}
        masks = {**self.unfitted(without), **{k: m for k, m in fits.items() if k[0] in asked}}
        answers = self._answers(masks, with_shared=with_shared)
        everything = ~ParameterSet.empty(self.weights.space)
        whole = [
            float(self.right(everything, self.evaluator(qa)).mean()) if len(qa) else np.nan
            for qa in self.people[:2]
        ]
        table = outcomes(masks, answers, *whole)
        if with_shared:
            between: Masks = {}
            for objective, alpha in table[smallest(table, settings.target_recovery)][
                ["objective", "alpha"]
            ].itertuples(index=False):
                least = max((a for a in asked if a < alpha), default=alpha)
                finer = [(a, method, objective) for a in sizes if least < a < alpha]
                between |= {key: fits[key] for key in finer}
            if between:
                more = self._answers(between, with_shared=True)
                masks, answers = masks | between, pd.concat([answers, more], ignore_index=True)
                table = outcomes(masks, answers, *whole)
        return Sweep(masks, answers, table)

    def _size(self, alpha: float) -> int:
        return max(1, round(alpha * self.weights.space.size))

    def _answers(self, masks: Masks, *, with_shared: bool) -> pd.DataFrame:
        """Evaluate masks on fitted people's questions and, with S, some on held-out people's."""
        parts = []
        for fitted, qa in ((True, self.people.fitted), (False, self.people.held_out)):
            if not len(qa):
                continue
            evaluator = self.evaluator(qa)
            for (alpha, method, objective), mask in masks.items():
                if fitted or (with_shared and method != MOVEMENT):
                    right = self.right(mask, evaluator)
                    labels = {"alpha": alpha, "with_shared": with_shared, "method": method}
                    labels |= {"objective": objective, "fitted": fitted}
                    parts.append(evaluator.rows.assign(correct=right, **labels))
        return pd.concat(parts, ignore_index=True)

    def write(self, job: Job, sweep: Sweep, out: Path, examples: Path) -> None:
        """Write the fitted masks of a sweep, named by objective and α, and its answers."""
        masks = {
            mask_name(objective, alpha): mask
            for (alpha, method, objective), mask in sweep.masks.items()
            if method not in UNFITTED
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
    people = GraftedPeople.of(job.read(qa, QA_COLUMNS), settings, study_seed, split)
    return Grafter(
        settings, max_eval_tokens, *pair, people, job.device, checkpoint, study_seed, seed, split
    )


def qa_evaluator(
    tokenizer: PreTrainedTokenizerBase, qa: pd.DataFrame, max_eval_tokens: int, device: torch.device
) -> Evaluator:
    """Return the evaluator of questions alone."""
    no_bio = pd.DataFrame(columns=list(BIO_COLUMNS))
    return Evaluator.of(tokenizer, no_bio, qa, max_eval_tokens, device)


def overlap(one: ParameterSet, other: ParameterSet) -> float:
    """Return which share of `one` is in `other`."""
    return len(one & other) / max(1, len(one))


def outcomes(
    masks: Masks, found: pd.DataFrame, whole: float, whole_held_out: float = np.nan
) -> pd.DataFrame:
    """Condense answers, given θtask's accuracies on the same questions; columns ``RECOVERED``.

    Rows are in the order of methods, objectives and α.
    """
    means = found.groupby([*MASK, "fitted"], sort=False)["correct"].mean().unstack("fitted")
    means = means.reindex(columns=[True, False]).reset_index()
    sizes = [
        len(masks[key])
        for key in zip(means["alpha"], means["method"], means["objective"], strict=True)
    ]
    table = means[list(MASK)].assign(
        accuracy=means[True],
        recovery=means[True] / whole if whole else np.nan,
        held_out_recovery=means[False] / whole_held_out if whole_held_out else np.nan,
        size=sizes,
    )
    kinds = {kind: n for n, kind in enumerate(dict.fromkeys((m, o) for _, m, o in masks))}
    order = [kinds[key] for key in zip(table["method"], table["objective"], strict=True)]
    return table.assign(order=order).sort_values(["order", "alpha"], ignore_index=True)[
        list(RECOVERED)
    ]
