"""The stages of ablation: one fine-tuned model, two of one seed, and all of a study."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from factrecall.runs import Run, histories
from factrecall.runtime.job import Job
from factrecall.runtime.stage import EXPERIMENTS, TABLES, Input, Output, stage
from factrecall.vocabulary import COMPARED


@stage(
    "ablate",
    settings=lambda study: study.ablation.model_dump(),
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
    traces: list[Input],
    sets: Input,
    bio: Input,
    qa: Input,
    out: Output,
    members: Output,
    draws: int,
    individuals: int | None,
    max_eval_tokens: int,
    study_seed: int,
) -> None:
    """Evaluate a fine-tuned model with its shared parameters, or others, reset to θpre.

    Parameters
    ----------
    seed
        Of the fine-tuning; random controls of different seeds are different draws.
    traces
        the trace of mixed training, or those of both stages
    out
        the per-example table to write
    members
        the table of what was reset to write
    """
    from factrecall.experiments.ablation import compute
    from factrecall.experiments.ablation.resets import planned

    examples, chosen = compute.evaluate_resets(
        job, (base, tuned), (bio, qa),
        lambda weights: planned(compute.context_of(traces, sets, weights), draws),
        individuals=individuals, max_eval_tokens=max_eval_tokens, study_seed=study_seed, seed=seed,
    )  # fmt: skip
    job.write(out, examples, compute.PER_ABLATION)
    job.write(members, chosen, compute.MEMBERS)


@stage(
    "transplant-shared",
    settings=lambda study: study.ablation.model_dump(),
    libraries=EXPERIMENTS,
    per=histories,
    device="model",
)
def transplant_shared(
    job: Job,
    *,
    donor: Input,
    tuned: Input,
    tuning: str,
    seed: int,
    traces: list[Input],
    sets: Input,
    bio: Input,
    qa: Input,
    out: Output,
    members: Output,
    draws: int,
    individuals: int | None,
    max_eval_tokens: int,
    study_seed: int,
) -> None:
    """Evaluate a fine-tuned model with the other fine-tuning's values of its shared parameters.

    Parameters
    ----------
    donor
        the model of the other fine-tuning, same seed
    traces
        the donor's traces
    sets
        the donor's shared sets
    out
        the per-example table to write
    members
        the table of what was put in to write
    """
    from factrecall.experiments.ablation import compute
    from factrecall.experiments.ablation.resets import transplanted

    (other,) = set(COMPARED) - {tuning}
    examples, chosen = compute.evaluate_resets(
        job, (donor, tuned), (bio, qa),
        lambda weights: transplanted(
            compute.context_of(traces, sets, weights), f"{other}_into_{tuning}", draws
        ),
        individuals=individuals, max_eval_tokens=max_eval_tokens, study_seed=study_seed, seed=seed,
    )  # fmt: skip
    job.write(out, examples, compute.PER_ABLATION)
    job.write(members, chosen, compute.MEMBERS)


@dataclass(frozen=True)
class Ablated(Run):
    """The tables of one training history: its ablations, and what the other put into it."""

    table: Path
    members: Path
    transplanted: Path
    transplanted_members: Path


@stage("summarise-ablation", libraries=TABLES)
def summarise_ablation(
    job: Job, *, evaluations: list[Ablated], out: Output, people: Output, sets: Output
) -> None:
    """Compare what models recall with parameters ablated and without.

    Parameters
    ----------
    evaluations
        the tables of an ablated model, tuning and seed; give one for each
    out
        the table of accuracies by relation to write
    people
        the table of right answers by individual to write
    sets
        the table of what was reset to write
    """
    import pandas as pd

    from factrecall.experiments.ablation import compute
    from factrecall.experiments.common.summaries import read_runs

    def both(schema: dict[str, str], *kinds: str) -> pd.DataFrame:
        return pd.concat([read_runs(evaluations, schema, kind) for kind in kinds])

    examples = compute.with_before(both(compute.PER_ABLATION, "table", "transplanted"))
    for path, column, schema in (
        (out, "relation", compute.ABLATION),
        (people, "individual", compute.PEOPLE),
    ):
        job.write(path, compute.summarise_by(column, examples, schema), schema)
    job.write(sets, both(compute.MEMBERS, "members", "transplanted_members"), compute.SETS)
