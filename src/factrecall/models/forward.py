"""Tokens with answers found by offset, and a forward pass with logits at chosen positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from factrecall.runtime.errors import FactRecallError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Encoded:
    """A text as tokens, with the token range of each of its answers.

    Attributes
    ----------
    tokens : ndarray of int64, shape (length,)
        Special tokens included.
    answers : tuple of (int, int)
        First and one-past-last token of each answer.
    """

    tokens: np.ndarray
    answers: tuple[tuple[int, int], ...]


def encode(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    spans: Sequence[Sequence[tuple[int, int]]],
) -> list[Encoded]:
    """Tokenise whole texts and find each answer's tokens by character offset.

    Prompt and answer are tokenised together, as in training. Every token that overlaps an
    answer's span belongs to the answer, so a token that joins the answer's last character with its
    full stop, or its first with the space before it, counts.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        A fast tokenizer (offsets are needed).
    texts : sequence of str
    spans : sequence of sequences of (start, end)
        Character spans of the answers of each text, terminator included, in text order.

    Raises
    ------
    FactRecallError
        When a text is longer than the model's context, or an answer has no tokens or no token
        before it.
    """
    batch = tokenizer(list(texts), return_offsets_mapping=True, padding=False, truncation=False)
    result = []
    for text, tokens, offsets, wanted in zip(
        texts, batch["input_ids"], batch["offset_mapping"], spans, strict=True
    ):
        if len(tokens) > tokenizer.model_max_length:
            raise FactRecallError(
                f"text {text[:60]!r}",
                f"it has {len(tokens)} tokens, the model takes {tokenizer.model_max_length}",
                "use shorter templates, or a model with a longer context (scratch: context)",
            )
        starts, ends = np.asarray(offsets, dtype=np.int64).T
        real = ends > starts
        answers = []
        for start, end in wanted:
            inside = np.flatnonzero(real & (starts < end) & (ends > start))
            if not len(inside) or inside[0] == 0:
                raise FactRecallError(
                    f"text {text[:60]!r}",
                    f"no tokens stand for the answer at characters {start}-{end}",
                    "make the facts anew; if they are in order, the model's tokenizer drops "
                    "characters and cannot be used",
                )
            answers.append((int(inside[0]), int(inside[-1]) + 1))
        result.append(Encoded(np.asarray(tokens, dtype=np.int64), tuple(answers)))
    return result


def logits_at(
    model: PreTrainedModel, tokens: torch.Tensor, where: torch.Tensor, **more: Any
) -> torch.Tensor:
    """Run a forward pass whose output head sees the chosen positions only.

    Parameters
    ----------
    model : PreTrainedModel
        A causal language model.
    tokens : int64 tensor, shape (rows, length)
        Padded on the right; causality keeps real tokens from seeing the padding.
    where : bool tensor, shape (rows, length), or int64 tensor, shape (positions,)
        Positions whose logits are wanted; if numbers, counted row by row (a GPU then need not wait
        to learn how many there are).
    **more
        Other arguments of the model.

    Returns
    -------
    tensor, shape (number of chosen positions, vocabulary)
        In row-major order of a mask, or that of the numbers. What a model does behind its head
        (scaling, capping) is applied.
    """

    def chosen(_: object, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor]:
        hidden = inputs[0] if where.dtype == torch.bool else inputs[0].flatten(0, 1)
        return (hidden[where],)

    handle = model.get_output_embeddings().register_forward_pre_hook(chosen)
    try:
        logits: torch.Tensor = model(input_ids=tokens, use_cache=False, **more).logits
    finally:
        handle.remove()
    return logits
