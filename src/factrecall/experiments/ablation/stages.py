"""The stages of ablation: one fine-tuned model, and all of a study."""

from __future__ import annotations

from factrecall.runs import Evaluation, histories
from factrecall.runtime.job import Job
from factrecall.runtime.stage import EXPERIMENTS, TABLES, Input, Output, stage


@stage("ablate", libraries=EXPERIMENTS, per=histories, device="model")
def ablate(
    job: Job,
    *,
    base: Input,
    tuned: Input,
    seed: int,
    sets: Input,
    bio: Input,
    qa: Input,
    out: Output,
    max_eval_tokens: int,
    study_seed: int,
) -> None:
    """Evaluate a fine-tuned model with its shared parameters, or others, reset to θpre.

    Parameters
    ----------
    seed
        Of the fine-tuning; random controls of different seeds are different draws.
    out
        the per-example table to write
    """
    from factrecall.experiments.ablation.compute import PER_ABLATION, ablated_sets, evaluate_resets
    from factrecall.runtime.seeds import generator

    rng = generator(study_seed, "ablation", seed)
    examples = evaluate_resets(
        job, (base, tuned), (bio, qa), sets, max_eval_tokens,
        lambda shared, weights: (
            ({"ablated": name}, members)
            for name, members in ablated_sets(shared, weights, rng).items()
        ),
    )  # fmt: skip
    job.write(out, examples, PER_ABLATION)


@stage("summarise-ablation", libraries=TABLES)
def summarise_ablation(
    job: Job, *, evaluations: list[Evaluation], out: Output, intervals: Output, study_seed: int
) -> None:
    """Compare what models recall with parameters ablated and without.

    Parameters
    ----------
    evaluations
        the per-example table of an ablated model, tuning and seed; give one for each
    out
        the table of accuracies to write
    intervals
        the table of paired differences to write
    study_seed
        Draws the bootstrap samples.
    """
    from factrecall.experiments.ablation.compute import (
        ABLATION,
        INTERVALS,
        PER_ABLATION,
        ablation_intervals,
        ablation_table,
    )
    from factrecall.experiments.common.summaries import read_runs

    examples = read_runs(evaluations, PER_ABLATION)
    job.write(out, ablation_table(examples), ABLATION)
    job.write(intervals, ablation_intervals(examples, study_seed), INTERVALS)
