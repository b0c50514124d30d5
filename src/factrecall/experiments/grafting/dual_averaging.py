"""Masks: which few parameters, put to their fine-tuned values, recover the most.

Both optimisers (the other is in `sigmoid`) minimise the loss of answers given questions over masks
γ, the model being θpre + γ ⊙ (θtask − θpre). The gradient by γ is that by the weights times what
fine-tuning changed, so that one backward pass scores every parameter. It is taken tensor by tensor
as the pass reaches it, and no gradient outlives its tensor: memory is that of weights, changes and
scores, or of the live weights and scores alone where a device has no room for more (`placement`).
All that an update depends on is a `Fit` and how many questions were drawn, so a fit that was
interrupted ends with the bytes of one that was not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

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
    """Texts with answers, drawn in batches, each as often as any other.

    Parameters
    ----------
    texts : sequence of Encoded
        Questions with their answers.
    max_eval_tokens : int
        Largest padded size of one pass.
    device : device
        Of the model.
    rng : Generator
        Orders them.

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
        self._texts, self._batch_tokens, self._device, self._rng = (
            texts,
            max_eval_tokens,
            device,
            rng,
        )
        self._order: list[int] = []
        self.drawn = 0

    def draw(self, count: int) -> Answers:
        """Return the next `count` questions; the order is new after every pass over all."""
        chosen = [self._texts[i] for i in self._next(count)]
        return Answers.of(chosen, self._batch_tokens, self._device)

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
    """How far the fitting of masks of several sizes is.

    Attributes
    ----------
    values : dict of str to tensor
        What is descended on, scores or logits, by tensor.
    masks : list of ParameterSet
        Those fitted, in the order of their fitting.
    updates : int
        How many were made.
    """

    values: Tensors
    masks: list[ParameterSet] = field(default_factory=list)
    updates: int = 0

    @classmethod
    def restored(
        cls, checkpoint: Checkpoint | None, questions: Questions, weights: PatchedWeights
    ) -> Self | None:
        """Take up a saved fit, if there is one; `questions` go on where it was."""
        state = checkpoint.restore() if checkpoint is not None else None
        if state is None:
            return None
        tensors, said = state
        questions.skip(said["drawn"])
        values = {
            name: tensors[f"value/{name}"].to(weights.device)
            for name in weights.space.names
            if f"value/{name}" in tensors
        }
        indices = [tensors[f"mask/{i}"].numpy() for i in range(said["masks"])]
        masks = [ParameterSet(weights.space, index) for index in indices]
        return cls(values, masks, said["updates"])

    def save(self, checkpoint: Checkpoint | None, questions: Questions, *, last: bool) -> None:
        """Save the fit if that is due; at its end always, and then the masks alone."""
        if checkpoint is None or not checkpoint.due(last=last):
            return
        tensors = {f"mask/{i}": torch.from_numpy(m.index) for i, m in enumerate(self.masks)}
        if not last:
            tensors |= {f"value/{name}": value for name, value in self.values.items()}
        said = {"updates": self.updates, "masks": len(self.masks), "drawn": questions.drawn}
        checkpoint.save(tensors, said)


def dual_averaging(
    settings: DualAveraging,
    weights: PatchedWeights,
    model: PreTrainedModel,
    questions: Questions,
    sizes: Sequence[int],
    without: ParameterSet,
    watch: Callable[[int], None] = lambda done: None,
    checkpoint: Checkpoint | None = None,
) -> dict[int, ParameterSet]:
    """Fit masks of several sizes by lazy projected gradient descent on the mask.

    A score begins with the gradient integrated from θpre to θtask, which tells the whole change
    of the loss apart by parameter; each update adds the gradient at the present mask, and the
    mask is the top of the scores. Sizes are fitted from the largest down, each from the scores
    that the one before ended with (Nesterov's dual averaging with the mask's size as constraint).

    Parameters
    ----------
    settings : DualAveraging
        Updates, batch size and step.
    weights : PatchedWeights
        Of `model`, inside its block.
    model : PreTrainedModel
        In evaluation mode.
    questions : Questions
        What the masks are fitted to; none drawn yet.
    sizes : sequence of int
        Numbers of parameters.
    without : ParameterSet
        Parameters that stay at θpre.
    watch : callable
        Called with the number of updates done so far, of `updates_of`.
    checkpoint : Checkpoint, optional
        Where the fit is saved and taken up again.

    Returns
    -------
    dict of int to ParameterSet
        By size; smaller than asked where fewer parameters moved.
    """
    changes = weights.changed(without)
    descending = sorted(sizes, reverse=True)
    total = updates_of(settings, len(descending))
    # What did not move is no candidate, whatever is added to its score.
    fit = Fit.restored(checkpoint, questions, weights) or Fit(
        {name: torch.where(c == 0, -torch.inf, 0.0).to(c) for name, c in changes.items()}
    )
    scores = fit.values

    parameters = dict(model.named_parameters())

    def add(scale: float) -> None:
        with gradients(parameters, lambda n, g: scores[n].addcmul_(g, changes[n], value=-scale)):
            questions.draw(settings.batch_size).descend(model)

    watch(fit.updates)
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
        watch(fit.updates)
        fit.save(checkpoint, questions, last=fit.updates == total)
    return dict(zip(descending, fit.masks, strict=True))


def _largest(weights: PatchedWeights, scores: Tensors, size: int) -> ParameterSet:
    space = weights.space
    index, value = top_k(lambda: (scores[n] for n in space.names), size, space.index_dtype)
    return ParameterSet(space, index[value > -np.inf])
