"""The paper's way to fit a mask: descent on the logits of a relaxed mask (equation 6)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch

from factrecall.experiments.grafting.dual_averaging import Fit, MaskProblem, Tensors
from factrecall.parameters.sets import ParameterSet

if TYPE_CHECKING:
    from factrecall.experiments.grafting.settings import SigmoidSGD
    from factrecall.parameters.patched_weights import PatchedWeights


def sigmoid_sgd(
    settings: SigmoidSGD, problem: MaskProblem, enough: Callable[[int, ParameterSet], bool]
) -> dict[int, ParameterSet]:
    """Fit masks as the paper does, each by itself: descent on the logits B of a relaxed mask.

    γ = γbase (1 − σ(B)) + (1 − γbase) σ(B), with γbase the parameters that moved most
    (equation 6). The descent ends when the mask is good enough, or after more than half as many
    again as γbase are in it (appendix A.5.1); a size that ends early counts as whole.

    `enough` is called at every check with the updates made at this size, from 0, and γ rounded at
    one half; it returns whether that mask will do.

    Returns
    -------
    dict of int to ParameterSet
        By size of γbase: γ rounded at one half, as it was last checked.
    """
    weights, sizes, watch = problem.weights, problem.sizes, problem.watch
    changes = weights.changed(problem.without)
    start = float(np.log(settings.initial / (1 - settings.initial)))
    fit = problem.restored() or Fit({})
    slopes: Tensors = {}

    def descend(name: str, gradient: torch.Tensor) -> None:
        fit.values[name] -= settings.learning_rate * gradient * changes[name] * slopes[name]

    def done() -> int:
        return settings.updates * len(fit.masks) + fit.updates

    watch(done())
    while len(fit.masks) < len(sizes):
        size = sizes[len(fit.masks)]
        based = _inside(weights, weights.largest_change(size, problem.without))
        if not fit.updates:
            fit.values = {name: torch.full_like(c, start) for name, c in changes.items()}
        while True:
            if fit.updates % settings.check == 0 or fit.updates == settings.updates:
                mask = _rounded(weights, fit.values, based) - problem.without
                ends = fit.updates == settings.updates or len(mask) > 1.5 * size
                if enough(fit.updates, mask) or ends:
                    break
            for name, change in changes.items():
                share = fit.values[name].sigmoid()
                relaxed = torch.where(based[name], 1 - share, share)
                # Kept from before the step: its gradient may come in several passes.
                slopes[name] = share * (1 - share) * torch.where(based[name], -1.0, 1.0)
                weights.write_tensor(name, torch.addcmul(weights.pre[name], relaxed, change))
            problem.descend(settings.batch_size, descend)
            fit.updates += 1
            watch(done())
            problem.save(fit, last=False)
        fit = Fit({}, [*fit.masks, mask])
        watch(done())
        problem.save(fit, last=len(fit.masks) == len(sizes))
    return dict(zip(sizes, fit.masks, strict=True))


def _inside(weights: PatchedWeights, mask: ParameterSet) -> Tensors:
    """Return a mask as booleans, by tensor."""
    found = {}
    for name, local in mask.by_tensor():
        index = torch.from_numpy(local.astype(np.int64)).to(weights.device)
        shape = mask.space.shape_of[name]
        found[name] = torch.zeros(shape, dtype=torch.bool, device=weights.device)
        found[name].view(-1)[index] = True
    return found


def _rounded(weights: PatchedWeights, logits: Tensors, based: Tensors) -> ParameterSet:
    """Return γ rounded at one half."""
    space = weights.space
    inside = ((logits[name] > 0) ^ based[name] for name in space.names)
    index = np.concatenate(
        [
            part.view(-1).nonzero().squeeze(1).cpu().numpy() + start
            for part, (_, start) in zip(inside, space.offsets(), strict=True)
        ]
    )
    return ParameterSet(space, index.astype(space.index_dtype))
