"""The hidden states that facts are predicted from, told in two ways and asked (method, section 10).

``bio_long`` tells a fact after all of the biography before it, ``bio_short`` in one sentence that
names the person, ``qa`` asks for it. A state is that of the last token of the prompt, which
predicts the first of the attribute; prompt and attribute are tokenised together, as in training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from factrecall.runtime.safetensors_writer import write_tensors
from factrecall.runtime.seeds import generator
from factrecall.vocabulary import RELATIONS

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from factrecall.experiments.representations.settings import RepresentationSettings

FORMATS = ("bio_long", "bio_short", "qa")
SIDES = ("in", "out")


def probed_people(qa: pd.DataFrame, individuals: int | None, study_seed: int) -> np.ndarray:
    """Draw the people of both sides whose prompts are probed; None takes all.

    They are the same for every model, tuning and seed of a study.

    Returns
    -------
    ndarray of int, shape (people,)
        In rising order.
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
    """Tokenise facts by format, each answer being the first token of an attribute.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        Of the model that is looked at.
    bio, qa : DataFrame
        Rows of the tables of facts, the same facts in both.
    """
    short = [f"short_{column}" for column in ("attribute_start", "terminator_end")]
    one = {
        "bio_short": bio[["short", *short]],
        "qa": qa[["text", "attribute_start", "terminator_end"]],
    }
    texts = {"bio_long": [(text, spans) for _, text, spans in joined(bio)]}
    for name, columns in one.items():
        rows = columns.itertuples(index=False, name=None)
        texts[name] = [(text, [(start, end)]) for text, start, end in rows]
    return {
        name: [
            Encoded(text.tokens, tuple((start, start + 1) for start, _ in text.answers))
            for text in encode(tokenizer, [t for t, _ in texts[name]], [s for _, s in texts[name]])
        ]
        for name in FORMATS
    }


def capture_states(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    settings: RepresentationSettings,
    study_seed: int,
    max_eval_tokens: int,
    *,
    bio: pd.DataFrame,
    qa: pd.DataFrame,
    device: torch.device,
    out: Path,
    provenance: Mapping[str, Any],
) -> None:
    """Write the hidden states of facts in all formats.

    Parameters
    ----------
    model, tokenizer
        What is looked at; the model is on `device` and in evaluation mode.
    settings : Representations
        Which layers and people, and the precision that states are kept in.
    study_seed, max_eval_tokens : int
        As configured.
    bio, qa : DataFrame
        The tables of facts.
    device : torch.device
        Where to run.
    out : Path
        The file to write. For each of ``FORMATS`` a tensor of shape (layers, facts, width), and
        of each fact `individual` (int32), `relation` (int64, place in ``RELATIONS``), `in` (bool,
        whether it is in distribution) and `first` (int64), the attribute's first token when
        asked; besides, `layers` (int32).
    provenance : mapping
        Kept in the file's metadata.

    Raises
    ------
    FactRecallError
        When a layer is wanted that the model does not have.
    """
    layers = chosen_layers(model, settings.layers)
    people = probed_people(qa, settings.probes.individuals, study_seed)
    bio = bio[bio["individual"].isin(people) & (bio["biography"] == 0)]
    qa = qa[qa["individual"].isin(people)]
    keys = ["individual", "relation"]
    if not np.array_equal(bio[keys].to_numpy(), qa[keys].to_numpy()):
        raise ValueError("the tables of facts differ in their facts or the order of these")
    texts = first_tokens(tokenizer, bio, qa)
    tensors = {
        "individual": torch.tensor(qa["individual"].to_numpy(np.int32)),
        "relation": torch.tensor(qa["relation"].map(RELATIONS.index).to_numpy(np.int64)),
        "in": torch.tensor((qa["split"] == "in").to_numpy(bool)),
        "first": torch.tensor([int(t.tokens[t.answers[0][0]]) for t in texts["qa"]]),
        "layers": torch.tensor(layers, dtype=torch.int32),
    }
    precision = getattr(torch, settings.precision)
    for name, encoded in texts.items():
        answers = Answers.of(encoded, max_eval_tokens, device)
        with progress(len(encoded), f"hidden states, {name}", "text") as watch:
            tensors[name] = hidden_states(model, answers, layers, watch).to(precision)
    write_tensors(out, tensors, provenance)


def chosen_layers(model: PreTrainedModel, layers: Sequence[int] | None) -> list[int]:
    """Return which layers are looked at: those that are configured, or all.

    Raises
    ------
    FactRecallError
        When the model has not all of them.
    """
    depth = len(architecture_of(model.config).layers_of(model))
    if layers is not None and max(layers) >= depth:
        raise FactRecallError(
            f"representations.layers: {max(layers)}",
            f"the model has {depth} layers, counted from 0",
            "name layers that it has, or set it to null for all",
        )
    return list(range(depth) if layers is None else layers)
