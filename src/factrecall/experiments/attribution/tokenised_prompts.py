"""Prompts tokenised together with their answers, the role of each token, and batches of them.

A row of a batch is one text. Elsewhere texts with a common prefix share a row (see
`prefix_sharing`); here what is done to a token must be done to one text alone.
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
from factrecall.models.passes import cut, pad

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

POSITIONS = ("subject", "relation", "last")
"""Tokens whose states are patched.

The last token of the subject of the sentence to complete; the last word of its wording, without
punctuation; and the prompt's last token. In a biography the last two are mostly the same, as there
is wording up to the attribute as a rule. In a question the last word of the wording comes before
the name ("the job of …?") or after it ("… work for?").
"""


@dataclass(frozen=True)
class TokenisedPrompt:
    """A prompt and its answer, tokenised together.

    `roles` are those of the prompt's tokens (see `prompts.ROLES`), `positions` the index of each
    of ``POSITIONS``. After the prompt's, `tokens` are those up to what ends the answer.
    """

    tokens: np.ndarray
    roles: np.ndarray
    positions: dict[str, int]

    @property
    def first(self) -> int:
        """The answer's first token."""
        return int(self.tokens[len(self.roles)])

    def with_first_token(self) -> Self:
        """Return it with only the first token of its answer."""
        return replace(self, tokens=self.tokens[: len(self.roles) + 1])


def tokenise(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt]
) -> list[TokenisedPrompt]:
    """Tokenise prompts together with their answers (see `encode`, also for its errors)."""
    wholes = [prompt.whole[0] for prompt in prompts]
    spans = [[(prompt.whole[1][0], len(prompt.whole[0]))] for prompt in prompts]
    encoded = encode(tokenizer, wholes, spans)
    offsets = tokenizer(wholes, return_offsets_mapping=True)["offset_mapping"]
    found = []
    for prompt, text, characters in zip(prompts, encoded, offsets, strict=True):
        before = characters[: text.answers[0][0]]
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
    model: PreTrainedModel, prompts: Sequence[TokenisedPrompt], max_eval_tokens: int
) -> Iterator[tuple[np.ndarray, Batch]]:
    """Batch prompts of similar length, one a row, on the model's device.

    Yields
    ------
    members : ndarray of int64, shape (rows,)
        The index of each row's prompt.
    batch : Batch
        Its answers have the numbers of `prompts`.
    """
    device = model.device
    rows = [one.tokens[:-1] for one in prompts]  # nothing is predicted after the last token
    for members in cut([len(row) for row in rows], max_eval_tokens, pass_cost=max_eval_tokens // 8):
        padded = pad([rows[i] for i in members], 0)
        where = torch.zeros_like(padded, dtype=torch.bool)
        for row, i in enumerate(members):
            where[row, len(prompts[i].roles) - 1 : len(rows[i])] = True
        gold = [prompts[i].tokens[len(prompts[i].roles) :] for i in members]
        answer = np.repeat(members, [len(tokens) for tokens in gold])
        expected = torch.from_numpy(np.concatenate(gold)).to(device)
        yield (
            members,
            Batch(padded.to(device), where.to(device), expected, answer, len(members)),
        )
