"""Answers, tokenised and batched once, to be asked of many models.

Greedy decoding gives the gold answer exactly when the most likely token is the gold one at each
of the answer's positions, so one forward pass over prompt and answer decides it, and the output
head need see those positions only (paper, section 2.2 and appendix A.2; method, section 3). The
same batches give the loss over answers that grafting descends (equation 6).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
import torch

from factrecall.errors import FactRecallError
from factrecall.models.forward import Encoded, logits_at
from factrecall.training.batches import cut, pad

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Batch:
    """Texts of like length and where their answers are.

    Attributes
    ----------
    tokens : int64 tensor, shape (texts, length)
        Padded on the right.
    where : bool tensor, shape (texts, length)
        Positions at which a token of an answer is predicted.
    gold : int64 tensor, shape (answer tokens,)
        What is to be predicted there, row by row.
    answer : int64 ndarray, shape (answer tokens,)
        Which answer, of all of the `Answers`, each of them belongs to.
    """

    tokens: torch.Tensor
    where: torch.Tensor
    gold: torch.Tensor
    answer: np.ndarray


@dataclass(frozen=True)
class Answers:
    """The answers of many texts.

    Attributes
    ----------
    batches : list of Batch
        On the device of the models to be asked.
    count : int
        Number of answers; they are counted in the order of the texts, and within each text.
    """

    batches: list[Batch]
    count: int

    @classmethod
    def of(
        cls, texts: Sequence[Encoded], batch_tokens: int, device: torch.device | str = "cpu"
    ) -> Self:
        """Batch texts of like length, at most `batch_tokens` tokens with padding at a time.

        Raises
        ------
        FactRecallError
            When two answers of a text share a token.
        """
        first = np.cumsum([0, *(len(t.answers) for t in texts)])
        # What follows the last token that predicts anything need not be read.
        lengths = [t.answers[-1][1] - 1 if t.answers else 1 for t in texts]
        batches = []
        for group in cut(lengths, batch_tokens, pass_cost=batch_tokens // 8):
            tokens = pad([texts[i].tokens[: lengths[i]] for i in group], 0)
            where = torch.zeros_like(tokens, dtype=torch.bool)
            answer: list[int] = []
            gold = []
            for row, i in enumerate(group):
                for number, (start, end) in enumerate(texts[i].answers, start=int(first[i])):
                    if where[row, start - 1 : end - 1].any():
                        raise FactRecallError(
                            f"answer {number + 1} of {int(first[-1])}",
                            "the tokenizer joins it with the answer before it in one token",
                            "part the two by a space or a word in your templates",
                        )
                    where[row, start - 1 : end - 1] = True
                    answer += [number] * (end - start)
                    gold.append(texts[i].tokens[start:end])
            batches.append(
                Batch(
                    tokens.to(device),
                    where.to(device),
                    torch.from_numpy(np.concatenate(gold)).to(device),
                    np.array(answer),
                )
            )
        return cls(batches, int(first[-1]))

    def right(
        self, model: PreTrainedModel, watch: Callable[[int], None] = lambda done: None
    ) -> np.ndarray:
        """Decide for each answer whether greedy decoding would give it.

        Parameters
        ----------
        model : PreTrainedModel
            In evaluation mode.
        watch : callable
            Called with the number of texts done so far.

        Returns
        -------
        ndarray of bool, shape (count,)
        """
        right = np.ones(self.count, dtype=bool)
        done = 0
        with torch.inference_mode():
            for batch in self.batches:
                logits = logits_at(model, batch.tokens, batch.where)
                missed = (logits.argmax(-1) != batch.gold).cpu().numpy()
                right[batch.answer[missed]] = False
                done += len(batch.tokens)
                watch(done)
        return right

    def descend(self, model: PreTrainedModel) -> float:
        """Back-propagate the mean loss of all answers' tokens; return it, in nats a token."""
        tokens = sum(len(batch.gold) for batch in self.batches)
        total = 0.0
        for batch in self.batches:
            logits = logits_at(model, batch.tokens, batch.where).float()
            loss = torch.nn.functional.cross_entropy(logits, batch.gold, reduction="sum") / tokens
            loss.backward()
            total += loss.item()
        return total
