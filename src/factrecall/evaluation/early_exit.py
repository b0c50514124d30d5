"""Early-exit evaluation: stop at the first wrong token.

An answer whose first token is wrong is wrong, so the tokens after it need not pass through the
model. While a model changes little by little, most answers that started wrong start wrong again:
these texts are evaluated up to the answer's first token only, and in full at once if that turns
out right.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from factrecall.evaluation.batching import Answers

if TYPE_CHECKING:
    import torch

    from factrecall.models.forward import Encoded


class EarlyExit:
    """Texts, and how far each is evaluated at present.

    Parameters
    ----------
    texts : sequence of Encoded
        Each with at least one answer, of which the last may be cut short.
    max_eval_tokens, device
        As in `Answers.of`.

    Attributes
    ----------
    answers : Answers
        What is evaluated at present: whole texts at first. The last answer of each text counts
        twice, as its first token and, where that is evaluated, as the rest.
    count : int
        Number of answers of the texts.
    wasted_tokens, extra_tokens : int
        Tokens that the last evaluation need not have passed, and that it passed in addition.
    """

    def __init__(
        self, texts: Sequence[Encoded], max_eval_tokens: int, device: torch.device | str = "cpu"
    ) -> None:
        self._texts, self._batch_tokens, self._device = texts, max_eval_tokens, device
        self.count = sum(len(text.answers) for text in texts)
        self._last = np.cumsum([len(text.answers) for text in texts]) - 1
        # Tokens of each text that follow the first predicted one of its last answer.
        self._rest = np.array([t.answers[-1][1] - t.answers[-1][0] - 1 for t in texts])
        self.forget()

    def forget(self) -> None:
        """Evaluate whole texts, as at first."""
        self._started = np.ones(len(self._texts), dtype=bool)
        self.wasted_tokens = self.extra_tokens = 0
        self._extra: dict[int, np.ndarray] = {}
        self._cut()

    def renew(self) -> np.ndarray:
        """Cut the texts from now on as the last verdicts say.

        Returns
        -------
        ndarray of int64, shape (answers.tokens,)
            Each token's position before, in the concatenated batches of `answers` and of what was
            evaluated in addition. 0 for padding.
        """
        before = {**dict(enumerate(self.answers.places)), **self._extra}
        self._cut()
        source = np.zeros(self.answers.tokens, dtype=np.int64)
        for text, places in enumerate(self.answers.places):
            source[places] = before[text][: len(places)]
        return source

    def _cut(self) -> None:
        self._whole = self._started & (self._rest > 0)
        parts = [_split(t, bool(w)) for t, w in zip(self._texts, self._whole, strict=True)]
        self.answers = Answers.of(parts, self._batch_tokens, self._device)
        answers = np.array([len(text.answers) for text in self._texts]) + self._whole
        self._ends = np.cumsum(answers)

    def judge(self, found: np.ndarray, ask: Callable[[Answers], np.ndarray]) -> np.ndarray:
        """Turn verdicts on `answers` into verdicts on all answers, shape (count,).

        Parameters
        ----------
        found : ndarray of bool, shape (answers.count,)
        ask : callable
            Evaluates other answers with the same model.
        """
        first = self._ends - 1 - self._whole  # of each text's last answer
        rest = self._ends[self._whole] - 1
        self._started = found[first]
        right = np.delete(found, rest)
        right[self._last[self._whole]] &= found[rest]
        missing = np.flatnonzero(self._started & ~self._whole & (self._rest > 0)).tolist()
        self.extra_tokens, self._extra = 0, {}
        if missing:
            texts = [self._texts[i] for i in missing]
            more = Answers.of(texts, self._batch_tokens, self._device)
            ends = np.cumsum([len(text.answers) for text in texts]) - 1
            right[self._last[missing]] = ask(more)[ends]
            self.extra_tokens = more.tokens
            shifted = (places + self.answers.tokens for places in more.places)
            self._extra = dict(zip(missing, shifted, strict=True))
        self.wasted_tokens = int(self._rest[self._whole & ~self._started].sum())
        return right


def _split(text: Encoded, whole: bool) -> Encoded:
    *others, (start, end) = text.answers
    parts = [(start, start + 1), (start + 1, end)]
    return replace(text, answers=(*others, *parts[: 1 + whole]))
