"""Multinomial logistic regressions of many problems at once, with the same rows and labels.

Each problem minimises the mean cross-entropy plus half its penalty times the squared norm of its
weights, without the intercept's. All descend together by conjugate gradients (Polak and Ribière).
Three things make this fast:

- Features are principal coordinates, in which the Hessian at the classes' shares is nearly
  diagonal: π(1-π)·variance + penalty for a class of share π, tighter than Böhning's bound
  ½·variance + penalty (1992). It is the preconditioner, with the mean of π(1-π) over all rows.
- Logits are linear in the weights, so that a line search needs no matrix product.
- The fit with a weaker penalty starts from the weights with a stronger one, in the direction of the
  last change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch

from factrecall.experiments.representations.limits import NUMBERS

TOLERANCE = 1e-6
"""A fit ends when the loss can fall by about half of this, in nats, as the preconditioner predicts.

The accuracy of a fit is then within a few tenths of a point of that of exact weights, also where
the penalty is weakest. A bound on the gradient would not do for all penalties: the weaker the
penalty, the flatter the loss.
"""

VALIDATED = 1e-5
"""The same for fits that only choose a penalty."""

AFRESH = (0, 1, 8)
"""Steps at which the preconditioner is updated and the directions start anew."""

STEPS = 1000
"""A fit ends after so many steps at the latest."""

SLOPE = 0.5
"""Share of the slope that a line search may leave."""

SEARCHES = 20
"""Points that a line search may try."""


@dataclass(frozen=True)
class PrincipalAxes:
    """Standardised principal axes of features, (problems, width, the smaller of rows and width).

    They are orthonormal, so that the squared norm of weights is the same in both coordinates. Mean
    and scale, (problems, 1, width), are of the rows that the axes are found from; a constant
    feature has scale 1.
    """

    mean: torch.Tensor
    scale: torch.Tensor
    axes: torch.Tensor

    @classmethod
    def of(cls, features: torch.Tensor) -> Self:
        """Find the axes of features of shape (problems, rows, width)."""
        mean = features.mean(1, keepdim=True)
        scale = features.std(1, unbiased=False, keepdim=True)
        # A constant may differ from its own mean in the last bit.
        scale = torch.where(scale > 1e-6 * mean.abs(), scale, torch.ones_like(scale))
        axes, x = None, (features - mean) / scale
        if x.shape[1] < x.shape[2]:
            # The best weights lie in the span of the rows.
            axes = torch.linalg.qr(x.mT).Q
            x = x @ axes
        turned = torch.linalg.eigh(x.mT @ x).eigenvectors
        return cls(mean, scale, turned if axes is None else axes @ turned)

    def __call__(self, features: torch.Tensor) -> torch.Tensor:
        """Return coordinates of features, with a one for the intercept."""
        turned = ((features - self.mean) / self.scale) @ self.axes
        return torch.cat([turned, torch.ones_like(turned[..., :1])], -1)


def fit(
    x: torch.Tensor,
    y: torch.Tensor,
    penalties: torch.Tensor,
    start: torch.Tensor | None = None,
    tolerance: float = TOLERANCE,
    first: torch.Tensor | None = None,
) -> torch.Tensor:
    """Fit logistic regressions of the same labels on different features.

    Parameters
    ----------
    x : tensor, shape (problems, rows, features)
        See `PrincipalAxes`; other coordinates take longer. The last is the intercept's.
    y : int64 tensor, shape (rows,)
        Classes, counted from 0; each occurs.
    penalties : tensor, shape (problems,)
        Above 0.
    start, first : tensor, optional
        Weights to begin with, else those of the classes' shares; and the first direction, else the
        preconditioned gradient, downwards.
    tolerance : float
        See ``TOLERANCE``.

    Returns
    -------
    tensor, shape (problems, features, classes)
        The weights.
    """
    rows, each = len(y), torch.arange(len(y), device=y.device)
    share = torch.bincount(y).to(x.dtype) / rows
    penalty = penalties.to(x.dtype)[:, None, None].repeat(1, x.shape[2], 1)
    penalty[:, -1] = 0

    def gradient(likely: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        wrong = likely / rows
        wrong[:, each, y] -= 1 / rows
        return torch.addcmul(x.mT @ wrong, penalty, weights)

    weights = _guess(x, share) if start is None else start
    logits = x @ weights
    likely = logits.softmax(-1)
    variance = x.square().mean(1)[..., None]
    direction = last = torch.zeros_like(weights)
    for step in range(STEPS):
        slope = gradient(likely, weights)
        if step in AFRESH:
            doubt = (likely.sum(1) - likely.square().sum(1)) / rows
            hessian = variance * doubt[:, None].clamp(min=1e-6) + penalty
            last_size = x.new_zeros(len(x))
        steepest = slope / hessian
        size = _dot(steepest, slope)
        running = size > tolerance
        if not running.any():
            break
        kept = ((size - _dot(steepest, last)) / last_size).clamp(min=0)
        kept = torch.where(last_size > 0, kept, 0)
        direction = kept[:, None, None] * direction - steepest
        if step == 0 and first is not None:
            direction = first
        uphill = _dot(direction, slope) >= 0
        direction = torch.where(uphill[:, None, None], -steepest, direction)
        last, last_size = slope, size
        change = x @ direction
        ridge = _dot(penalty * direction, direction)
        gain = _dot(penalty * direction, weights) - change[:, each, y].sum(1) / rows
        line = _Line(logits, change, gain, ridge)
        length, logits, likely = line.search(likely, running)
        weights = torch.addcmul(weights, length[:, None, None], direction)
    return weights


@dataclass(frozen=True)
class _Line:
    """The loss along a line, from logits alone.

    The line begins at `logits`; a step of length 1 adds `change`, both (problems, rows, classes).
    The right logits and the penalty add `gain` + length × `ridge` to the slope, each (problems,).
    """

    logits: torch.Tensor
    change: torch.Tensor
    gain: torch.Tensor
    ridge: torch.Tensor

    def search(
        self, likely: torch.Tensor, running: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Find a length where the slope is small, by Newton's method between safe bounds.

        The probabilities at the beginning are `likely`. Problems that are not `running` stay the
        same to the bit. Returns the length, and the logits and probabilities there.
        """
        low = length = torch.zeros_like(self.gain)
        high = torch.full_like(low, torch.inf)
        slope, curvature = self._derivatives(likely, length)
        small = SLOPE * slope.abs()
        for _ in range(SEARCHES):
            step = length - slope / curvature
            inside = torch.where(high.isinf(), 2 * low, (low + high) / 2)
            step = torch.where((step > low) & (step < high), step, inside)
            length = torch.where(running, step, 0)
            logits = torch.addcmul(self.logits, length[:, None, None], self.change)
            likely = logits.softmax(-1)
            slope, curvature = self._derivatives(likely, length)
            if (~running | (slope.abs() <= small)).all():
                break
            low, high = torch.where(slope < 0, length, low), torch.where(slope > 0, length, high)
        return length, logits, likely

    def _derivatives(
        self, likely: torch.Tensor, length: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        weighted = likely * self.change
        mean = weighted.sum(-1)
        square = _dot(weighted, self.change) / mean.shape[1]
        slope = self.gain + length * self.ridge + mean.mean(1)
        return slope, (square - mean.square().mean(1)).clamp(min=0) + self.ridge


def _dot(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return each problem's inner product."""
    product: torch.Tensor = a.flatten(1)[:, None] @ b.flatten(1)[..., None]
    return product[:, 0, 0]


def _guess(x: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """Return the weights that predict the classes' shares."""
    weights = x.new_zeros(len(x), x.shape[2], len(share))
    weights[:, -1] = share.log()
    return weights


def fit_chosen(
    x: torch.Tensor, y: torch.Tensor, penalties: Sequence[float], validation: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Choose each problem's penalty on validation rows, then fit it to all rows.

    A penalty is judged by accuracy on the validation rows when fitted to the others; of equally
    good ones the strongest is taken. So it is if none or all of the rows are for validation.

    Parameters
    ----------
    x, y
        As for `fit`.
    penalties : sequence of float
        In rising order.
    validation : bool tensor, shape (rows,)

    Returns
    -------
    weights : tensor, shape (problems, features, classes)
    chosen : float64 tensor, shape (problems,)
    """
    together = max(1, NUMBERS[x.device.type] // (len(y) * max(x.shape[2], int(y.max()) + 1)))
    parts = [_chosen(part, y, penalties, validation) for part in x.split(together)]
    weights, chosen = (torch.cat(found) for found in zip(*parts, strict=True))
    return weights, chosen


def _chosen(
    x: torch.Tensor, y: torch.Tensor, penalties: Sequence[float], validation: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Do the work of `fit_chosen` with all problems together."""
    chosen = x.new_full((len(x),), penalties[-1], dtype=torch.float64)
    if len(penalties) == 1 or validation.all() or not validation.any():
        return fit(x, y, chosen), chosen
    # Classes without a row to fit to cannot be predicted.
    known, within = y[~validation].unique(return_inverse=True)
    rows, tested, truth = x[:, ~validation], x[:, validation], y[validation]
    best = x.new_full((len(x),), -1)
    weights: torch.Tensor | None = None
    moved: torch.Tensor | None = None
    kept = x.new_empty(0)
    for penalty in reversed(penalties):
        # From one penalty to the next, weights move in much the same direction.
        before, strength = weights, x.new_full((len(x),), penalty)
        weights = fit(rows, within, strength, before, VALIDATED, moved)
        moved = None if before is None else weights - before
        accuracy = (known[(tested @ weights).argmax(-1)] == truth).to(x.dtype).mean(1)
        better = accuracy > best
        best = torch.where(better, accuracy, best)
        chosen = torch.where(better, penalty, chosen)
        # All are better than none.
        kept = torch.where(better[:, None, None], weights, kept) if len(kept) else weights
    start = _guess(x, torch.bincount(y).to(x.dtype) / len(y))
    start[:, :, known] = kept
    return fit(x, y, chosen, start), chosen
