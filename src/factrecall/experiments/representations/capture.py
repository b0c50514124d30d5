"""Capture of the hidden states from which facts are predicted, in three formats (method, 10).

A fact is stated after all of the biography before it (``bio_long``), stated in one sentence with
the person's name (``bio_short``), or asked for (``qa``). A state is that of the prompt's last
token, which predicts the attribute's first token. Prompt and attribute are tokenised together, as
in training.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from factrecall.data.files import joined
from factrecall.evaluation.batching import Answers
from factrecall.evaluation.hidden_states import hidden_states
from factrecall.models.architectures import architecture_of
from factrecall.models.forward import Encoded, encode
from factrecall.runtime.errors import FactRecallError
from factrecall.runtime.progress import progress
from factrecall.runtime.seeds import generator
from factrecall.vocabulary import RELATIONS, SIDES, STATE_FORMATS

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from factrecall.experiments.common.model_facts import ModelFacts
    from factrecall.experiments.representations.settings import RepresentationSettings


def probed_people(qa: pd.DataFrame, individuals: int | None, study_seed: int) -> np.ndarray:
    """Draw the people of each side whose prompts are probed; None takes all.

    The draw is the same for every model, tuning and seed of a study. Returns their numbers, sorted.
    """
    drawn = []
    for side in SIDES:
        people = np.sort(qa.loc[qa["split"] == side, "individual"].unique())
        count = min(len(people), individuals or len(people))
        drawn.append(generator(study_seed, "probed people", side).choice(people, count, False))
    return np.sort(np.concatenate(drawn))


def first_tokens(
    tokenizer: PreTrainedTokenizerBase, bio: pd.DataFrame, qa: pd.DataFrame
) -> dict[str, list[Encoded]]:
    """Tokenise the same facts in each format; an answer is an attribute's first token."""
    texts = {"bio_long": [(text, spans) for _, text, spans in joined(bio)]}
    for name, table, column, prefix in (
        ("bio_short", bio, "short", "short_"),
        ("qa", qa, "text", ""),
    ):
        columns = table[[column, f"{prefix}attribute_start", f"{prefix}terminator_end"]]
        rows = columns.itertuples(index=False, name=None)
        texts[name] = [(text, [(start, end)]) for text, start, end in rows]
    return {
        name: [
            Encoded(text.tokens, tuple((start, start + 1) for start, _ in text.answers))
            for text in encode(tokenizer, [t for t, _ in texts[name]], [s for _, s in texts[name]])
        ]
        for name in STATE_FORMATS
    }


def capture_states(opened: ModelFacts, settings: RepresentationSettings) -> dict[str, torch.Tensor]:
    """Return the hidden states of facts in all formats.

    Returns
    -------
    dict of str to tensor
        For each of ``STATE_FORMATS`` the states, shape (layers, facts, width). For each fact
        `individual` (int32), `relation` (int64, index in ``RELATIONS``), `in` (bool, whether it is
        in distribution) and `first` (int64), the attribute's first token after the question.
        Besides, `layers` (int32).
    """
    layers = chosen_layers(opened.model, settings.layers)
    people = probed_people(opened.qa, settings.probes.individuals, opened.study_seed)
    bio = opened.bio[opened.bio["individual"].isin(people) & (opened.bio["biography"] == 0)]
    qa = opened.qa[opened.qa["individual"].isin(people)]
    keys = ["individual", "relation"]
    if not np.array_equal(bio[keys].to_numpy(), qa[keys].to_numpy()):
        raise ValueError("the tables of facts differ in their facts or in the order of the facts")
    texts = first_tokens(opened.tokenizer, bio, qa)
    tensors = {
        "individual": torch.tensor(qa["individual"].to_numpy(np.int32)),
        "relation": torch.tensor(qa["relation"].map(RELATIONS.index).to_numpy(np.int64)),
        "in": torch.tensor((qa["split"] == "in").to_numpy(bool)),
        "first": torch.tensor([int(t.tokens[t.answers[0][0]]) for t in texts["qa"]]),
        "layers": torch.tensor(layers, dtype=torch.int32),
    }
    precision = getattr(torch, settings.precision)
    for name, encoded in texts.items():
        answers = Answers.of(encoded, opened.max_eval_tokens, opened.model.device)
        with progress(len(encoded), f"hidden states, {name}", "text") as watch:
            tensors[name] = hidden_states(opened.model, answers, layers, watch).to(precision)
    return tensors


def chosen_layers(model: PreTrainedModel, layers: Sequence[int] | None) -> list[int]:
    """Return the configured layers, or all; an error if the model lacks one of them."""
    depth = len(architecture_of(model.config).layers_of(model))
    if layers is not None and max(layers) >= depth:
        raise FactRecallError(
            f"representations.layers: {max(layers)}",
            f"the model has {depth} layers, counted from 0",
            "name layers that it has, or set it to null for all",
        )
    return list(range(depth) if layers is None else layers)
