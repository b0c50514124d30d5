"""The stages of recall: one model evaluated on every fact, and all of a study."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from factrecall.runs import Evaluation, evaluations
from factrecall.runtime.job import Job
from factrecall.runtime.stage import EXPERIMENTS, TABLES, Input, Output, stage


@dataclass(frozen=True)
class Questions:
    """The questions of a replicate, with its study seed."""

    seed: int
    qa: Path


@stage("recall", libraries=EXPERIMENTS, per=evaluations, device="model")
def recall(
    job: Job, *, tuned: Input, bio: Input, qa: Input, out: Output, max_eval_tokens: int
) -> None:
    """Evaluate which facts a model recalls.

    Parameters
    ----------
    out
        the per-example table to write
    """
    from factrecall.data.files import BIO_COLUMNS, QA_COLUMNS
    from factrecall.evaluation.exact_match import PER_EXAMPLE, Evaluator
    from factrecall.models.loading import load_model, load_tokenizer
    from factrecall.runtime.progress import progress

    tables = job.read(bio, BIO_COLUMNS), job.read(qa, QA_COLUMNS)
    tokenizer, model = load_tokenizer(tuned), load_model(tuned, job.device)
    evaluator = Evaluator.of(tokenizer, *tables, max_eval_tokens, job.device)
    with progress(len(evaluator.texts), "recall", "text") as watch:
        examples = evaluator.evaluate(model, watch)
    job.write(out, examples, PER_EXAMPLE)


@stage("summarise-recall", libraries=TABLES)
def summarise_recall(
    job: Job, *, evaluations: list[Evaluation], questions: list[Questions], out: Output
) -> None:
    """Count what all models recall, and what the majority vote does.

    Parameters
    ----------
    evaluations
        the per-example table of a model, tuning and seed; give one for each
    questions
        the study seed of a replicate and its table of questions; give one for each
    out
        the table of accuracies to write
    """
    import pandas as pd

    from factrecall.data.files import QA_COLUMNS
    from factrecall.evaluation.exact_match import PER_EXAMPLE, SUMMARY, majority, summarise

    parts = [
        summarise(job.read(e.table, PER_EXAMPLE), e.model, e.tuning, e.seed) for e in evaluations
    ]
    # The majority vote has no seed of its own: it carries the replicate's.
    for asked in questions:
        voted = majority(job.read(asked.qa, QA_COLUMNS))
        for model in dict.fromkeys(e.model for e in evaluations):
            parts.append(summarise(voted, model, "majority", asked.seed))
    job.write(out, pd.concat(parts), SUMMARY)
