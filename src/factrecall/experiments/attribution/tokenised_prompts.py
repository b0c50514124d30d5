"""Prompts and their answers as tokens, each token with its role, and batches of them.

Here a row of a batch is one text. Where texts that begin alike share a row, as elsewhere (see
`packing`), what is done to a token of the common beginning is done to all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import numpy as np
import torch

from factrecall.evaluation.batching import Batch
from factrecall.experiments.common.prompts import Prompt
from factrecall.models.forward import encode
from factrecall.training.batches import cut, pad

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

POSITIONS = ("subject", "relation", "last")
"""The last token of the wanted sentence's subject; the last word of its wording, punctuation
aside; and the prompt's last token. Up to the attribute there is wording as a rule, so that in a
biography the last two are mostly the same. In questions the last word of the wording comes
before the name ("the job of …?") or after it ("… work for?")."""


@dataclass(frozen=True)
class TokenisedPrompt:
    """A prompt and its answer, tokenised together.

    Attributes
    ----------
    tokens : ndarray of int64, shape (length,)
        Both, up to what ends the answer.
    roles : ndarray of str, shape (prompt,)
        Of the prompt's tokens (see `prompts.ROLES`).
    positions : dict of str to int
        Where the tokens of ``POSITIONS`` are.
    """

    tokens: np.ndarray
    roles: np.ndarray
    positions: dict[str, int]

    @property
    def first(self) -> int:
        """The answer's first token."""
        return int(self.tokens[len(self.roles)])

    def begun(self) -> Self:
        """Return it with the first token of its answer only."""
        return replace(self, tokens=self.tokens[: len(self.roles) + 1])


def read(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt]) -> list[TokenisedPrompt]:
    """Tokenise prompts together with their answers (see `encode`, also for its errors)."""
    wholes = [prompt.whole[0] for prompt in prompts]
    spans = [[(prompt.whole[1][0], len(prompt.whole[0]))] for prompt in prompts]
    encoded = encode(tokenizer, wholes, spans)
    offsets = tokenizer(wholes, return_offsets_mapping=True)["offset_mapping"]
    found = []
    for prompt, text, places in zip(prompts, encoded, offsets, strict=True):
        before = places[: text.answers[0][0]]
        roles = np.array(prompt.roles(before))
        word = [any(map(str.isalnum, prompt.whole[0][start:end])) for start, end in before]
        last = len(roles) - 1
        ends = {
            "subject": np.flatnonzero(roles == "subject"),
            "relation": np.flatnonzero((roles == "relation") & word),
        }
        positions = {name: int(of[-1]) if len(of) else last for name, of in ends.items()}
        found.append(TokenisedPrompt(text.tokens, roles, {**positions, "last": last}))
    return found


def batches(
    asked: Sequence[TokenisedPrompt], max_eval_tokens: int, device: torch.device | str
) -> Iterator[tuple[np.ndarray, Batch]]:
    """Batch texts of like length, one a row.

    Parameters
    ----------
    asked : sequence of Asked
        What is asked.
    max_eval_tokens : int
        Largest padded size of a batch.
    device : device
        Of the model that is asked.

    Yields
    ------
    members : ndarray of int64, shape (rows,)
        Which of `asked` the rows are.
    batch : Batch
        Its answers are numbered as `asked` is.
    """
    rows = [one.tokens[:-1] for one in asked]  # what follows the last token is not predicted
    for members in cut([len(row) for row in rows], max_eval_tokens, pass_cost=max_eval_tokens // 8):
        padded = pad([rows[i] for i in members], 0)
        where = torch.zeros_like(padded, dtype=torch.bool)
        for row, i in enumerate(members):
            where[row, len(asked[i].roles) - 1 : len(rows[i])] = True
        gold = [asked[i].tokens[len(asked[i].roles) :] for i in members]
        answer = np.repeat(members, [len(tokens) for tokens in gold])
        expected = torch.from_numpy(np.concatenate(gold)).to(device)
        yield (
            members,
            Batch(padded.to(device), where.to(device), expected, answer, len(members)),
        )
