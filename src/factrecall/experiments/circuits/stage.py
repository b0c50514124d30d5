"""The stage of interventions: sweeps over one kind of nodes of one grafted model.

Ranking nodes by S and ranking them by γ or at random are two jobs: a change of S leaves the second
as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from factrecall.experiments.circuits.compute import SweepPlan, run_sweeps
from factrecall.experiments.circuits.tables import CURVES, NODES, QUESTIONS, STEPS
from factrecall.experiments.grafting.grafted_model import open_grafted
from factrecall.models.loading import model_files
from factrecall.parameters.sets import read_set
from factrecall.runtime.checkpoint import Checkpoint
from factrecall.runtime.seeds import generator
from factrecall.runtime.storage import remove_leftovers, write_table
from factrecall.vocabulary import NodeKind

if TYPE_CHECKING:
    from factrecall.experiments.circuits.settings import AdaptiveSteps, AllSteps, NodesPerStep


def intervene(
    kind: NodeKind,
    size: NodesPerStep,
    steps: AllSteps | AdaptiveSteps,
    draws: int,
    individuals: int | None,
    grafted_individuals: int | None,
    max_eval_tokens: int,
    study_seed: int,
    *,
    base: Path,
    tuned: Path,
    seed: int,
    sets: Path | None,
    masks: Path,
    outcomes: Path,
    qa: Path,
    out: Path,
    curves: Path,
    nodes: Path,
    questions: Path,
    state: Path,
    cache_gb: float,
    checkpoint_interval_s: float,
    device: torch.device,
    provenance: Mapping[str, Any],
) -> None:
    """Intervene on all nodes of a kind, in both directions.

    Parameters
    ----------
    kind, size, steps, draws, individuals, grafted_individuals, max_eval_tokens, study_seed
        As configured; `draws` is the number of random orders.
    base, tuned : Path
        Folders of θpre and θtask.
    seed : int
        Of the fine-tuning.
    sets : Path, optional
        Its shared sets, to rank nodes by S. Without, they are ranked by γ and at random.
    masks, outcomes : Path
        Of grafting it on QA out.
    qa : Path
        The table of questions.
    out, curves, nodes, questions : Path
        The tables to write, columns ``STEPS``, ``CURVES``, ``NODES`` and ``QUESTIONS``.
    state : Path
        Folder for the state of interrupted jobs, outside the workflow's outputs.
    cache_gb : float
        Memory for cached residual streams.
    checkpoint_interval_s : float
        How often the state is saved.
    device : torch.device
        Where to run.
    provenance : mapping
        Kept in the metadata of every file; part of the key of the saved state.
    """
    ranking = "grafted" if sets is None else "shared"
    identity = {
        **provenance,
        "settings": repr((kind, size, steps, draws, individuals, grafted_individuals)),
        "max_eval_tokens": max_eval_tokens,
        "seeds": (study_seed, seed),
        "by": ranking,
        "cache_gb": cache_gb,  # where passes begin, and so the last bits
        "device": device.type,
        "threads": torch.get_num_threads(),
        "out": str(out),
    }
    files = [*model_files(base), *model_files(tuned), masks, outcomes, qa]
    checkpoint = Checkpoint.of(
        state, identity, [*files, *([sets] if sets else [])], checkpoint_interval_s
    )
    targets = {
        "steps": (out, STEPS),
        "curves": (curves, CURVES),
        "nodes": (nodes, NODES),
        "questions": (questions, QUESTIONS),
    }
    for target, _ in targets.values():
        remove_leftovers(target)
    memory = cache_gb * 1e9
    grafted = open_grafted(base, tuned, masks, outcomes, device, memory)
    evaluator = grafted.questions(qa, grafted_individuals, individuals, study_seed, max_eval_tokens)
    chosen = grafted.mask if sets is None else read_set(sets, "S", grafted.weights.space)
    rng = generator(study_seed, "circuits", ranking, kind, seed)
    settings = SweepPlan(kind, size, steps, draws, max_eval_tokens, memory)
    tables = run_sweeps(grafted, evaluator, ranking, chosen, settings, checkpoint, rng)
    for name, (path, schema) in targets.items():
        write_table(path, tables[name], schema, provenance)
    checkpoint.remove()
