"""The stages of ablation: one fine-tuned model, and all of a study."""

from __future__ import annotations

from collections.abc import Callable

from factrecall.runs import Evaluation, histories
from factrecall.runtime.job import Job
from factrecall.runtime.stage import EXPERIMENTS, TABLES, Input, Output, stage


@stage(
    "ablate",
    libraries=EXPERIMENTS,
    per=histories,
    device="model",
)
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
    import pandas as pd

    from factrecall.data.files import BIO_COLUMNS, QA_COLUMNS
    from factrecall.evaluation.exact_match import Evaluator
    from factrecall.experiments.ablation.compute import ABLATED, PER_ABLATION, ablated_sets
    from factrecall.experiments.common.model_pair import open_pair
    from factrecall.parameters.sets import read_set
    from factrecall.runtime.progress import progress
    from factrecall.runtime.seeds import generator

    tokenizer, model, composition = open_pair(base, tuned, job.device)
    tables = job.read(bio, BIO_COLUMNS), job.read(qa, QA_COLUMNS)
    evaluator = Evaluator.of(tokenizer, *tables, max_eval_tokens, job.device)
    shared = read_set(sets, "S", composition.space)
    parts, texts = [], len(evaluator.texts)
    with (
        composition as weights,
        progress(len(ABLATED) * texts, "ablation", "text") as watch,
    ):
        chosen = ablated_sets(shared, weights, generator(study_seed, "ablation", seed))
        for number, (name, members) in enumerate(chosen.items()):
            weights.set(~members)
            seen: Callable[[int], None] = lambda done, n=number: watch(n * texts + done)  # type: ignore[misc]  # noqa: E731
            parts.append(evaluator.evaluate(model, seen).assign(ablated=name))
    job.write(out, pd.concat(parts), PER_ABLATION)


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
    import pandas as pd

    from factrecall.experiments.ablation.compute import (
        ABLATION,
        INTERVALS,
        PER_ABLATION,
        ablation_intervals,
        ablation_table,
    )

    tables = [job.read(e.table, PER_ABLATION).assign(**e.labels) for e in evaluations]
    examples = pd.concat(tables, ignore_index=True)
    job.write(out, ablation_table(examples), ABLATION)
    job.write(intervals, ablation_intervals(examples, study_seed), INTERVALS)
