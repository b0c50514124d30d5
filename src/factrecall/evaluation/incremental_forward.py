"""Forward passes that begin at the lowest layer whose weights changed since the last.

A sweep asks one model the same questions over and over, and changes a few weights in between.
Below the lowest of these nothing changes, so the residual stream that enters its layer is kept
from the pass before, and the model's own forward pass runs with the layers below skipped. What is
asked is cut short where answers begin wrongly (see `beginnings`), and cut anew as soon as that
would have paid.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
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
        How many bytes the residual streams of all questions may take on the model's device; where
        they would take more, every second, third, … layer's is kept. Answers asked besides, a
        few as a rule, come on top.

    Attributes
    ----------
    every : int
        A pass may begin at layers that are multiples of it.

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
        # Layer 0 needs nothing kept: what enters it are the embeddings.
        self.every = next(e for e in range(1, len(layers) + 1) if (len(layers) - 1) // e <= most)
        self._kept: list[Residuals] = []
        self._besides: list[Residuals] = []
        self._loss = self._passed = 0
        self._whole = asked.answers.tokens * len(layers)
        self._now: Residuals = {}
        self._start = 0
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> Self:
        for layer in range(self.every, len(self._layers), self.every):
            self._handles.append(
                self._layers[layer].register_forward_pre_hook(
                    self._entering(layer), with_kwargs=True
                )
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._kept, self._besides = [], []

    def right(self, lowest: int) -> np.ndarray:
        """Ask everything; return the verdicts on all answers, as `Answers.right` does.

        Parameters
        ----------
        lowest : int
            The lowest layer whose weights differ from those at the last call; 0 at the first.
        """
        if not self._handles and self.every < len(self._layers):
            raise RuntimeError("questions are asked inside the `with` block only")
        begin = lowest - lowest % self.every
        # Cutting anew takes about as long as a fifth of a layer.
        if 5 * self._loss > self.asked.answers.tokens:
            self._renew()
        if not self._kept:
            begin = 0
            self._kept = [{} for _ in self.asked.answers.batches]
        found = self._pass(self.asked.answers, begin, self._kept)
        self._besides = []
        right = self.asked.judge(found, self._ask_besides)
        depth = len(self._layers)
        self._loss += self.asked.vain * (depth - begin) + self.asked.more * depth
        self._passed += self.asked.answers.tokens * (depth - begin) + self.asked.more * depth
        return right

    def forget(self) -> None:
        """Ask next as at first: everything whole, from the first layer on."""
        self.asked.forget()
        self._kept, self._besides = [], []
        self._loss = self._passed = 0

    @property
    def passes(self) -> float:
        """How many whole passes all that was asked since the last `forget` is worth."""
        return self._passed / self._whole

    def _ask_besides(self, answers: Answers) -> np.ndarray:
        self._besides = [{} for _ in answers.batches]
        return self._pass(answers, 0, self._besides)

    def _renew(self) -> None:
        """Cut the questions anew and take along what is kept of them."""
        before = [*self._kept, *self._besides]
        source = torch.from_numpy(self.asked.renew())
        kept: list[Residuals] = [{} for _ in self.asked.answers.batches]
        sizes = [batch.tokens.shape for batch in self.asked.answers.batches]
        with torch.inference_mode():
            for layer in list(before[0]):
                # One layer at a time, and each batch in memory of its own: nothing is there twice.
                every = torch.cat([streams.pop(layer).flatten(0, 1) for streams in before])
                parts = source.to(every.device).split([size.numel() for size in sizes])
                for streams, part, size in zip(kept, parts, sizes, strict=True):
                    streams[layer] = every[part].view(*size, -1)
        self._kept, self._loss = kept, 0

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
