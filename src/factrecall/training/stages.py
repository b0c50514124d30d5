"""The stages that train: pre-training of a scratch model, and fine-tuning.

A scratch model learns the language, but no question and none of the facts: it is trained on
statements about *other* individuals, whose names are disjoint from the study's and whose attributes
come from the same pools. Its tokenizer is trained on all text of the study, so that every name has
tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from factrecall.runs import scratch_models, trainings
from factrecall.runtime.job import Job
from factrecall.runtime.stage import MODELS, Input, Output, stage

if TYPE_CHECKING:
    import numpy as np

    from factrecall.config.model import Scratch
    from factrecall.config.training import Recipe, TraceSettings
    from factrecall.runtime.checkpoint import Checkpoint
    from factrecall.training.execution import Execution


def _train(job: Job, title: str, checkpoint: Checkpoint, recipe: Recipe, **how: Any) -> np.ndarray:
    """Train with a checkpoint and progress (see `training.loop.train`)."""
    from factrecall.runtime.progress import progress
    from factrecall.training.loop import train

    with progress(recipe.updates, title, "update") as watch, checkpoint:
        how |= {"checkpoint": checkpoint, "device": job.device, "watch": watch}
        return train(recipe=recipe, **how)


@stage(
    "pretrain",
    settings=lambda study, model: {
        "scratch": study.models[model].model_copy(update={"training": None}),
    },
    libraries=MODELS,
    per=scratch_models,
    device="model",
    resumes=True,
    setup="workflow.execution:of_pretraining",
)
def pretrain(
    job: Job,
    *,
    facts: list[Input],
    out: Output,
    history: Output,
    scratch: Scratch,
    precision: str,
    mode: Execution,
    study_seed: int,
) -> None:
    """Build a small model and pre-train it on other individuals.

    Parameters
    ----------
    out
        the model folder to write
    history
        the table of losses to write
    mode
        How the training is done on this device.
    """
    from factrecall.data.files import FactFiles
    from factrecall.models.loading import save_model
    from factrecall.models.scratch import build_model
    from factrecall.models.tokenizers import train_tokenizer
    from factrecall.runtime.seeds import derive
    from factrecall.training.examples import training_set
    from factrecall.training.launcher import strategy_of
    from factrecall.training.training_log import write_history

    _, bio, qa = FactFiles.of(facts).read()
    texts = [*bio["text"], *qa["text"]]
    tokenizer = train_tokenizer(
        texts, scratch.tokenizer, scratch.vocabulary, context=scratch.context
    )
    model = build_model(scratch, tokenizer, derive(study_seed, "weights"))
    strategy = strategy_of(mode, job.device)
    model = strategy.shard(model, job.device)
    recipe = scratch.pretrain
    examples = training_set("base", recipe, bio, qa, tokenizer, derive(study_seed, "base"))
    checkpoint = job.checkpoint(saves=strategy.rank == 0)
    how = {"model": model, "examples": examples, "seed": derive(study_seed, "base")}
    how |= {"precision": precision, "mode": mode, "strategy": strategy}
    losses = _train(job, "pre-training", checkpoint, recipe, **how)
    trained = strategy.gather(model)
    if strategy.rank == 0:
        save_model(out, trained, tokenizer)
        write_history(history, losses, job.provenance)
        checkpoint.remove()


@stage(
    "fine-tune",
    settings=lambda study, model, tuning: {
        "recipe": getattr(study.models[model].training, tuning),
        "tracing": study.trace,
    },
    libraries=MODELS,
    per=trainings,
    device="model",
    resumes=True,
    setup="workflow.execution:of_fine_tuning",
)
def fine_tune(
    job: Job,
    *,
    tuning: str,
    seed: int,
    facts: list[Input],
    start: Input,
    out: Output,
    history: Output,
    trace: Output,
    snapshots: list[Output],
    recipe: Recipe,
    tracing: TraceSettings,
    precision: str,
    mode: Execution,
    study_seed: int,
) -> None:
    """Fine-tune a model and trace its gradients.

    If several processes share the training, all of them call this, and the first one writes.

    Parameters
    ----------
    tuning
        What is learnt; for "stage", `start` is the BIO-tuned model of the same seed.
    seed
        Of this run: the order of its examples.
    out
        the model folder to write
    history
        the table of losses to write
    trace
        the gradient trace to write
    snapshots
        the snapshots to write, first moment first; as many as trace.checkpoints
    mode
        How the training is done on this device.

    Raises
    ------
    FactRecallError
        When an input cannot be used, the training diverges, or the number of snapshots differs.
    """
    from factrecall.data.files import FactFiles
    from factrecall.data.traced import traced_individuals
    from factrecall.models.loading import load_model, load_tokenizer, save_model
    from factrecall.runtime.errors import FactRecallError
    from factrecall.runtime.seeds import derive
    from factrecall.training.examples import training_set
    from factrecall.training.launcher import strategy_of
    from factrecall.training.snapshots import Snapshots
    from factrecall.training.trace import GradientTrace, write_trace
    from factrecall.training.training_log import write_history

    if len(snapshots) != tracing.checkpoints:
        raise FactRecallError(
            f"--snapshots with {len(snapshots)} files",
            f"the study asks for {tracing.checkpoints} (trace.checkpoints)",
            "name as many files, or change the key",
        )
    individuals, bio, qa = FactFiles.of(facts).read()
    tokenizer = load_tokenizer(start)
    strategy = strategy_of(mode, job.device)
    model = strategy.shard(load_model(start), job.device)
    examples = training_set(tuning, recipe, bio, qa, tokenizer)
    people = traced_individuals(individuals, tracing, study_seed)
    watched = GradientTrace(model, people, mode.trace, strategy)
    checkpoint = job.checkpoint(saves=strategy.rank == 0)
    provenance = job.provenance
    moments = Snapshots(model, recipe.updates, snapshots, checkpoint, provenance, strategy)
    how = {"model": model, "examples": examples, "seed": derive(study_seed, tuning, seed)}
    how |= {"precision": precision, "mode": mode, "strategy": strategy}
    how |= {"trace": watched, "snapshots": moments}
    losses = _train(job, f"{tuning} seed {seed}", checkpoint, recipe, **how)
    trained = strategy.gather(model)
    write_trace(trace, watched, tracing, provenance)
    if strategy.rank == 0:
        save_model(out, trained, tokenizer)
        write_history(history, losses, provenance)
        moments.publish()
        checkpoint.remove()
