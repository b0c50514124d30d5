"""Ablation: what a model recalls with its shared parameters reset to θpre (paper, section 3.1).

As many others are reset for comparison: random ones, random ones of the same tensors, and those
that fine-tuning moved most (docs/method.md). All are evaluated on the same questions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from factrecall.data.files import BIO_COLUMNS, QA_COLUMNS
from factrecall.evaluation.exact_match import PER_EXAMPLE, SUMMARY, Evaluator, summarise
from factrecall.experiments.common.model_pair import open_pair
from factrecall.parameters.sets import ParameterSet, read_set
from factrecall.runs import RUN
from factrecall.runtime.progress import progress
from factrecall.runtime.seeds import generator
from factrecall.runtime.statistics import paired_interval
from factrecall.vocabulary import SPLITS

if TYPE_CHECKING:
    import numpy as np

    from factrecall.parameters.patched_weights import PatchedWeights
    from factrecall.runtime.job import Job

NONE = "none"
CONTROLS = ("random", "random_by_tensor", "most_moved")
ABLATED = (NONE, "shared", *CONTROLS)
"""What is reset to θpre: nothing, S, or as many others."""

PER_ABLATION = {"ablated": "string", **PER_EXAMPLE}
"""Columns of one model's table: one row an ablation, split, individual and relation."""

ABLATION = {**RUN, "ablated": "string", **SUMMARY, "drop": "float64"}
"""Columns of ``tables/ablation.parquet``; `drop` is the accuracy lost to the ablation."""

INTERVALS = {
    **dict.fromkeys(("model", "tuning", "split", "ablated", "against"), "string"),
    **dict.fromkeys(("difference", "low", "high"), "float64"),
}
"""Columns of ``tables/ablation_intervals.parquet``.

`difference` is the accuracy with `against` ablated minus that with `ablated`, the mean over seeds;
`low` and `high` bound its 95 % bootstrap interval over individuals.
"""


def ablated_sets(
    shared: ParameterSet, weights: PatchedWeights, rng: np.random.Generator
) -> dict[str, ParameterSet]:
    """Return what each ablation resets, as many as `shared` has (or as moved at all).

    `weights` is inside its block; `rng` draws the random sets.
    """
    everything = ~ParameterSet.empty(shared.space)
    return {
        NONE: ParameterSet.empty(shared.space),
        "shared": shared,
        "random": everything.sample(len(shared), rng),
        "random_by_tensor": everything.sample_by_tensor(shared.counts(), rng),
        "most_moved": weights.largest_change(len(shared)),
    }


def evaluate_resets(
    job: Job,
    pair: tuple[Path, Path],
    facts: tuple[Path, Path],
    sets: Path,
    max_eval_tokens: int,
    choose: Callable[
        [ParameterSet, PatchedWeights], Iterable[tuple[Mapping[str, Any], ParameterSet]]
    ],
) -> pd.DataFrame:
    """Evaluate a fine-tuned model with each of several sets reset to θpre, one after the other.

    `pair` are the model before and after fine-tuning, `facts` the tables of biographies and
    questions. `choose` takes S and the weights, inside their block, and returns sets with the
    labels of their rows. Columns are those labels and ``PER_EXAMPLE``.
    """
    tokenizer, model, composition = open_pair(*pair, job.device)
    bio, qa = job.read(facts[0], BIO_COLUMNS), job.read(facts[1], QA_COLUMNS)
    evaluator = Evaluator.of(tokenizer, bio, qa, max_eval_tokens, job.device)
    shared, texts = read_set(sets, "S", composition.space), len(evaluator.texts)
    parts = []
    with composition as weights:
        chosen = list(choose(shared, weights))
        with progress(len(chosen) * texts, "ablation", "text") as watch:
            for number, (labels, members) in enumerate(chosen):
                weights.set(~members)
                seen = partial(lambda before, done: watch(before + done), number * texts)
                parts.append(evaluator.evaluate(model, seen).assign(**labels))
    return pd.concat(parts)


def ablation_table(everything: pd.DataFrame) -> pd.DataFrame:
    """Return accuracies and what each ablation costs; columns ``ABLATION``."""
    keys = ["model", "tuning", "seed", "ablated"]
    counted = pd.concat(
        summarise(rows, str(model), str(tuning), int(s)).assign(ablated=ablated)
        for (model, tuning, s, ablated), rows in everything.groupby(keys, sort=False)
    )
    same = ["model", "tuning", "seed", "split", "relation"]
    whole = counted[counted["ablated"] == NONE].set_index(same)["accuracy"]
    before = whole.reindex(pd.MultiIndex.from_frame(counted[same])).to_numpy()
    counted["drop"] = before - counted["accuracy"].to_numpy()
    return counted


def ablation_intervals(examples: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Compare every ablation with none, and S with every control; columns ``INTERVALS``."""
    pairs = [(name, NONE) for name in ABLATED if name != NONE]
    pairs += [("shared", control) for control in CONTROLS]
    rows = []
    for (model, tuning), part in examples.groupby(["model", "tuning"], sort=False):
        for split in SPLITS:
            outcome = part[part["split"] == split].pivot(
                index=["seed", "individual", "relation"], columns="ablated", values="correct"
            )
            for ablated, against in pairs:
                lost = outcome[against].astype(int) - outcome[ablated].astype(int)
                rng = generator(seed, "ablation", str(model), str(tuning), split, ablated, against)
                rows.append((model, tuning, split, ablated, against, *paired_interval(lost, rng)))
    return pd.DataFrame(rows, columns=list(INTERVALS))
