"""Masks of few parameters whose fine-tuned values recover most: problem, state and dual averaging.

Both optimisers (the other is `sigmoid_sgd`) minimise the loss of answers given questions over masks
γ of the model θpre + γ ⊙ (θtask − θpre). The gradient by γ is that by the weights times what
fine-tuning changed, so that one backward pass scores every parameter. It is taken tensor by tensor
and not kept (memory: see `parameters.placement`). An update depends only on a `Fit` and how many
questions were drawn, so an interrupted fit ends with the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from factrecall.evaluation.batching import Answers
from factrecall.experiments.grafting.schedule import PATH_POINTS, updates_of
from factrecall.models.backward import gradients
from factrecall.parameters.sets import ParameterSet
from factrecall.parameters.streaming_topk import top_k

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from factrecall.experiments.grafting.settings import DualAveraging
    from factrecall.models.forward import Encoded
    from factrecall.parameters.patched_weights import PatchedWeights
    from factrecall.runtime.checkpoint import Checkpoint

Tensors = dict[str, torch.Tensor]


class Questions:
    """Texts with answers, drawn in batches by `rng`, each as often as any other.

    Attributes
    ----------
    drawn : int
        How many were drawn so far.
    """

    def __init__(
        self,
        texts: Sequence[Encoded],
        max_eval_tokens: int,
        device: torch.device,
        rng: np.random.Generator,
    ) -> None:
        self._texts, self._rng = texts, rng
        self._batching = max_eval_tokens, device
        self._order: list[int] = []
        self.drawn = 0

    def draw(self, count: int) -> Answers:
        """Return the next `count` questions; the order is new after every pass over all."""
        chosen = [self._texts[i] for i in self._next(count)]
        return Answers.of(chosen, *self._batching)

    def skip(self, count: int) -> None:
        """Pass over the next `count` questions; the orders are drawn, and nothing else is done."""
        self._next(count)

    def _next(self, count: int) -> list[int]:
        while len(self._order) < count:
            self._order += self._rng.permutation(len(self._texts)).tolist()
        chosen, self._order = self._order[:count], self._order[count:]
        self.drawn += count
        return chosen


@dataclass
class Fit:
    """State of a fit: scores or logits by tensor, masks fitted so far, and updates made."""

    values: Tensors
    masks: list[ParameterSet] = field(default_factory=list)
    updates: int = 0


@dataclass(frozen=True)
class MaskProblem:
    """Masks to fit, and what they are fitted to.

    Attributes
    ----------
    weights : PatchedWeights
        Of `model`, inside its block.
    model : PreTrainedModel
        In evaluation mode.
    questions : Questions
        None drawn yet.
    sizes : sequence of int
        Numbers of parameters.
    without : ParameterSet
        Parameters that stay at θpre.
    watch : callable
        Called with the number of updates done so far.
    checkpoint : Checkpoint, optional
        Where the fit is saved and resumed.
    """

    weights: PatchedWeights
    model: PreTrainedModel
    questions: Questions
    sizes: Sequence[int]
    without: ParameterSet
    watch: Callable[[int], None] = lambda done: None
    checkpoint: Checkpoint | None = None

    def descend(self, batch_size: int, take: Callable[[str, torch.Tensor], object]) -> None:
        """Take the gradients of the next questions' loss, tensor by tensor."""
        with gradients(dict(self.model.named_parameters()), take):
            self.questions.draw(batch_size).descend(self.model)

    def restored(self) -> Fit | None:
        """Return a saved fit, if there is one; `questions` go on where it was."""
        state = self.checkpoint.restore() if self.checkpoint is not None else None
        if state is None:
            return None
        tensors, said = state
        self.questions.skip(said["drawn"])
        stored = ((name, f"value/{name}") for name in self.weights.space.names)
        values = {n: tensors[key].to(self.weights.device) for n, key in stored if key in tensors}
        indices = (tensors[f"mask/{i}"].numpy() for i in range(said["masks"]))
        masks = [ParameterSet(self.weights.space, index) for index in indices]
        return Fit(values, masks, said["updates"])

    def save(self, fit: Fit, *, last: bool) -> None:
        """Save a fit if that is due; at its end always, and then the masks alone."""
        if self.checkpoint is None or not self.checkpoint.due(last=last):
            return
        tensors = {f"mask/{i}": torch.from_numpy(m.index) for i, m in enumerate(fit.masks)}
        if not last:
            tensors |= {f"value/{name}": value for name, value in fit.values.items()}
        said = {"updates": fit.updates, "masks": len(fit.masks), "drawn": self.questions.drawn}
        self.checkpoint.save(tensors, said)


def dual_averaging(settings: DualAveraging, problem: MaskProblem) -> dict[int, ParameterSet]:
    """Fit masks of several sizes by lazy projected gradient descent on the mask.

    A score begins with the gradient integrated from θpre to θtask, which attributes the change of
    the loss to parameters. Each update adds the gradient at the present mask, which is the top of
    the scores. Sizes are fitted from the largest down, each from the scores that the one before
    ended with (Nesterov's dual averaging with the mask's size as constraint).

    Returns
    -------
    dict of int to ParameterSet
        By size; smaller than wanted where fewer parameters moved.
    """
    weights = problem.weights
    changes = weights.changed(problem.without)
    descending = sorted(problem.sizes, reverse=True)
    total = updates_of(settings, len(descending))
    # What did not move is no candidate, whatever is added to its score.
    fit = problem.restored() or Fit(
        {name: torch.where(c == 0, -torch.inf, 0.0).to(c) for name, c in changes.items()}
    )
    scores = fit.values

    def add(scale: float) -> None:
        def take(name: str, gradient: torch.Tensor) -> None:
            scores[name].addcmul_(gradient, changes[name], value=-scale)

        problem.descend(settings.batch_size, take)

    problem.watch(fit.updates)
    while fit.updates < total:
        if fit.updates < PATH_POINTS:
            share = (fit.updates + 0.5) / PATH_POINTS
            for name, change in changes.items():
                weights.write_tensor(name, torch.add(weights.pre[name], change, alpha=share))
            add(1 / PATH_POINTS)
        else:
            weights.set(_largest(weights, scores, descending[len(fit.masks)]))
            add(settings.step)
        fit.updates += 1
        if fit.updates == updates_of(settings, len(fit.masks) + 1):
            fit.masks.append(_largest(weights, scores, descending[len(fit.masks)]))
        problem.watch(fit.updates)
        problem.save(fit, last=fit.updates == total)
    return dict(zip(descending, fit.masks, strict=True))


def _largest(weights: PatchedWeights, scores: Tensors, size: int) -> ParameterSet:
    space = weights.space
    index, value = top_k(lambda: (scores[n] for n in space.names), size, space.index_dtype)
    return ParameterSet(space, index[value > -np.inf])
