"""Answers, tokenised and batched once, to be evaluated with many models.

Greedy decoding gives the gold answer exactly when the most likely token is the gold one at each
of the answer's positions, so one forward pass over prompt and answer decides it, and the output
head need see those positions only (paper, section 2.2 and appendix A.2; docs/method.md). Texts
with a common prefix share a row. The same batches give the loss that grafting minimises
(equation 6).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Self, TypeVar

import numpy as np
import torch

from factrecall.evaluation.prefix_sharing import layout, pack
from factrecall.models.architectures import ARCHITECTURES
from factrecall.models.chunked_head import loss_at
from factrecall.models.forward import Encoded, logits_at
from factrecall.models.passes import cut, pad
from factrecall.runtime.errors import FactRecallError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Result = TypeVar("Result")


@dataclass(frozen=True)
class Batch:
    """Texts of like length and where their answers are.

    Attributes
    ----------
    tokens : int64 tensor, shape (rows, length)
        Padded on the right.
    where : bool tensor, shape (rows, length)
        Positions at which a token of an answer is predicted.
    gold : int64 tensor, shape (answer tokens,)
        What is to be predicted there, row by row.
    answer : int64 ndarray, shape (answer tokens,)
        Which answer, of all of the `Answers`, each of them belongs to.
    texts : int
        How many there are.
    positions, attends : tensors or None
        From `prefix_sharing.layout`, if texts share rows; else each row is a text.
    """

    tokens: torch.Tensor
    where: torch.Tensor
    gold: torch.Tensor
    answer: np.ndarray
    texts: int
    positions: torch.Tensor | None = None
    attends: torch.Tensor | None = None

    def logits(self, model: PreTrainedModel) -> torch.Tensor:
        """Return a model's logits where answers are predicted (see `logits_at`)."""
        return self._pass(model, logits_at)

    def loss(self, model: PreTrainedModel) -> torch.Tensor:
        """Return the sum of a model's losses where answers are predicted (see `loss_at`)."""
        return self._pass(model, partial(loss_at, targets=self.gold))[0]

    def _pass(self, model: PreTrainedModel, run: Callable[..., Result]) -> Result:
        """Run a pass; in the last layer only keys and values are computed at all positions."""
        more: dict[str, torch.Tensor] = {}
        if self.positions is not None and self.attends is not None:
            # Added to the scores, which every attention of transformers takes; some take no bool.
            mask = torch.zeros(self.attends.shape, dtype=model.dtype, device=self.attends.device)
            mask.masked_fill_(~self.attends, torch.finfo(model.dtype).min)
            more = {"position_ids": self.positions, "attention_mask": mask}
        spec = ARCHITECTURES.get(model.config.model_type)
        with ExitStack() as hooks:
            for module in spec.last_of(model) if spec else ():
                before = module.register_forward_pre_hook(lambda _, i: (i[0][self.where],))
                after = module.register_forward_hook(lambda _, __, out: self._spread(out))
                hooks.callback(before.remove)
                hooks.callback(after.remove)
            return run(model, self.tokens, self.where, **more)

    def _spread(self, found: torch.Tensor) -> torch.Tensor:
        """Scatter what was computed where answers are predicted; zero stands elsewhere."""
        spread = found.new_zeros(*self.where.shape, found.shape[-1])
        spread[self.where] = found
        return spread


