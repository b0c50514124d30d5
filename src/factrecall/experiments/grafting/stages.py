"""The stages of grafting: one fine-tuned model at every α, and all of a study together.

Masks that may hold anything and masks without S are the work of two jobs: the first is the longer
one, does not depend on S, and stays as it is when another S is selected.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from factrecall.experiments.grafting.runs import Graft
from factrecall.runs import grafts
from factrecall.runtime.job import Job
from factrecall.runtime.stage import EXPERIMENTS, TABLES, Input, Output, stage

if TYPE_CHECKING:
    from factrecall.experiments.grafting.settings import GraftingSettings


@stage(
    "graft",
    settings=lambda study, seed: {
        "grafting": study.grafting,
        # One fine-tuning seed shows whether masks can be trusted; the time of all is not worth it.
        "thorough": int(seed) == study.training.seeds[0],
    },
    libraries=EXPERIMENTS,
    per=grafts,
    device="model",
    resumes=True,
)
def graft(
    job: Job,
    *,
    base: Input,
    tuned: Input,
    seed: int,
    split: str,
    qa: Input,
    out: Output,
    table: Output,
    examples: Output,
    checks: Output,
    grafting: GraftingSettings,
    max_eval_tokens: int,
    study_seed: int,
    thorough: bool,
) -> None:
    """Graft a fine-tuned model: find how few parameters carry recall.

    Parameters
    ----------
    out
        the fitted masks to write, each named by its objective and α
    table
        the table of outcomes to write
    examples
        the per-example table to write
    checks
        the table of checks to write
    thorough
        Also fit again with another order of questions, and to other people's answers.
    """
    from factrecall.experiments.grafting.grafter import open_grafter
    from factrecall.experiments.grafting.mask_checks import CHECK, check_masks
    from factrecall.experiments.grafting.mask_choice import smallest, taken_apart
    from factrecall.experiments.grafting.tables import OUTCOMES

    grafter = open_grafter(job, base, tuned, qa, grafting, max_eval_tokens, study_seed, seed, split)
    with grafter.weights:
        sweep = grafter.sweep("grafting", grafter.excluded(), grafting.objectives, with_shared=True)
        least = grafting.target_recovery
        found = sweep.outcomes.assign(chosen=smallest(sweep.outcomes, least))
        sweep = sweep._replace(outcomes=found.assign(taken_apart=taken_apart(found, least)))
        trusted = check_masks(grafter, sweep, thorough=thorough)
    grafter.write(job, sweep, out, examples)
    job.write(table, sweep.outcomes, OUTCOMES)
    job.write(checks, trusted, CHECK)
    grafter.checkpoint.remove()


@stage(
    "graft-without-shared",
    settings=lambda study: {"grafting": study.grafting},
    libraries=EXPERIMENTS,
    per=grafts,
    device="model",
    resumes=True,
)
def graft_without_shared(
    job: Job,
    *,
    base: Input,
    tuned: Input,
    seed: int,
    split: str,
    sets: Input,
    outcomes: Input,
    qa: Input,
    out: Output,
    table: Output,
    examples: Output,
    shares: Output,
    grafting: GraftingSettings,
    max_eval_tokens: int,
    study_seed: int,
) -> None:
    """Graft a fine-tuned model by masks with none of its shared parameters in them.

    They are fitted to gold answers alone, which the paper's claims are about.

    Parameters
    ----------
    outcomes
        the table of outcomes of `graft`: the size chosen there is evaluated without S, too
    out
        the fitted masks to write, each named by its objective and α
    table
        the table of outcomes to write
    examples
        the per-example table to write
    shares
        the table to write of how much of the largest changes is shared
    """
    import pandas as pd

    from factrecall.experiments.grafting.grafter import open_grafter, overlap
    from factrecall.experiments.grafting.mask_choice import looked_at
    from factrecall.experiments.grafting.tables import OUTCOMES, RECOVERED, SHARES
    from factrecall.parameters.sets import read_set

    grafter = open_grafter(job, base, tuned, qa, grafting, max_eval_tokens, study_seed, seed, split)
    shared = read_set(sets, "S", grafter.weights.space)
    excluded = grafter.excluded()
    also = looked_at(job.read(outcomes, OUTCOMES), [])["alpha"].tolist()
    with grafter.weights:
        sweep = grafter.sweep(
            "grafting without S", excluded | shared, ["gold"], with_shared=False, also=also
        )
        # The largest changes are found again, here where S is known: these masks are as large as
        # the fitted ones, and `graft` would have to keep them for this one number.
        unfitted = grafter.unfitted(excluded)
    grafter.write(job, sweep, out, examples)
    job.write(table, sweep.outcomes, RECOVERED)
    rows = [(alpha, method, overlap(m, shared)) for (alpha, method, _), m in unfitted.items()]
    job.write(shares, pd.DataFrame(rows, columns=list(SHARES)), SHARES)
    grafter.checkpoint.remove()


@stage("summarise-grafting", libraries=TABLES)
def summarise_grafting(job: Job, *, grafts: list[Graft], out: Output, checks: Output) -> None:
    """Gather what the masks of all models recover.

    Parameters
    ----------
    grafts
        the files of one model grafted with shared parameters and (WITHOUT, SHARES) without, and
        its shared sets; give one for each
    out
        the table of outcomes to write
    checks
        the table of checks to write
    """
    import pandas as pd

    from factrecall.experiments.common.summaries import read_runs
    from factrecall.experiments.grafting.mask_checks import CHECK, CHECKS
    from factrecall.experiments.grafting.summary import graft_outcomes, overlaps
    from factrecall.experiments.grafting.tables import GRAFTING
    from factrecall.runtime.replicates import replicate_of

    job.write(out, pd.concat(graft_outcomes(graft) for graft in grafts), GRAFTING)
    found = [read_runs(grafts, CHECK, "checks")]
    # Another replicate has another θpre, so that its masks do not compare.
    groups: dict[tuple[str, str, str, int], dict[int, Path]] = {}
    for g in grafts:
        key = g.model, g.tuning, g.split, replicate_of(g.seed)
        groups.setdefault(key, {})[g.seed] = g.masks
    for (model, tuning, split, _), masks in groups.items():
        found.append(overlaps(masks).assign(model=model, tuning=tuning, split=split))
    job.write(checks, pd.concat(found), CHECKS)
