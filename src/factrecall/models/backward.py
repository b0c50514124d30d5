"""Gradients taken tensor by tensor, as the backward pass reaches them, and freed at once.

What is made of a gradient (a sum, a score) then needs no second set of all gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch


@contextmanager
def gradients(
    parameters: Mapping[str, torch.Tensor], take: Callable[[str, torch.Tensor], object]
) -> Iterator[None]:
    """Let every parameter's gradient be taken, and freed, as soon as it is there.

    Parameters
    ----------
    parameters : mapping of str to tensor
        A model's, by name, each once (as they were before a pass gathered them, if they are split
        among processes). Without gradients, which they are left with, too.
    take : callable
        Given a parameter's name and its whole gradient, once in each backward pass; a tensor that
        stands in several places (tied embeddings) counts once. The gradient is not to be kept.
    """

    def hook(name: str) -> Callable[[torch.Tensor], None]:
        def taken(parameter: torch.Tensor) -> None:
            with torch.no_grad():
                assert parameter.grad is not None
                take(name, parameter.grad)
            parameter.grad = None

        return taken

    handles = [
        parameter.register_post_accumulate_grad_hook(hook(name))
        for name, parameter in parameters.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for parameter in parameters.values():
            parameter.grad = None
