"""One fine-tuned model, looked at from inside: its hidden states, and what it reads facts from.

Three analyses of the same model and facts in one job, since each takes about as long as opening
the model: what probes need (`states`), which parts of its prompt a fact is read from (`signature`)
and whether the state of a fact told makes it recalled when asked (`patching`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from factrecall.data.files import BIO_COLUMNS, QA_COLUMNS
from factrecall.experiments.attribution.attribution import attribute
from factrecall.experiments.attribution.patching import patch
from factrecall.experiments.representations.capture import capture_states
from factrecall.models.loading import load_model, load_tokenizer
from factrecall.runtime.storage import read_table

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
    """Write a fine-tuned model's hidden states, input-level signature and activation patching.

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
    model, tokenizer = load_model(tuned, device), load_tokenizer(tuned)
    known: dict[str, Any] = {
        "bio": read_table(bio, BIO_COLUMNS),
        "qa": read_table(qa, QA_COLUMNS),
        "device": device,
        "provenance": provenance,
    }
    given = (study_seed, max_eval_tokens)
    capture_states(model, tokenizer, representations, *given, out=states, **known)
    attribute(model, tokenizer, representations.attribution, *given, out=signature, **known)
    patch(model, tokenizer, representations, *given, out=patching, **known)
