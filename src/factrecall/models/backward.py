"""Gradients used tensor by tensor, as the backward pass reaches them, and freed at once."""

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
        A model's, by name, each once (if sharded, as before a pass gathered them); without
        gradients, before and after.
    take : callable
        Given a parameter's name and its whole gradient, not to be kept, once in each backward
        pass; also once if the tensor is used in several places (tied embeddings).
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
