"""The stage of interventions: sweeps over one kind of nodes of one grafted model.

A job orders the nodes by shared parameters, or by all else that this is compared with: a change of
what counts as shared leaves the latter as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from factrecall.evaluation.early_exit import EarlyExit
from factrecall.evaluation.incremental_forward import IncrementalForward
from factrecall.experiments.circuits.adaptive_grid import Curve, adaptive, each
from factrecall.experiments.circuits.sweep import DIRECTIONS, Circuit, orders
from factrecall.experiments.circuits.sweep_runner import Found, SweepRunner
from factrecall.experiments.grafting.grafted_model import open_grafted
from factrecall.models.architectures import architecture_of
from factrecall.models.loading import model_files
from factrecall.parameters.nodes import Kind, Nodes
from factrecall.parameters.sets import ParameterSet, read_set
from factrecall.runtime.checkpoint import Checkpoint
from factrecall.runtime.progress import progress
from factrecall.runtime.seeds import generator
from factrecall.runtime.storage import remove_leftovers, write_table

if TYPE_CHECKING:
    from factrecall.experiments.circuits.settings import AdaptiveSteps, AllSteps, NodesPerStep

SWEEP = {"direction": "string", "priority": "string", "draw": "int32"}

STEPS = {
    **SWEEP,
    "step": "int32",
    "nodes": "int32",
    "right": "list<int32>",
}
"""Columns of one job's outcomes: a row a step that was asked.

`nodes` are intervened on, the first of the sweep's order; `right` numbers the questions that are
then answered rightly, in the order of the table of questions.
"""

CURVES = {
    **SWEEP,
    "steps": "int32",
    "asked": "int32",
    "held_out": "int32",
    "worst": "float64",
    "order": "list<int32>",
}
"""Columns of one job's sweeps: how many steps there are, how many of them were asked, how many of
these tested the curve between the others, how far off the worst of them was, and in which order
nodes have their turn."""

QUESTIONS = {"question": "int32", "individual": "int32", "relation": "string", "grafted": "bool"}
"""Columns of one job's questions; `grafted` says whether the whole grafted model is right."""

NODES = {
    "node": "int32",
    "layer": "int32",
    "projection": "string",
    "head": "int32",
    "weight": "float64",
    "size": "int64",
    "members": "int64",
    "rank": "int32",
}
"""Columns of one job's nodes: parameters in all and in the set that it orders them by, S or γ, and
ranks by the latter.

The node of most has rank 1; counts are multiplied by `weight` before they are ranked, and nodes of
equal counts share the best of their ranks.
"""


