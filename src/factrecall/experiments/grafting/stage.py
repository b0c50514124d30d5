"""The stages of grafting: one fine-tuned model at every α, and all of a study together.

Masks that may hold anything and masks without S are the work of two jobs: the first is the longer
one, knows nothing of S, and stays as it is when another S is selected.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from factrecall.data.files import QA_COLUMNS
from factrecall.evaluation.exact_match import Evaluation
from factrecall.experiments.common.model_pair import open_pair
from factrecall.experiments.grafting.grafter import (
    GRAFTING,
    OUTCOMES,
    PER_MASK,
    RECOVERED,
    SHARES,
    UNFITTED,
    Grafter,
    Masks,
    answers,
    fitted_people,
    outcomes,
    smallest,
    sweep,
    unfitted,
)
from factrecall.experiments.grafting.mask_checks import (
    CHECK,
    CHECKS,
    check_masks,
    overlap,
    overlaps,
)
from factrecall.models.loading import model_files
from factrecall.parameters.placement import DUAL_AVERAGING, SIGMOID
from factrecall.parameters.sets import ParameterSet, read_set, read_sets, write_sets
from factrecall.runtime.checkpoint import Checkpoint
from factrecall.runtime.storage import read_table, remove_leftovers, write_table

if TYPE_CHECKING:
    from factrecall.experiments.grafting.settings import GraftingSettings


def graft(
    grafting: GraftingSettings,
    max_eval_tokens: int,
    study_seed: int,
    thorough: bool,
    *,
    base: Path,
    tuned: Path,
    seed: int,
    split: str,
    qa: Path,
    out: Path,
    table: Path,
    examples: Path,
    checks: Path,
    state: Path,
    device: torch.device,
    checkpoint_interval_s: float,
    provenance: Mapping[str, Any],
) -> None:
    """Graft one fine-tuned model at every α, by masks that may hold anything.

    Parameters
    ----------
    grafting, max_eval_tokens, study_seed
        What the configuration says.
    thorough : bool
        Also fit again with another order of questions, and to other people's answers.
    base, tuned : Path
        Folders of θpre and θtask.
    seed : int
        Of the fine-tuning.
    split : {"in", "out"}
        Whose questions.
    qa : Path
        The table of questions.
    out : Path
        The fitted masks to write, each named by its α.
    table, examples, checks : Path
        The tables to write, columns ``OUTCOMES``, ``PER_MASK`` and ``checks.CHECK``.
    state : Path
        Folder for the states of interrupted fits, outside the workflow's outputs.
    device : torch.device
        Where to run.
    checkpoint_interval_s : float
        How often a fit's state is saved.
    provenance : mapping
        Kept in the metadata of every file; part of the key of the saved states.
    """
    for target in (out, table, examples, checks):
        remove_leftovers(target)
    job = {**provenance, "seed": seed, "split": split, "out": str(out)}
    files = [qa, *model_files(base), *model_files(tuned)]
    kept = _checkpoint(
        state, checkpoint_interval_s, grafting, max_eval_tokens, study_seed, job, files, device
    )
    grafter = _open(grafting, max_eval_tokens, study_seed, base, tuned, qa, split, device, kept)
    purpose = (study_seed, seed, split)
    with grafter.weights:
        whole = _whole(grafter)
        masks = sweep(grafter, "grafting", grafter.excluded(), purpose)
        found = answers(grafter, masks, with_shared=True)
        result = outcomes(masks, found, whole)
        result["chosen"] = smallest(result, grafting.target_recovery)
        trusted = check_masks(grafter, masks, found, result, purpose, thorough=thorough)
    write_sets(out, _fitted(masks), {"split": split, "provenance": dict(provenance)})
    write_table(table, result, OUTCOMES, provenance)
    write_table(examples, found, PER_MASK, provenance)
    write_table(checks, trusted, CHECK, provenance)
    grafter.checkpoint.remove()


def graft_without_shared(
    grafting: GraftingSettings,
    max_eval_tokens: int,
    study_seed: int,
    *,
    base: Path,
    tuned: Path,
    seed: int,
    split: str,
    sets: Path,
    qa: Path,
    out: Path,
    table: Path,
    examples: Path,
    shares: Path,
    state: Path,
    device: torch.device,
    checkpoint_interval_s: float,
    provenance: Mapping[str, Any],
) -> None:
    """Graft one fine-tuned model at every α, by masks with none of its shared parameters in them.

    Parameters
    ----------
    grafting, max_eval_tokens, study_seed, base, tuned, seed, split, qa, out, examples
        As in `graft`.
    sets : Path
        The shared sets of this model.
    table, shares : Path
        The tables to write, columns ``RECOVERED`` and ``SHARES``.
    state, device, checkpoint_interval_s, provenance
        As in `graft`.
    """
    for target in (out, table, examples, shares):
        remove_leftovers(target)
    job = {**provenance, "seed": seed, "split": split, "out": str(out)}
    files = [sets, qa, *model_files(base), *model_files(tuned)]
    kept = _checkpoint(
        state, checkpoint_interval_s, grafting, max_eval_tokens, study_seed, job, files, device
    )
    grafter = _open(grafting, max_eval_tokens, study_seed, base, tuned, qa, split, device, kept)
    shared = read_set(sets, "S", grafter.weights.space)
    excluded = grafter.excluded()
    with grafter.weights:
        whole = _whole(grafter)
        purpose = (study_seed, seed, split)
        masks = sweep(grafter, "grafting without S", excluded | shared, purpose)
        found = answers(grafter, masks, with_shared=False)
        # What moved most is found again, here where S is known: its masks are as large as the
        # fitted ones, and `graft` would have to keep them for this one number.
        held = {key: overlap(mask, shared) for key, mask in unfitted(grafter, excluded).items()}
    write_sets(out, _fitted(masks), {"split": split, "provenance": dict(provenance)})
    write_table(table, outcomes(masks, found, whole), RECOVERED, provenance)
    write_table(examples, found, PER_MASK, provenance)
    rows = [(*key, fraction) for key, fraction in held.items()]
    write_table(shares, pd.DataFrame(rows, columns=list(SHARES)), SHARES, provenance)
    grafter.checkpoint.remove()


def _checkpoint(
    state: Path,
    checkpoint_interval_s: float,
    grafting: GraftingSettings,
    max_eval_tokens: int,
    study_seed: int,
    job: Mapping[str, Any],
    files: Sequence[Path],
    device: torch.device,
) -> Checkpoint:
    """Return where a job's fits keep their states."""
    identity = {
        **job,
        "grafting": repr(grafting),
        "max_eval_tokens": max_eval_tokens,
        "study_seed": study_seed,
        "device": device.type,
        "threads": torch.get_num_threads(),
    }
    return Checkpoint.of(state, identity, files, checkpoint_interval_s)


