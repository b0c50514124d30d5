"""Questions asked again and again, each only as far as its answer may be right.

An answer whose first token is wrong is wrong, whatever would follow, so the tokens behind it need
not pass through the model. While a model changes little by little, most answers that began wrongly
begin wrongly again: of these texts only the part up to the answer's first token is asked. Those
that turn out to begin rightly after all are asked to their end at once.
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
    """Texts, and how far each is asked at present.

    Parameters
    ----------
    texts : sequence of Encoded
        Each with at least one answer; it is the last of a text that may be cut short.
    max_eval_tokens, device
        As in `Answers.of`.

    Attributes
    ----------
    answers : Answers
        What is asked at present: whole texts at first. The last answer of each text is counted
        twice there, as its first token and, where that is asked, as the rest.
    count : int
        Number of answers of the texts.
    vain, more : int
        Tokens that the last asking need not have passed, and that it passed besides.
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
        """Ask whole texts, as at first."""
        self._begun = np.ones(len(self._texts), dtype=bool)
        self.vain = self.more = 0
        self._besides: dict[int, np.ndarray] = {}
        self._cut()

    def renew(self) -> np.ndarray:
        """Ask from now on as far as the last verdicts call for.

        Returns
        -------
        ndarray of int64, shape (answers.tokens,)
            Where each token was before: among those of the batches of `answers`, laid end to end,
            or, behind them, of the batches that were asked besides. 0 for padding.
        """
        before = {**dict(enumerate(self.answers.places)), **self._besides}
        self._cut()
        source = np.zeros(self.answers.tokens, dtype=np.int64)
        for text, places in enumerate(self.answers.places):
            source[places] = before[text][: len(places)]
        return source

    def _cut(self) -> None:
        self._whole = self._begun & (self._rest > 0)
        parts = [_split(t, bool(w)) for t, w in zip(self._texts, self._whole, strict=True)]
        self.answers = Answers.of(parts, self._batch_tokens, self._device)
        answers = np.array([len(text.answers) for text in self._texts]) + self._whole
        self._ends = np.cumsum(answers)

    def judge(self, found: np.ndarray, ask: Callable[[Answers], np.ndarray]) -> np.ndarray:
        """Turn verdicts on what was asked into verdicts on all answers.

        Parameters
        ----------
        found : ndarray of bool, shape (answers.count,)
            Verdicts on `answers`.
        ask : callable
            Asks the same model other answers.

        Returns
        -------
        ndarray of bool, shape (count,)
        """
        first = self._ends - 1 - self._whole  # of each text's last answer
        rest = self._ends[self._whole] - 1
        self._begun = found[first]
        right = np.delete(found, rest)
        right[self._last[self._whole]] &= found[rest]
        missing = np.flatnonzero(self._begun & ~self._whole & (self._rest > 0)).tolist()
        self.more, self._besides = 0, {}
        if missing:
            texts = [self._texts[i] for i in missing]
            more = Answers.of(texts, self._batch_tokens, self._device)
            ends = np.cumsum([len(text.answers) for text in texts]) - 1
            right[self._last[missing]] = ask(more)[ends]
            self.more = more.tokens
            shifted = (places + self.answers.tokens for places in more.places)
            self._besides = dict(zip(missing, shifted, strict=True))
        self.vain = int(self._rest[self._whole & ~self._begun].sum())
        return right


def _split(text: Encoded, whole: bool) -> Encoded:
    *others, (start, end) = text.answers
    parts = [(start, start + 1), (start + 1, end)]
    return replace(text, answers=(*others, *parts[: 1 + whole]))
