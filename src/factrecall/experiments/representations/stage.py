"""Hidden states, attribution and activation patching of one fine-tuned model.

Three analyses of the same model and facts share a job, since each takes about as long as opening
the model: the hidden states that probes need (`states`), the parts of the prompt that an answer is
attributed to (`signature`), and whether the state of a statement restores the answer to the
question (`patching`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from factrecall.data.files import BIO_COLUMNS, QA_COLUMNS
from factrecall.experiments.attribution.attribution import ATTRIBUTION, attribute
from factrecall.experiments.attribution.patching import PATCHING, patch
from factrecall.experiments.common.model_facts import ModelFacts
from factrecall.experiments.representations.capture import capture_states
from factrecall.models.loading import load_model, load_tokenizer
from factrecall.runtime.safetensors_writer import write_tensors
from factrecall.runtime.storage import read_table, write_table

if TYPE_CHECKING:
    import torch

    from factrecall.experiments.representations.settings import RepresentationSettings


def represent(
    representations: RepresentationSettings,
    max_eval_tokens: int,
    study_seed: int,
    *,
    tuned: Path,
    bio: Path,
    qa: Path,
    states: Path,
    signature: Path,
    patching: Path,
    device: torch.device,
    provenance: Mapping[str, Any],
) -> None:
    """Write a fine-tuned model's hidden states, attributions and activation patching.

    Parameters
    ----------
    representations, max_eval_tokens, study_seed
        What the configuration says.
    tuned : Path
        The model's folder.
    bio, qa : Path
        The tables of facts.
    states, signature, patching : Path
        The files to write (see `capture_states`, `attribute` and `patch`).
    device : torch.device
        Where to run.
    provenance : mapping
        Kept in the metadata of every file.
    """
    opened = ModelFacts(
        load_model(tuned, device),
        load_tokenizer(tuned),
        read_table(bio, BIO_COLUMNS),
        read_table(qa, QA_COLUMNS),
        study_seed,
        max_eval_tokens,
    )
    write_tensors(states, capture_states(opened, representations), provenance)
    attributions = attribute(opened, representations.attribution)
    write_table(signature, attributions, ATTRIBUTION, provenance)
    write_table(patching, patch(opened, representations), PATCHING, provenance)
