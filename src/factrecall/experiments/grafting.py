"""The stages of grafting: one fine-tuned model at every α, and all of a study together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from factrecall.experiments.checks import CHECK, CHECKS, check_masks, overlaps
from factrecall.experiments.grafts import (
    GRAFTING,
    OUTCOMES,
    PER_MASK,
    UNFITTED,
    Grafter,
    answers,
    fitted_people,
    outcomes,
    sweep,
)
from factrecall.experiments.pair import open_pair
from factrecall.facts.forms import QA_COLUMNS
from factrecall.parameters.sets import read_set, write_sets
from factrecall.recall import Evaluation
from factrecall.storage import read_table, write_table

if TYPE_CHECKING:
    import torch

    from factrecall.config.grafting import Grafting


def graft(
    grafting: Grafting,
    batch_tokens: int,
    study_seed: int,
    thorough: bool,
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
    checks: Path,
    device: torch.device,
    provenance: Mapping[str, Any],
) -> None:
    """Graft one fine-tuned model at every α, with and without its shared parameters.

    Parameters
    ----------
    grafting, batch_tokens, study_seed
        What the configuration says.
    thorough : bool
        Also fit again with another order of questions, and to other people's answers.
    base, tuned : Path
        Folders of θpre and θtask.
    seed : int
        Of the fine-tuning.
    split : {"in", "out"}
        Whose questions.
    sets : Path
        The shared sets of this model.
    qa : Path
        The table of questions.
    out : Path
        The fitted masks to write, named ``<alpha>/with`` and ``<alpha>/without``.
    table, examples, checks : Path
        The tables to write, columns ``OUTCOMES``, ``PER_MASK`` and ``checks.CHECK``.
    device : torch.device
        Where to run.
    provenance : mapping
        Kept in the metadata of every file.
    """
    tokenizer, model, weights = open_pair(base, tuned, device)
    asked = read_table(qa, QA_COLUMNS)
    asked = asked[asked["split"] == split]
    inside = asked["individual"].isin(fitted_people(asked, grafting.individuals, study_seed, split))
    grafter = Grafter(
        grafting, batch_tokens, tokenizer, model, weights, asked[inside], asked[~inside], device
    )
    shared = read_set(sets, "S", weights.space)
    purpose = (study_seed, seed, split)
    with weights:
        whole = grafter.evaluator(grafter.fitted).answers.right(model)
        masks = sweep(grafter, shared, purpose)
        found = answers(grafter, masks)
        result = outcomes(masks, found, shared, float(whole.mean()), grafting.recovery)
        trusted = check_masks(grafter, masks, found, result, purpose, thorough=thorough)
    kept = {
        f"{alpha!r}/{'with' if with_shared else 'without'}": mask
        for (alpha, with_shared, method), mask in masks.items()
        if method not in UNFITTED
    }
    write_sets(out, kept, {"split": split, "provenance": dict(provenance)})
    write_table(table, result, OUTCOMES, provenance)
    write_table(examples, found, PER_MASK, provenance)
    write_table(checks, trusted, CHECK, provenance)


@dataclass(frozen=True)
class Graft(Evaluation):
    """The files of one grafted model: its outcomes (`table`), its checks and its masks."""

    split: str
    checks: Path
    masks: Path


def summarise_grafting(
    grafts: Sequence[Graft], out: Path, checks: Path, provenance: Mapping[str, Any]
) -> None:
    """Write ``tables/grafting.parquet`` and ``tables/grafting_checks.parquet``."""

    def labelled(path: Path, graft: Graft, schema: Mapping[str, str]) -> pd.DataFrame:
        return read_table(path, schema).assign(
            model=graft.model, tuning=graft.tuning, seed=graft.seed, split=graft.split
        )

    outcomes_ = pd.concat(labelled(g.table, g, OUTCOMES) for g in grafts)
    write_table(out, outcomes_, GRAFTING, provenance)
    found = [labelled(g.checks, g, CHECK) for g in grafts]
    groups: dict[tuple[str, str, str], dict[int, Path]] = {}
    for g in grafts:
        groups.setdefault((g.model, g.tuning, g.split), {})[g.seed] = g.masks
    for (model, tuning, split), masks in groups.items():
        found.append(overlaps(masks).assign(model=model, tuning=tuning, split=split))
    write_table(checks, pd.concat(found), CHECKS, provenance)
