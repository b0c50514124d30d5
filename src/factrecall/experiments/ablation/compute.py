"""Ablation: what a model recalls with its shared parameters reset to θpre (paper, section 3.1).

`resets` lists what is reset in turn. The first five are evaluated on all facts, the others on the
questions of some people; differences are always between the same questions.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from factrecall.data.files import BIO_COLUMNS, QA_COLUMNS
from factrecall.evaluation.exact_match import PER_EXAMPLE, SUMMARY, Evaluator
from factrecall.experiments.ablation.resets import NONE, Ablation, Context
from factrecall.experiments.common.model_pair import open_pair
from factrecall.experiments.shared_parameters.compute import Rankings, read_rankings
from factrecall.runs import RUN
from factrecall.runtime.progress import progress
from factrecall.runtime.safetensors_writer import open_tensors
from factrecall.runtime.seeds import generator
from factrecall.runtime.storage import Schema
from factrecall.vocabulary import SIDES

if TYPE_CHECKING:
    from collections.abc import Callable

    from factrecall.parameters.patched_weights import PatchedWeights
    from factrecall.parameters.sets import ParameterSet
    from factrecall.runtime.job import Job

LABELS = {"ablated": "string", "influence": "string", "draw": "int32"}
"""What was reset, the influence that S is ranked by ("" where nothing was), and which draw."""

PER_ABLATION = {**LABELS, **PER_EXAMPLE}
"""Columns of one model's table: one row an ablation, split, individual and relation."""

MEMBERS = {**LABELS, "tensor": "string", **dict.fromkeys(("size", "members", "shared"), "int64")}
"""Columns of one model's table of sets: one row an ablation and tensor with members.

`size` counts the tensor's parameters, `members` those reset, `shared` those of them that are in S.
"""

ABLATION = {
    **RUN,
    **LABELS,
    **{n: t for n, t in SUMMARY.items() if n not in RUN},
    "drop": "float64",
}
"""Columns of ``tables/ablation.parquet``; `drop` is the accuracy lost, on the same questions."""

PEOPLE = {
    **RUN, **LABELS, "split": "string",
    **dict.fromkeys(("individual", "n", "correct"), "int32"), "drop": "float64",
}  # fmt: skip
"""Columns of ``tables/ablation_people.parquet``: the same by individual, relations together."""

SETS = {**RUN, **MEMBERS}
"""Columns of ``tables/ablation_sets.parquet``."""


def context_of(traces: list[Path], sets: Path, weights: PatchedWeights) -> Context:
    """Return what the ablations of a training history are chosen from.

    `traces` and `sets` are its own; `sets` says which influence S was selected by, and k.
    """
    said = open_tensors(sets, ("k", "influence")).metadata
    rankings: Rankings = read_rankings(traces)
    return Context(rankings, int(said["k"]), str(said["influence"]), weights)


def evaluate_resets(
    job: Job,
    pair: tuple[Path, Path],
    facts: tuple[Path, Path],
    choose: Callable[[PatchedWeights], Iterable[Ablation]],
    *,
    individuals: int | None,
    max_eval_tokens: int,
    study_seed: int,
    seed: int,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Evaluate a fine-tuned model with each of several sets reset, one after the other.

    Parameters
    ----------
    job
        Reads the tables, and has the device.
    pair
        The model that what is reset is taken from, and the fine-tuned model.
    facts
        The tables of biographies and questions.
    choose : callable
        Given the weights, inside their block, what is reset in turn.
    individuals : int, optional
        People of each side whose questions are evaluated where not everything is.
    study_seed, seed : int
        Random sets depend on both, the people on the study's alone.

    Returns
    -------
    examples, sets : DataFrame
        Columns ``PER_ABLATION`` and ``MEMBERS``.
    """
    tokenizer, model, composition = open_pair(*pair, job.device)
    bio, qa = job.read(facts[0], BIO_COLUMNS), job.read(facts[1], QA_COLUMNS)
    some = qa[qa["individual"].isin(drawn_people(qa, individuals, study_seed))]
    evaluators = {
        everything: Evaluator.of(tokenizer, *tables, max_eval_tokens, job.device)
        for everything, tables in ((True, (bio, qa)), (False, (bio.iloc[:0], some)))
    }
    examples, sets = [], []
    with composition as weights:
        chosen = list(choose(weights))
        texts = sum(len(evaluators[one.everything].texts) for one in chosen)
        with progress(texts, "ablation", "text") as watch:
            done = 0
            for one in chosen:
                labels = {name: getattr(one, name) for name in LABELS}
                rng = generator(study_seed, "ablation", seed, *labels.values())
                members = one.members(one.context, rng)
                weights.set(~members)
                evaluator = evaluators[one.everything]
                seen = partial(lambda before, now: watch(before + now), done)
                examples.append(evaluator.evaluate(model, seen).assign(**labels))
                sets.append(_by_tensor(members, one.context.shared).assign(**labels))
                done += len(evaluator.texts)
    return pd.concat(examples), pd.concat(sets)


def drawn_people(qa: pd.DataFrame, individuals: int | None, study_seed: int) -> list[int]:
    """Draw so many people of each side; the same for every model, tuning and seed."""
    found: list[int] = []
    for side in SIDES:
        people = qa.loc[qa["split"] == side, "individual"].unique()
        rng = generator(study_seed, "ablation", "people", side)
        found += rng.permutation(people)[:individuals].tolist()
    return found


def _by_tensor(members: ParameterSet, shared: ParameterSet) -> pd.DataFrame:
    counts, both, size = members.counts(), (members & shared).counts(), members.space.size_of
    rows = [(name, size[name], count, both[name]) for name, count in counts.items() if count]
    return pd.DataFrame(rows, columns=["tensor", "size", "members", "shared"])


def with_before(examples: pd.DataFrame) -> pd.DataFrame:
    """Add the column `before`: whether the same model was right with nothing reset."""
    keys = [*RUN, "split", "individual", "relation"]
    whole = examples.loc[examples["ablated"] == NONE, [*keys, "correct"]]
    return examples.merge(whole.rename(columns={"correct": "before"}), on=keys, validate="m:1")


def summarise_by(column: str, examples: pd.DataFrame, schema: Schema) -> pd.DataFrame:
    """Count right answers of every ablation by split and a column (see `with_before`)."""
    keys: list[Any] = [*RUN, *LABELS, "split", column]
    groups = examples.groupby(keys, sort=False)
    table = groups.agg(n=("correct", "size"), correct=("correct", "sum"), before=("before", "sum"))
    table = table.reset_index()
    drop = (table["before"] - table["correct"]) / table["n"]
    return table.assign(accuracy=table["correct"] / table["n"], drop=drop)[list(schema)]
