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
        the fitted masks to write, each named by its α
    table
        the table of outcomes to write
    examples
        the per-example table to write
    checks
        the table of checks to write
    thorough
        Also fit again with another order of questions, and to other people's answers.
    """
    from factrecall.experiments.grafting.compute import fitted_masks, open_grafter, whole_accuracy
    from factrecall.experiments.grafting.grafter import (
        OUTCOMES,
        PER_MASK,
        answers,
        outcomes,
        smallest,
        sweep,
    )
    from factrecall.experiments.grafting.mask_checks import CHECK, check_masks
    from factrecall.parameters.sets import write_sets

    kept, given = job.checkpoint(), (grafting, max_eval_tokens, study_seed)
    grafter = open_grafter(*given, base, tuned, qa, split, job.device, kept)
    purpose = (study_seed, seed, split)
    with grafter.weights:
        whole = whole_accuracy(grafter)
        masks = sweep(grafter, "grafting", grafter.excluded(), purpose)
        found = answers(grafter, masks, with_shared=True)
        result = outcomes(masks, found, whole)
        result["chosen"] = smallest(result, grafting.target_recovery)
        trusted = check_masks(grafter, masks, found, result, purpose, thorough=thorough)
    write_sets(out, fitted_masks(masks), {"split": split, "provenance": dict(job.provenance)})
    job.write(table, result, OUTCOMES)
    job.write(examples, found, PER_MASK)
    job.write(checks, trusted, CHECK)
    kept.remove()


@stage(
    "graft-without-shared",
    settings=lambda study: {
        "grafting": study.grafting,
    },
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

    Parameters
    ----------
    out
        the fitted masks to write, each named by its α
    table
        the table of outcomes to write
    examples
        the per-example table to write
    shares
        the table to write of how much of the largest changes is shared
    """
    import pandas as pd

    from factrecall.experiments.grafting.compute import fitted_masks, open_grafter, whole_accuracy
    from factrecall.experiments.grafting.grafter import (
        PER_MASK,
        RECOVERED,
        SHARES,
        answers,
        outcomes,
        sweep,
        unfitted,
    )
    from factrecall.experiments.grafting.mask_checks import overlap
    from factrecall.parameters.sets import read_set, write_sets

    kept, given = job.checkpoint(), (grafting, max_eval_tokens, study_seed)
    grafter = open_grafter(*given, base, tuned, qa, split, job.device, kept)
    shared = read_set(sets, "S", grafter.weights.space)
    excluded = grafter.excluded()
    with grafter.weights:
        whole = whole_accuracy(grafter)
        purpose = (study_seed, seed, split)
        masks = sweep(grafter, "grafting without S", excluded | shared, purpose)
        found = answers(grafter, masks, with_shared=False)
        # The largest changes are found again, here where S is known: these masks are as large as
        # the fitted ones, and `graft` would have to keep them for this one number.
        held = {key: overlap(mask, shared) for key, mask in unfitted(grafter, excluded).items()}
    write_sets(out, fitted_masks(masks), {"split": split, "provenance": dict(job.provenance)})
    job.write(table, outcomes(masks, found, whole), RECOVERED)
    job.write(examples, found, PER_MASK)
    rows = [(*key, fraction) for key, fraction in held.items()]
    job.write(shares, pd.DataFrame(rows, columns=list(SHARES)), SHARES)
    kept.remove()


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

    from factrecall.experiments.grafting.compute import graft_outcomes
    from factrecall.experiments.grafting.grafter import GRAFTING
    from factrecall.experiments.grafting.mask_checks import CHECK, CHECKS, overlaps

    job.write(out, pd.concat(graft_outcomes(graft) for graft in grafts), GRAFTING)
    found = [job.read(g.checks, CHECK).assign(**g.labels) for g in grafts]
    groups: dict[tuple[str, str, str], dict[int, Path]] = {}
    for g in grafts:
        groups.setdefault((g.model, g.tuning, g.split), {})[g.seed] = g.masks
    for (model, tuning, split), masks in groups.items():
        found.append(overlaps(masks).assign(model=model, tuning=tuning, split=split))
    job.write(checks, pd.concat(found), CHECKS)