def intervene(
    kind: Kind,
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
        What the configuration says; `draws` is how many orders there are by chance.
    base, tuned : Path
        Folders of θpre and θtask.
    seed : int
        Of the fine-tuning.
    sets : Path, optional
        Its shared sets: nodes are ordered by S. Without, they are by γ.
    masks, outcomes : Path
        Of grafting it on QA out.
    qa : Path
        The table of questions.
    out, curves, nodes, questions : Path
        The tables to write, columns ``STEPS``, ``CURVES``, ``NODES`` and ``QUESTIONS``.
    state : Path
        Folder for the state of interrupted jobs, outside the workflow's outputs.
    cache_gb : float
        Memory for the residual streams that are kept.
    checkpoint_interval_s : float
        How often the state is saved.
    device : torch.device
        Where to run.
    provenance : mapping
        Kept in the metadata of every file; part of the key of the saved state.
    """
    identity = {
        **provenance,
        "settings": repr((kind, size, steps, draws, individuals, grafted_individuals)),
        "max_eval_tokens": max_eval_tokens,
        "seeds": (study_seed, seed),
        "by": "grafted" if sets is None else "shared",
        "cache_gb": cache_gb,  # where passes begin, and so the last bits
        "device": device.type,
        "threads": torch.get_num_threads(),
        "out": str(out),
    }
    files = [*model_files(base), *model_files(tuned), masks, outcomes, qa]
    checkpoint = Checkpoint.of(
        state, identity, [*files, *([sets] if sets else [])], checkpoint_interval_s
    )
    for target in (out, curves, nodes, questions):
        remove_leftovers(target)
    grafted = open_grafted(base, tuned, masks, outcomes, device, cache_gb * 1e9)
    judge = grafted.questions(qa, grafted_individuals, individuals, study_seed, max_eval_tokens)
    model, parts = grafted.model, Nodes.of(grafted.model, kind)
    if sets is None:
        priority, chosen = "grafted", grafted.mask
    else:
        priority, chosen = "shared", read_set(sets, "S", grafted.weights.space)
    rng = generator(study_seed, "circuits", priority, kind, seed)
    by = orders(parts, {priority: chosen}, draws, rng)
    per_step = {"forward": size.forward, "backward": size.backward}
    counts = {d: -(-len(parts) // per_step[d]) for d in DIRECTIONS}
    total = sum(count + 1 for count in counts.values()) * len(by)
    rows, told, done = [], [], 0
    layers = architecture_of(model.config).layers_of(model)
    beginnings = EarlyExit(judge.texts, max_eval_tokens, device)
    with (
        grafted.weights as weights,
        IncrementalForward(model, layers, beginnings, cache_gb * 1e9) as asked,
        progress(total, f"interventions, {kind}, by {priority}", "step") as watch,
        checkpoint,
    ):
        weights.set(grafted.mask)
        whole = asked.right(0)
        circuit = Circuit(weights, asked, parts, grafted.mask)
        ask = SweepRunner(checkpoint, watch)
        for direction, (key, order) in product(DIRECTIONS, by.items()):
            ask.begin(partial(circuit.sweep, order, direction), per_step[direction], done)
            curve = _curve(ask, counts[direction], steps, rng)
            done += counts[direction] + 1
            named = {"direction": direction, "priority": key[0], "draw": key[1]}
            told.append({**_told(curve, counts[direction], named), "order": order})
            rows += _rows(ask.found, len(order), per_step[direction], named)
        watch(total)
        ask.end()
    write_table(out, pd.DataFrame(rows), STEPS, provenance)
    write_table(curves, pd.DataFrame(told), CURVES, provenance)
    write_table(nodes, _table(parts, chosen), NODES, provenance)
    asked_ = judge.rows[["individual", "relation"]].assign(question=range(len(whole)))
    write_table(questions, asked_.assign(grafted=whole), QUESTIONS, provenance)
    checkpoint.remove()


def _curve(
    ask: Callable[[int], float],
    count: int,
    steps: AllSteps | AdaptiveSteps,
    rng: np.random.Generator,
) -> Curve:
    if steps.method == "all":
        return each(ask, count, steps.stride)
    return adaptive(ask, count, steps.intervals, steps.tolerance, steps.held_out, rng)


def _told(curve: Curve, count: int, key: Mapping[str, object]) -> dict[str, object]:
    held = {"held_out": curve.held_out, "worst": curve.worst}
    return {**key, "steps": count, "asked": len(curve.values), **held}


def _rows(
    found: Found, nodes: int, per_step: int, key: Mapping[str, object]
) -> list[dict[str, object]]:
    return [
        {
            **key,
            "step": step,
            "nodes": min(step * per_step, nodes),
            "right": np.flatnonzero(right).astype(np.int32),
        }
        for step, right in sorted(found.items())
    ]


def _table(parts: Nodes, chosen: ParameterSet) -> pd.DataFrame:
    members = parts.counts(chosen)
    score = pd.Series(members * parts.table["weight"].to_numpy())
    return parts.table.assign(
        node=range(len(parts)),
        size=parts.sizes(),
        members=members,
        rank=score.rank(method="min", ascending=False).astype(int),
    )
