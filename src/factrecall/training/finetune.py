"""Fine-tuning: `bio`, `stage` (from `bio`) and `mix` (paper, section 2.2 and appendix A.3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from factrecall.models.load import load_model, load_tokenizer, save_model, weight_files
from factrecall.progress import progress
from factrecall.seeds import derive, generator
from factrecall.storage import write_table, write_tensors
from factrecall.training.examples import bio_examples, qa_examples, short_examples
from factrecall.training.loop import HISTORY, train
from factrecall.training.resume import Checkpoint, run_key
from factrecall.training.trace import GradientTrace

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from factrecall.config import Recipe, Trace
    from factrecall.facts.forms import FactFiles
    from factrecall.training.batches import Example


@dataclass(frozen=True)
class RunFiles:
    """What a training run writes."""

    model: Path
    history: Path
    trace: Path | None
    state: Path
    """Folder for the state of interrupted runs, outside the workflow's outputs."""


def training_set(
    tuning: str,
    recipe: Recipe,
    bio: pd.DataFrame,
    qa: pd.DataFrame,
    tokenizer: PreTrainedTokenizerBase,
) -> list[Example]:
    """Return the examples of a tuning, biographies first.

    `bio` learns all biographies, `stage` the in-distribution questions, `mix` both. `base`
    (pre-training) learns other people: their biographies, each sentence by itself with the full
    name, and all their questions.
    """
    told = bio[(bio["split"] == "pretrain") == (tuning == "base")]
    asked = qa[qa["split"] == ("pretrain" if tuning == "base" else "in")]
    examples: list[Example] = []
    if tuning != "stage":
        examples += bio_examples(told, tokenizer, recipe.loss)
    if tuning == "base":
        examples += short_examples(told, tokenizer, recipe.loss)
    if tuning != "bio":
        examples += qa_examples(asked, tokenizer, recipe.loss, recipe.questions)
    return examples


def traced_individuals(individuals: pd.DataFrame, settings: Trace, seed: int) -> dict[int, str]:
    """Draw the traced individuals of both sides; the same for every model, tuning and seed."""
    traced: dict[int, str] = {}
    for side, count in (("in", settings.in_distribution), ("out", settings.out_of_distribution)):
        ids = individuals.loc[individuals["split"] == side, "individual"].to_numpy()
        chosen = generator(seed, "traced", side).choice(ids, size=count, replace=False)
        traced |= {int(i): side for i in np.sort(chosen)}
    return traced


def fine_tune(
    recipe: Recipe,
    trace: Trace,
    precision: str,
    study_seed: int,
    *,
    tuning: str,
    seed: int,
    start: Path,
    facts: FactFiles,
    files: RunFiles,
    device: torch.device,
    save_seconds: float,
    provenance: Mapping[str, Any],
) -> None:
    """Fine-tune the model in `start` and write model, history and trace.

    Parameters
    ----------
    recipe, trace, precision, study_seed
        What the configuration says (see `factrecall.stages`).
    tuning : {"bio", "stage", "mix"}
        What is learnt; for "stage", `start` is the BIO-tuned model of the same seed.
    seed : int
        Of this run: the order of its examples.
    start : Path
        Folder of the model to begin with.
    facts, files
        What is read and written.
    device : torch.device
        Where to run.
    save_seconds : float
        How often the state is saved for resuming.
    provenance : mapping
        Kept in the metadata of every file; part of the key of the saved state.
    """
    individuals, bio, qa = facts.read()
    tokenizer = load_tokenizer(start)
    model = load_model(start, device)
    examples = training_set(tuning, recipe, bio, qa, tokenizer)
    watched = GradientTrace(model, traced_individuals(individuals, trace, study_seed))
    identity = {
        **provenance,
        "tuning": tuning,
        "seed": seed,
        "device": device.type,
        "threads": torch.get_num_threads(),
    }
    checkpoint = Checkpoint(
        files.state / f"{run_key(identity, [*facts.paths(), *weight_files(start)])}.safetensors",
        save_seconds,
    )
    with progress(recipe.updates, f"{tuning} seed {seed}", "update") as watch:
        history = train(
            model,
            examples,
            recipe,
            derive(study_seed, tuning, seed),
            trace=watched,
            checkpoint=checkpoint,
            precision=precision,
            watch=watch,
        )
    save_model(files.model, model, tokenizer)
    write_history(files.history, history, provenance)
    if files.trace is not None:
        write_trace(files.trace, watched, trace, provenance)
    checkpoint.remove()


def write_history(path: Path, history: np.ndarray, provenance: Mapping[str, Any]) -> None:
    """Write a training history (see ``HISTORY``)."""
    frame = pd.DataFrame(history, columns=list(HISTORY))
    integers = {column: kind for column, kind in HISTORY.items() if kind.startswith("int")}
    write_table(path, frame.astype(integers), HISTORY, provenance)


def write_trace(
    path: Path, trace: GradientTrace, settings: Trace, provenance: Mapping[str, Any]
) -> None:
    """Write the kept top of every ranking of a trace (see `GradientTrace.ranking`)."""
    n = trace.space.size
    keep = min(n, settings.keep if isinstance(settings.keep, int) else round(settings.keep * n))
    metadata = {
        "space": trace.space.fingerprint,
        "names": trace.space.names,
        "shapes": trace.space.shapes,
        "n": n,
        "keep": keep,
        "counts": trace.counts,
        "provenance": provenance,
    }
    write_tensors(path, trace.ranking(keep), metadata)
