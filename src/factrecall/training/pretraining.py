"""θpre of a scratch model: it knows the language and the task, but none of the facts.

The model reads biographies and answers questions of *other* invented people, whose names are
disjoint from the study's and whose attributes come from the same pools. Its tokenizer is
trained on all text of the study, so that every name has tokens.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from factrecall.models.loading import save_model
from factrecall.models.scratch import build_model
from factrecall.models.tokenizers import train_tokenizer
from factrecall.runtime.checkpoint import Checkpoint
from factrecall.runtime.progress import progress
from factrecall.runtime.seeds import derive
from factrecall.runtime.storage import remove_leftovers
from factrecall.training.examples import training_set
from factrecall.training.loop import train
from factrecall.training.strategy import strategy_of
from factrecall.training.training_log import write_history

if TYPE_CHECKING:
    from factrecall.config.model import Scratch
    from factrecall.data.files import FactFiles
    from factrecall.training.execution import Execution


def pretrain(
    settings: Scratch,
    seed: int,
    precision: str,
    mode: Execution,
    *,
    facts: FactFiles,
    out: Path,
    history: Path,
    state: Path,
    device: torch.device,
    checkpoint_interval_s: float,
    provenance: Mapping[str, Any],
) -> None:
    """Build a model and pre-train it; write its folder and history.

    Parameters
    ----------
    settings, seed, precision
        What the configuration says (see `factrecall.workflow.stages`).
    mode, facts, out, history, state, device, checkpoint_interval_s, provenance
        See `factrecall.training.fine_tuning.fine_tune`.
    """
    _, bio, qa = facts.read()
    tokenizer = train_tokenizer(
        [*bio["text"], *qa["text"]],
        settings.tokenizer,
        settings.vocabulary,
        context=settings.context,
    )
    model = build_model(settings, tokenizer, derive(seed, "weights"))
    strategy = strategy_of(mode, device)
    model = strategy.shard(model, device)
    recipe = settings.pretrain
    examples = training_set("base", recipe, bio, qa, tokenizer)
    identity = {
        **provenance,
        "settings": repr(settings),
        "precision": precision,
        "mode": repr(mode),
        "seed": seed,
        "device": device.type,
        "threads": torch.get_num_threads(),
        "out": str(out),  # equal runs of two models may go on at the same time
    }
    # The first process alone saves, so its clock alone counts.
    every = checkpoint_interval_s if strategy.rank == 0 else math.inf
    checkpoint = Checkpoint.of(state, identity, facts.paths(), every)
    for target in (out, history):
        remove_leftovers(target)
    with progress(recipe.updates, "pre-training", "update") as watch, checkpoint:
        losses = train(
            model,
            examples,
            recipe,
            derive(seed, "base"),
            checkpoint=checkpoint,
            precision=precision,
            mode=mode,
            strategy=strategy,
            device=device,
            watch=watch,
        )
    trained = strategy.gather(model)
    if strategy.rank == 0:
        save_model(out, trained, tokenizer)
        write_history(history, losses, provenance)
        checkpoint.remove()
