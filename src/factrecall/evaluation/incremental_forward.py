"""Incremental forward passes, from the lowest layer whose weights changed since the last.

A sweep asks one model the same questions over and over, and changes a few weights in between.
Below the lowest of these nothing changes, so the residual stream that enters its layer is cached,
and the model's own forward pass runs with the layers below skipped. Texts are cut short where
answers start wrong (see `early_exit`), and cut again as soon as that would have paid.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch

if TYPE_CHECKING:
    from torch import nn
    from torch.utils.hooks import RemovableHandle
    from transformers import PreTrainedModel

    from factrecall.evaluation.batching import Answers, Batch
    from factrecall.evaluation.early_exit import EarlyExit

Residuals = dict[int, torch.Tensor]
"""What enters each layer, shape (rows, length, width)."""


class IncrementalForward:
    """A model and the questions that it is asked again and again.

    Parameters
    ----------
    model : PreTrainedModel
        In evaluation mode.
    layers : sequence of nn.Module
        Its layers, in order; each takes the residual stream first and returns it.
    asked : EarlyExit
        The questions.
    memory : float
        Bytes for cached residual streams on the model's device; where they would take more, only
        every second, third, … layer's is cached. The few extra answers come on top.

    Attributes
    ----------
    every : int
        A pass may start at layers that are multiples of it.

    Examples
    --------
    >>> with IncrementalForward(model, layers, EarlyExit(texts, 2048), 1e9) as asked:
    ...     asked.right(0)                     # a whole pass
    ...     model.layers[5].mlp.weight.zero_()
    ...     asked.right(5)                     # layers 5 and above
    """

    def __init__(
        self, model: PreTrainedModel, layers: Sequence[nn.Module], asked: EarlyExit, memory: float
    ) -> None:
        self.model, self.asked = model, asked
        self._layers = list(layers)
        width = model.config.get_text_config().hidden_size
        one = asked.answers.tokens * width * model.dtype.itemsize
        most = max(0, int(memory // max(one, 1)))
        # Layer 0 needs no cache: the embeddings enter it.
        self.every = next(e for e in range(1, len(layers) + 1) if (len(layers) - 1) // e <= most)
        self._cache: list[Residuals] = []
        self._extra: list[Residuals] = []
        self._wasted = self._passed = 0
        self._whole = asked.answers.tokens * len(layers)
        self._now: Residuals = {}
        self._start = 0
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> Self:
        for layer in range(self.every, len(self._layers), self.every):
            register = self._layers[layer].register_forward_pre_hook
            self._handles.append(register(self._entering(layer), with_kwargs=True))
        return self

    def __exit__(self, *raised: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._cache, self._extra = [], []

    def right(self, lowest: int) -> np.ndarray:
        """Ask everything; return the verdicts on all answers (see `Answers.right`).

        Parameters
        ----------
        lowest : int
            The lowest layer whose weights differ from those at the last call; 0 at the first.
        """
        if not self._handles and self.every < len(self._layers):
            raise RuntimeError("questions are asked inside the `with` block only")
        begin = lowest - lowest % self.every
        # Cutting the texts takes about as long as a fifth of a layer.
        if 5 * self._wasted > self.asked.answers.tokens:
            self._renew()
        if not self._cache:
            begin = 0
            self._cache = [{} for _ in self.asked.answers.batches]
        found = self._pass(self.asked.answers, begin, self._cache)
        self._extra = []
        right = self.asked.judge(found, self._ask_extra)
        depth, extra = len(self._layers), self.asked.extra_tokens * len(self._layers)
        self._wasted += self.asked.wasted_tokens * (depth - begin) + extra
        self._passed += self.asked.answers.tokens * (depth - begin) + extra
        return right

    def forget(self) -> None:
        """Start over: everything whole, from the first layer on."""
        self.asked.forget()
        self._cache, self._extra = [], []
        self._wasted = self._passed = 0

    @property
    def passes(self) -> float:
        """Whole passes that all since the last `forget` amounts to."""
        return self._passed / self._whole

    def _ask_extra(self, answers: Answers) -> np.ndarray:
        self._extra = [{} for _ in answers.batches]
        return self._pass(answers, 0, self._extra)

    def _renew(self) -> None:
        """Cut the questions again and rearrange what is cached of them."""
        before = [*self._cache, *self._extra]
        source = torch.from_numpy(self.asked.renew())
        kept: list[Residuals] = [{} for _ in self.asked.answers.batches]
        sizes = [batch.tokens.shape for batch in self.asked.answers.batches]
        with torch.inference_mode():
            for layer in list(before[0]):
                # One layer at a time, and each batch in its own memory: nothing is there twice.
                every = torch.cat([streams.pop(layer).flatten(0, 1) for streams in before])
                parts = source.to(every.device).split([size.numel() for size in sizes])
                for streams, part, size in zip(kept, parts, sizes, strict=True):
                    streams[layer] = every[part].view(*size, -1)
        self._cache, self._wasted = kept, 0

    def _pass(self, answers: Answers, begin: int, kept: list[Residuals]) -> np.ndarray:
        for layer in self._layers[:begin]:
            layer.forward = _skipped
        self._start, streams = begin, iter(kept)

        def logits(batch: Batch) -> torch.Tensor:
            self._now = next(streams)
            return batch.logits(self.model)

        try:
            return answers.verdicts(logits)
        finally:
            for layer in self._layers[:begin]:
                del layer.forward

    def _entering(self, layer: int) -> Any:
        def hook(
            module: nn.Module, inputs: tuple[torch.Tensor, ...], more: dict[str, Any]
        ) -> tuple[tuple[torch.Tensor, ...], dict[str, Any]] | None:
            if layer > self._start:
                self._now[layer] = inputs[0]
            elif layer == self._start:
                return (self._now[layer], *inputs[1:]), more
            return None

        return hook


def _skipped(residual: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
    return residual
