"""A model's own greedy answers to questions, as texts that masks can be fitted to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from factrecall.evaluation.batching import Answers

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from factrecall.models.forward import Encoded


def own_answers(
    model: PreTrainedModel, texts: Sequence[Encoded], max_eval_tokens: int
) -> list[Encoded]:
    """Put a model's greedy answer in the place of each text's own.

    Parameters
    ----------
    model : PreTrainedModel
        In evaluation mode.
    texts : sequence of Encoded
        Questions with one answer each, at their end.
    max_eval_tokens : int
        Largest size of a batch.

    Returns
    -------
    list of Encoded
        In the order of `texts`. An answer ends with the first token that ends an answer of any of
        the texts (the full stop), or when it is as long as the longest of them.
    """
    starts = np.array([text.answers[0][0] for text in texts])
    stops = [text.answers[0][1] for text in texts]
    ends = np.unique([text.tokens[stop - 1] for text, stop in zip(texts, stops, strict=True)])
    longest = int((np.array(stops) - starts).max())
    found = list(texts)
    # What it answers correctly is its own answer, and one pass tells; the others are decoded.
    wrong = ~Answers.of(texts, max_eval_tokens, model.device).right(model)
    # Prompts of one length need no padding, which models treat differently.
    for start in np.unique(starts[wrong]).tolist():
        alike = np.flatnonzero(wrong & (starts == start))
        rows = max(1, max_eval_tokens // (start + longest))
        for chosen in np.array_split(alike, -(-len(alike) // rows)):
            prompts = np.stack([texts[i].tokens[:start] for i in chosen])
            answers = _greedy(model, prompts, longest, ends)
            for i, prompt, answer in zip(chosen.tolist(), prompts, answers, strict=True):
                over = np.isin(answer, ends)
                length = int(over.argmax()) + 1 if over.any() else longest
                tokens = np.concatenate([prompt, answer[:length]])
                found[i] = replace(texts[i], tokens=tokens, answers=((start, start + length),))
    return found


def _greedy(model: PreTrainedModel, prompts: np.ndarray, most: int, ends: np.ndarray) -> np.ndarray:
    """Continue prompts of one length; int64, shape (prompts, most), 0 behind where all ended."""
    answers = np.zeros((len(prompts), most), dtype=np.int64)
    over = np.zeros(len(prompts), dtype=bool)
    tokens, past = torch.from_numpy(prompts).to(model.device), None
    with torch.inference_mode():
        for place in range(most):
            out = model(input_ids=tokens, past_key_values=past, use_cache=True, logits_to_keep=1)
            tokens, past = out.logits[:, -1:].argmax(-1), out.past_key_values
            answers[:, place] = tokens[:, 0].cpu().numpy()
            over |= np.isin(answers[:, place], ends)
            if over.all():
                break
    return answers