@dataclass(frozen=True)
class Answers:
    """The answers of many texts.

    Attributes
    ----------
    batches : list of Batch
        On the models' device.
    count : int
        Number of answers, in the order of the texts and within each text.
    places : list of int64 ndarray, shape (length of the text,)
        Positions of each text's tokens in the concatenated tokens of all batches.
    """

    batches: list[Batch]
    count: int
    places: list[np.ndarray]

    @classmethod
    def of(
        cls, texts: Sequence[Encoded], max_eval_tokens: int, device: torch.device | str = "cpu"
    ) -> Self:
        """Batch texts of like length, at most `max_eval_tokens` tokens with padding at a time.

        Raises
        ------
        FactRecallError
            When two answers of a text share a token.
        """
        first = np.cumsum([0, *(len(t.answers) for t in texts)])
        # What follows the last token that predicts anything need not be read.
        tokens = [t.tokens[: t.answers[-1][1] - 1] if t.answers else t.tokens[:1] for t in texts]
        lengths = [len(t) for t in tokens]
        rows = pack(tokens, [t.answers[0][0] - 1 if t.answers else 0 for t in texts])
        batches: list[Batch] = []
        places = [np.arange(length) for length in lengths]
        before = 0
        for together in (True, False):
            group = [row for row in rows if (len(row.texts) > 1) is together]
            whole = [
                np.concatenate([tokens[i][row.shared * (i != row.texts[0]) :] for i in row.texts])
                for row in group
            ]
            sizes = [len(row) for row in whole]
            for chosen in cut(sizes, max_eval_tokens, pass_cost=max_eval_tokens // 8):
                padded = pad([whole[i] for i in chosen], 0)
                where = torch.zeros_like(padded, dtype=torch.bool)
                answer: list[int] = []
                gold = []
                members = [group[i] for i in chosen]
                for place, row in enumerate(members):
                    at = 0  # where the text would start, were all of it there
                    for i in row.texts:
                        places[i] += before + place * padded.shape[1]
                        places[i][row.shared :] += at
                        for number, (start, end) in enumerate(texts[i].answers, int(first[i])):
                            span = slice(at + start - 1, at + end - 1)
                            if where[place, span].any():
                                raise _joined(number, int(first[-1]))
                            where[place, span] = True
                            answer += [number] * (end - start)
                            gold.append(texts[i].tokens[start:end])
                        at += lengths[i] - row.shared
                batches.append(
                    Batch(
                        padded.to(device),
                        where.to(device),
                        torch.from_numpy(np.concatenate(gold)).to(device),
                        np.array(answer),
                        sum(len(row.texts) for row in members),
                        *(t.to(device) for t in layout(members, lengths) if together),
                    )
                )
                before += padded.numel()
        return cls(batches, int(first[-1]), places)

    @property
    def tokens(self) -> int:
        """Number of tokens that pass through a model, padding included."""
        return sum(batch.tokens.numel() for batch in self.batches)

    def right(
        self, model: PreTrainedModel, watch: Callable[[int], None] = lambda done: None
    ) -> np.ndarray:
        """Decide for each answer whether greedy decoding would give it, bool, shape (count,).

        `watch` is called with the number of texts done so far.
        """
        done = 0

        def logits(batch: Batch) -> torch.Tensor:
            nonlocal done
            found = batch.logits(model)
            done += batch.texts
            watch(done)
            return found

        return self.verdicts(logits)

    def verdicts(self, logits: Callable[[Batch], torch.Tensor]) -> np.ndarray:
        """Compare the most likely tokens with the gold ones (see `right`).

        `logits` takes a batch to logits of shape (answer tokens, vocabulary).
        """
        right = np.ones(self.count, dtype=bool)
        with torch.inference_mode():
            for batch in self.batches:
                missed = (logits(batch).argmax(-1) != batch.gold).cpu().numpy()
                right[batch.answer[missed]] = False
        return right

    def descend(self, model: PreTrainedModel) -> float:
        """Back-propagate the mean loss of all answers' tokens; return it, in nats a token."""
        tokens = sum(len(batch.gold) for batch in self.batches)
        total = 0.0
        for batch in self.batches:
            loss = batch.loss(model) / tokens
            loss.backward()
            total += loss.item()
        return total


def _joined(number: int, count: int) -> FactRecallError:
    return FactRecallError(
        f"answer {number + 1} of {count}",
        "the tokenizer joins it with the answer before it in one token",
        "separate the two by a space or a word in your templates",
    )
