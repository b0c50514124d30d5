"""Masks: which few parameters, put to their fine-tuned values, recover the most.

Both optimisers minimise the loss of answers given questions over masks γ, the model being
θpre + γ ⊙ (θtask − θpre). The gradient by γ is that by the weights times what fine-tuning changed,
so that one backward pass scores every parameter. It is taken tensor by tensor as the pass reaches
it, and no gradient outlives its tensor: memory is that of weights, changes and scores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch

from factrecall.answers import Answers
from factrecall.parameters.sets import ParameterSet
from factrecall.parameters.top import top

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from factrecall.config.grafting import DualAveraging, SigmoidSGD
    from factrecall.models.forward import Encoded
    from factrecall.parameters.compose import Composition

PATH_POINTS = 12
"""Points between θpre and θtask at which the gradient is taken to begin with."""

FIRST = 3
"""How many times more updates the first size gets."""

Tensors = dict[str, torch.Tensor]


class Questions:
    """Texts with answers, drawn in batches, each as often as any other.

    Parameters
    ----------
    texts : sequence of Encoded
        Questions with their answers.
    batch_tokens : int
        Largest padded size of one pass.
    device : device
        Of the model.
    rng : Generator
        Orders them.
    """

    def __init__(
        self,
        texts: Sequence[Encoded],
        batch_tokens: int,
        device: torch.device,
        rng: np.random.Generator,
    ) -> None:
        self._texts, self._batch_tokens, self._device, self._rng = texts, batch_tokens, device, rng
        self._order: list[int] = []

    def draw(self, count: int) -> Answers:
        """Return the next `count` questions; the order is new after every pass over all."""
        while len(self._order) < count:
            self._order += self._rng.permutation(len(self._texts)).tolist()
        chosen, self._order = self._order[:count], self._order[count:]
        return Answers.of([self._texts[i] for i in chosen], self._batch_tokens, self._device)


def dual_averaging(
    settings: DualAveraging,
    weights: Composition,
    model: PreTrainedModel,
    questions: Questions,
    sizes: Sequence[int],
    without: ParameterSet,
    watch: Callable[[int], None] = lambda done: None,
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
    weights : Composition
        Of `model`, inside its block.
    model : PreTrainedModel
        In evaluation mode.
    questions : Questions
        What the masks are fitted to.
    sizes : sequence of int
        Numbers of parameters.
    without : ParameterSet
        Parameters that stay at θpre.
    watch : callable
        Called with the number of updates done so far, of `updates_of`.

    Returns
    -------
    dict of int to ParameterSet
        By size; smaller than asked where fewer parameters moved.
    """
    changes = dict(weights.changes(without))
    # What did not move is no candidate, whatever is added to its score.
    scores = {
        name: torch.where(change == 0, -torch.inf, 0.0).to(change)
        for name, change in changes.items()
    }
    done = 0

    def add(scale: float) -> None:
        nonlocal done
        with gradients(model, lambda n, g: scores[n].addcmul_(g, changes[n], value=-scale)):
            questions.draw(settings.batch_size).descend(model)
        done += 1
        watch(done)

    for point in range(PATH_POINTS):
        share = (point + 0.5) / PATH_POINTS
        for name, change in changes.items():
            weights.put(name, torch.add(weights.pre[name], change, alpha=share))
        add(1 / PATH_POINTS)
    masks: dict[int, ParameterSet] = {}
    for size in sorted(sizes, reverse=True):
        for _ in range(settings.updates * (1 if masks else FIRST)):
            weights.hold(_largest(weights, scores, size))
            add(settings.step)
        masks[size] = _largest(weights, scores, size)
    return masks


def updates_of(settings: DualAveraging, sizes: int) -> int:
    """Return how many batches `dual_averaging` takes for so many sizes."""
    return PATH_POINTS + settings.updates * (sizes + FIRST - 1)


def _largest(weights: Composition, scores: Tensors, size: int) -> ParameterSet:
    space = weights.space
    index, value = top(lambda: (scores[n] for n in space.names), size, space.index_dtype)
    return ParameterSet(space, index[value > -np.inf])


def sigmoid_sgd(
    settings: SigmoidSGD,
    weights: Composition,
    model: PreTrainedModel,
    questions: Questions,
    size: int,
    without: ParameterSet,
) -> Iterator[tuple[int, ParameterSet]]:
    """Fit a mask as the paper does: gradient descent on the logits B of a relaxed mask.

    γ = γbase (1 − σ(B)) + (1 − γbase) σ(B), with γbase the parameters that moved most
    (equation 6). Whoever iterates decides when to stop; after more than half as many again as
    `size` parameters are in the mask it ends by itself (appendix A.5.1).

    Parameters
    ----------
    settings, weights, model, questions, without
        As in `dual_averaging`.
    size : int
        Of γbase.

    Yields
    ------
    update : int
        How many were made; from 0.
    mask : ParameterSet
        γ rounded at one half.
    """
    changes = dict(weights.changes(without))
    chosen = weights.most_moved(size, without)
    based = {name: torch.zeros_like(c, dtype=torch.bool) for name, c in changes.items()}
    for name, local in chosen.by_tensor():
        based[name].view(-1)[torch.from_numpy(local.astype(np.int64))] = True
    start = float(np.log(settings.initial / (1 - settings.initial)))
    logits = {name: torch.full_like(change, start) for name, change in changes.items()}

    slopes: Tensors = {}

    def descend(name: str, gradient: torch.Tensor) -> None:
        logits[name] -= settings.learning_rate * gradient * changes[name] * slopes[name]

    def rounded() -> ParameterSet:
        inside = ((logits[n] > 0) ^ based[n] for n in weights.space.names)
        index = np.concatenate(
            [
                part.view(-1).nonzero().squeeze(1).cpu().numpy() + start
                for part, (_, start) in zip(inside, weights.space.offsets(), strict=True)
            ]
        )
        return ParameterSet(weights.space, index.astype(weights.space.index_dtype)) - without

    for update in range(settings.updates + 1):
        if update % settings.check == 0 or update == settings.updates:
            mask = rounded()
            yield update, mask
            if len(mask) > 1.5 * size:
                return
        if update == settings.updates:
            return
        for name, change in changes.items():
            share = logits[name].sigmoid()
            mask_now = torch.where(based[name], 1 - share, share)
            # Kept from before the step: its gradient may come in several passes.
            slopes[name] = share * (1 - share) * torch.where(based[name], -1.0, 1.0)
            weights.put(name, torch.addcmul(weights.pre[name], mask_now, change))
        with gradients(model, descend):
            questions.draw(settings.batch_size).descend(model)


@contextmanager
def gradients(
    model: PreTrainedModel, take: Callable[[str, torch.Tensor], object]
) -> Iterator[None]:
    """Let every parameter's gradient be taken, and freed, as soon as it is there."""

    def hook(name: str) -> Callable[[torch.Tensor], None]:
        def taken(parameter: torch.Tensor) -> None:
            with torch.no_grad():
                assert parameter.grad is not None
                take(name, parameter.grad)
            parameter.grad = None

        return taken

    handles = [
        parameter.register_post_accumulate_grad_hook(hook(name))
        for name, parameter in model.named_parameters()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        model.zero_grad(set_to_none=True)