def _open(
    grafting: GraftingSettings,
    max_eval_tokens: int,
    study_seed: int,
    base: Path,
    tuned: Path,
    qa: Path,
    split: str,
    device: torch.device,
    checkpoint: Checkpoint,
) -> Grafter:
    """Open a fine-tuned model and the questions of a split."""
    held = DUAL_AVERAGING if grafting.optimiser.method == "dual_averaging" else SIGMOID
    tokenizer, model, weights = open_pair(base, tuned, device, held=held)
    asked = read_table(qa, QA_COLUMNS)
    asked = asked[asked["split"] == split]
    inside = asked["individual"].isin(
        fitted_people(asked, grafting.fit_individuals, study_seed, split)
    )
    people = asked[inside], asked[~inside]
    return Grafter(
        grafting, max_eval_tokens, tokenizer, model, weights, *people, device, checkpoint
    )


def _whole(grafter: Grafter) -> float:
    """Return θtask's accuracy on the questions that masks are fitted to."""
    return float(grafter.evaluator(grafter.fitted).answers.right(grafter.model).mean())


def _fitted(masks: Masks) -> dict[str, ParameterSet]:
    """Return the masks to keep, by the name of their α."""
    return {repr(alpha): mask for (alpha, method), mask in masks.items() if method not in UNFITTED}


@dataclass(frozen=True)
class Graft(Evaluation):
    """The files of one grafted model.

    Attributes
    ----------
    table, checks, masks : Path
        Of `graft`: outcomes, checks and fitted masks.
    without, shares : Path
        Of `graft_without_shared`: what is recovered, and how much of what moved most is in S.
    sets : Path
        The model's shared sets.
    """

    split: str
    checks: Path
    masks: Path
    without: Path
    shares: Path
    sets: Path

    def outcomes(self) -> pd.DataFrame:
        """Return what masks with S and without recover; columns ``GRAFTING``."""
        allowed = read_table(self.table, OUTCOMES)
        without = read_table(self.without, RECOVERED)
        masks = read_sets(self.masks)
        shared = read_set(self.sets, "S", next(iter(masks.values())).space)
        held = read_table(self.shares, SHARES).set_index(["alpha", "method"])["shared_fraction"]
        allowed["shared_fraction"] = [
            held[alpha, method] if method in UNFITTED else overlap(masks[repr(alpha)], shared)
            for alpha, method in zip(allowed["alpha"].tolist(), allowed["method"], strict=True)
        ]
        without["shared_fraction"] = 0.0
        # Without S as much is grafted as with it, whatever it recovers.
        alpha = allowed.loc[allowed["chosen"], "alpha"].min()
        without["chosen"] = ~without["method"].isin(UNFITTED) & (without["alpha"] == alpha)
        return self.labelled(pd.concat([allowed, without]))

    def labelled(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return a table with columns that tell whose it is."""
        return table.assign(model=self.model, tuning=self.tuning, seed=self.seed, split=self.split)


def summarise_grafting(
    grafts: Sequence[Graft], out: Path, checks: Path, provenance: Mapping[str, Any]
) -> None:
    """Write ``tables/grafting.parquet`` and ``tables/grafting_checks.parquet``."""
    write_table(out, pd.concat(g.outcomes() for g in grafts), GRAFTING, provenance)
    found = [g.labelled(read_table(g.checks, CHECK)) for g in grafts]
    groups: dict[tuple[str, str, str], dict[int, Path]] = {}
    for g in grafts:
        groups.setdefault((g.model, g.tuning, g.split), {})[g.seed] = g.masks
    for (model, tuning, split), masks in groups.items():
        found.append(overlaps(masks).assign(model=model, tuning=tuning, split=split))
    write_table(checks, pd.concat(found), CHECKS, provenance)
