"""Fits made together are those that a plain solver makes one by one, in double precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from factrecall.experiments.representations.logistic_regression import (
    PrincipalAxes,
    fit,
    fit_chosen,
)
from factrecall.runtime.seeds import generator


def features(seed: int, problems: int, rows: int, width: int) -> torch.Tensor:
    """Return features of very different variance that lean on each other."""
    rng = generator(seed, "features")
    scale = np.arange(1, width + 1) ** -1.0
    mixed = rng.normal(size=(problems, rows, width)) * scale @ rng.normal(size=(width, width))
    return torch.from_numpy(mixed + rng.normal(size=width))


def labels(seed: int, rows: int, classes: int) -> torch.Tensor:
    drawn = generator(seed, "labels").integers(classes, size=rows)
    drawn[:classes] = np.arange(classes)
    return torch.from_numpy(drawn)


def naive(x: torch.Tensor, y: torch.Tensor, penalty: float) -> torch.Tensor:
    """Minimise one problem's loss by Newton's method on the whole Hessian, in float64."""
    x, classes = x.double(), int(y.max()) + 1
    rows, width = x.shape
    ridge = torch.full((width, classes), penalty, dtype=torch.float64)
    ridge[-1] = 0
    weights = torch.zeros(width, classes, dtype=torch.float64)

    def loss(w: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(x @ w, y) + 0.5 * (ridge * w * w).sum()

    for _ in range(100):
        likely = (x @ weights).softmax(-1)
        slope = x.T @ (likely - torch.nn.functional.one_hot(y, classes)) / rows + ridge * weights
        if slope.abs().max() < 1e-12:
            break
        hessian = torch.diag(ridge.flatten())
        for row, p in zip(x, likely, strict=True):
            block = torch.diag(p) - torch.outer(p, p)
            hessian += torch.kron(torch.outer(row, row), block) / rows
        # One number may be added to all intercepts; the least squares solution leaves them.
        step = torch.linalg.lstsq(hessian, slope.flatten(), driver="gelsd").solution
        length = 1.0
        while loss(weights - length * step.view_as(weights)) > loss(weights) and length > 1e-6:
            length /= 2
        weights -= length * step.view_as(weights)
    weights[-1] -= weights[-1].mean()
    return weights


def centred(weights: torch.Tensor) -> torch.Tensor:
    """Fix what the loss leaves free: one number added to all intercepts."""
    weights = weights.clone()
    weights[:, -1] -= weights[:, -1].mean(-1, keepdim=True)
    return weights


@settings(max_examples=12)
@given(
    seed=st.integers(0, 10**6),
    rows=st.integers(6, 30),
    width=st.integers(1, 6),
    classes=st.integers(2, 5),
    penalty=st.sampled_from([1e-3, 1e-2, 1e-1, 1.0]),
)
def test_fits_equal_naive_ones(
    seed: int, rows: int, width: int, classes: int, penalty: float
) -> None:
    y, h = labels(seed, rows, classes), features(seed, 2, rows, width)
    x = PrincipalAxes.of(h)(h)
    both = centred(fit(x, y, torch.tensor([penalty, 2 * penalty], dtype=x.dtype), None, 1e-18))
    for problem, strength in enumerate((penalty, 2 * penalty)):
        expected = naive(x[problem], y, strength)
        torch.testing.assert_close(both[problem], expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("penalty", [1e-4, 1e-2])
def test_single_precision_and_the_usual_tolerance_suffice(penalty: float) -> None:
    y, h = labels(0, 200, 12), features(0, 3, 200, 24)
    h[:, torch.arange(200), y] += 1.0
    x = PrincipalAxes.of(h)(h)
    strength = torch.full((3,), penalty)
    exact = fit(x, y, strength.double(), None, 1e-16)
    found = fit(x.float(), y, strength)
    assert found.dtype == torch.float32
    gap = (found.double() - exact)[:, :-1].norm() / exact[:, :-1].norm()
    assert gap < 0.1
    same = ((x @ found.double()).argmax(-1) == (x @ exact).argmax(-1)).double().mean()
    assert same > 0.99


def test_a_start_changes_the_way_only() -> None:
    y, h = labels(1, 80, 5), features(1, 2, 80, 10)
    x, weak = PrincipalAxes.of(h)(h), torch.full((2,), 1e-3, dtype=torch.float64)
    cold = fit(x, y, weak, None, 1e-18)
    warm = fit(x, y, weak, fit(x, y, 100 * weak), 1e-18)
    torch.testing.assert_close(centred(cold), centred(warm), atol=1e-6, rtol=1e-6)
    # And finished fits stay where they are while others go on.
    start = torch.stack([cold[0], torch.zeros_like(cold[1])])
    assert torch.equal(fit(x, y, weak, start, 1e-17)[0], cold[0])


@given(st.integers(0, 10**6), st.integers(2, 12), st.integers(1, 12))
@settings(max_examples=20)
def test_coordinates(seed: int, rows: int, width: int) -> None:
    h = features(seed, 2, rows, width)
    h[..., 0] = 3.0  # a feature that says nothing
    turn = PrincipalAxes.of(h)
    x = turn(h)
    standard = (h - h.mean(1, keepdim=True)) / torch.where(
        h.std(1, unbiased=False, keepdim=True) < 1e-9, 1, h.std(1, unbiased=False, keepdim=True)
    )
    kept = min(rows, width)
    assert x.shape == (2, rows, kept + 1) and bool((x[..., -1] == 1).all())
    inner = turn.axes.mT @ turn.axes
    torch.testing.assert_close(inner, torch.eye(kept, dtype=h.dtype).expand(2, -1, -1))
    # Nothing is lost of the rows, and the coordinates are uncorrelated.
    torch.testing.assert_close(x[..., :-1] @ turn.axes.mT, standard, atol=1e-9, rtol=0)
    gram = x[..., :-1].mT @ x[..., :-1]
    torch.testing.assert_close(
        gram, torch.diag_embed(gram.diagonal(dim1=1, dim2=2)), atol=1e-9, rtol=0
    )


def test_fewer_rows_than_features_change_nothing() -> None:
    y, h = labels(2, 20, 4), features(2, 1, 20, 40)
    turn = PrincipalAxes.of(h)
    standard = (h - turn.mean) / turn.scale
    whole = torch.cat([standard, torch.ones_like(standard[..., :1])], -1)
    new = features(3, 1, 50, 40)
    penalty = torch.tensor([1e-2], dtype=h.dtype)
    logits = turn(new) @ fit(turn(h), y, penalty, None, 1e-18)
    moved = (new - turn.mean) / turn.scale
    expected = torch.cat([moved, torch.ones_like(moved[..., :1])], -1) @ fit(
        whole, y, penalty, None, 1e-18
    )
    torch.testing.assert_close(logits.softmax(-1), expected.softmax(-1), atol=1e-6, rtol=0)


def test_one_class_is_always_said() -> None:
    h = features(4, 2, 5, 3)
    x, y = PrincipalAxes.of(h)(h), torch.zeros(5, dtype=torch.int64)
    weights, _ = fit_chosen(x, y, [1e-3, 1.0], torch.tensor([True] + [False] * 4))
    assert weights.shape == (2, 4, 1) and bool(weights.isfinite().all())


def test_penalties_are_chosen_by_validation_and_fitted_to_all_rows() -> None:
    y, h = labels(5, 90, 3), features(5, 4, 90, 30)
    h[0, torch.arange(90), y] += 30.0  # told at once
    x, penalties = PrincipalAxes.of(h)(h), [1e-4, 1e-2, 1e2]
    validation = torch.arange(90) % 3 == 0
    weights, chosen = fit_chosen(x, y, penalties, validation)
    for problem in range(4):
        one = x[problem : problem + 1]
        right = []
        for penalty in penalties:
            strength = torch.tensor([penalty], dtype=x.dtype)
            found = fit(one[:, ~validation], y[~validation], strength, None, 1e-12)
            said = (one[:, validation] @ found).argmax(-1)[0]
            right.append(int((said == y[validation]).sum()))
        best = max(range(3), key=lambda i: (right[i], i))
        assert chosen[problem] == penalties[best]
    exact = fit(x, y, chosen, None, 1e-14)
    assert ((x @ weights).argmax(-1) == (x @ exact).argmax(-1)).double().mean() > 0.98
    for mask in (torch.zeros(90, dtype=torch.bool), torch.ones(90, dtype=torch.bool)):
        assert fit_chosen(x, y, penalties, mask)[1].tolist() == [1e2] * 4


def test_a_class_of_validation_rows_alone_is_learnt_in_the_end() -> None:
    h = features(6, 2, 40, 8)
    y = torch.arange(40) % 3
    y[0] = 3
    h[:, 0] += 100.0
    validation = torch.arange(40) < 5
    x = PrincipalAxes.of(h)(h)
    weights, _ = fit_chosen(x, y, [1e-4, 1e-3], validation)
    assert weights.shape[2] == 4 and bool(weights.isfinite().all())
    assert (x @ weights)[:, 0].argmax(-1).tolist() == [3, 3]
