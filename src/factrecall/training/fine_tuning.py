"""Fine-tuning: `bio`, `stage` (from `bio`) and `mix` (paper, section 2.2 and appendix A.3)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from factrecall.models.loading import load_model, load_tokenizer, model_files, save_model
from factrecall.parameters.amounts import absolute_count
from factrecall.runtime.checkpoint import Checkpoint
from factrecall.runtime.errors import FactRecallError
from factrecall.runtime.progress import progress
from factrecall.runtime.safetensors_writer import write_tensors
from factrecall.runtime.seeds import derive, generator
from factrecall.runtime.storage import remove_leftovers
from factrecall.training.examples import training_set
from factrecall.training.loop import train
from factrecall.training.snapshots import Snapshots
from factrecall.training.strategy import strategy_of
from factrecall.training.trace import GradientTrace
from factrecall.training.training_log import write_history

if TYPE_CHECKING:
    import pandas as pd

    from factrecall.config.training import Recipe, TraceSettings
    from factrecall.data.files import FactFiles
    from factrecall.training.execution import Execution


def traced_individuals(
    individuals: pd.DataFrame, settings: TraceSettings, seed: int
) -> dict[int, str]:
    """Draw the traced individuals of both sides; the same for every model, tuning and seed."""
    traced: dict[int, str] = {}
    for side, key in (("in", "in_distribution"), ("out", "out_of_distribution")):
        count = getattr(settings, key)
        ids = individuals.loc[individuals["split"] == side, "individual"].to_numpy()
        if len(ids) < count:
            raise FactRecallError(
                f"trace.{key} = {count}",
                f"only {len(ids)} individuals are of split {side!r}",
                "lower it, or change the split column of your own people",
            )
        chosen = generator(seed, "traced", side).choice(ids, size=count, replace=False)
        traced |= {int(i): side for i in np.sort(chosen)}
    return traced


def fine_tune(
    recipe: Recipe,
    trace: TraceSettings,
    precision: str,
    mode: Execution,
    study_seed: int,
    *,
    tuning: str,
    seed: int,
    start: Path,
    facts: FactFiles,
    out: Path,
    history: Path,
    traced: Path,
    snapshots: Sequence[Path],
    state: Path,
    device: torch.device,
    checkpoint_interval_s: float,
    provenance: Mapping[str, Any],
) -> None:
    """Fine-tune the model in `start` and write model, history, trace and snapshots.

    Parameters
    ----------
    recipe, trace, precision, study_seed
        What the configuration says (see `factrecall.workflow.stages`).
    mode : Execution
        How it is done on this device. If several processes share the training, all of them call
        this, and the first one writes.
    tuning : {"bio", "stage", "mix"}
        What is learnt; for "stage", `start` is the BIO-tuned model of the same seed.
    seed : int
        Of this run: the order of its examples.
    start : Path
        Folder of the model to begin with.
    facts : FactFiles
        The tables of facts.
    out, history, traced : Path
        The model folder, the table of losses and the gradient trace to write.
    snapshots : sequence of Path
        The snapshots to write, first moment first; as many as `trace` asks for.
    state : Path
        Folder for the state of interrupted runs, outside the workflow's outputs.
    device : torch.device
        Where to run.
    checkpoint_interval_s : float
        How often the state is saved for resuming.
    provenance : mapping
        Kept in the metadata of every file; part of the key of the saved state.

    Raises
    ------
    FactRecallError
        When an input cannot be used, the training diverges, or the number of snapshots differs.
    """
    if len(snapshots) != trace.checkpoints:
        raise FactRecallError(
            f"--snapshots with {len(snapshots)} files",
            f"the study asks for {trace.checkpoints} (trace.checkpoints)",
            "name as many files, or change the key",
        )
    individuals, bio, qa = facts.read()
    tokenizer = load_tokenizer(start)
    strategy = strategy_of(mode, device)
    model = strategy.shard(load_model(start), device)
    examples = training_set(tuning, recipe, bio, qa, tokenizer)
    people = traced_individuals(individuals, trace, study_seed)
    watched = GradientTrace(model, people, mode.trace, strategy)
    identity = {
        **provenance,
        "recipe": repr(recipe),
        "trace": repr(trace),
        "precision": precision,
        "mode": repr(mode),
        "tuning": tuning,
        "seed": seed,
        "device": device.type,
        "threads": torch.get_num_threads(),
        "out": str(out),  # equal runs of two models may go on at the same time
    }
    files = [*facts.paths(), *model_files(start)]
    # The first process alone saves, so its clock alone counts.
    every = checkpoint_interval_s if strategy.rank == 0 else math.inf
    checkpoint = Checkpoint.of(state, identity, files, every)
    for target in (out, history, traced):
        remove_leftovers(target)
    moments = Snapshots(model, recipe.updates, snapshots, checkpoint, provenance, strategy)
    with progress(recipe.updates, f"{tuning} seed {seed}", "update") as watch, checkpoint:
        losses = train(
            model,
            examples,
            recipe,
            derive(study_seed, tuning, seed),
            trace=watched,
            checkpoint=checkpoint,
            snapshots=moments,
            precision=precision,
            mode=mode,
            strategy=strategy,
            device=device,
            watch=watch,
        )
    trained = strategy.gather(model)
    write_trace(traced, watched, trace, provenance)
    if strategy.rank == 0:
        save_model(out, trained, tokenizer)
        write_history(history, losses, provenance)
        moments.publish()
        checkpoint.remove()


def write_trace(
    path: Path, trace: GradientTrace, settings: TraceSettings, provenance: Mapping[str, Any]
) -> None:
    """Write the kept top of every ranking of a trace (see `GradientTrace.ranking`)."""
    n = trace.space.size
    keep = absolute_count(settings.top_fraction, n)
    ranking = trace.ranking(keep)
    if ranking is None:
        return
    metadata = {
        **trace.space.metadata(),
        "n": n,
        "keep": keep,
        "counts": trace.counts,
        "provenance": provenance,
    }
    write_tensors(path, ranking, metadata)
