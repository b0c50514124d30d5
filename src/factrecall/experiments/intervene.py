"""The stage of interventions: every sweep over one kind of nodes of one grafted model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from factrecall.beginnings import Beginnings
from factrecall.experiments.circuits import DIRECTIONS, Circuit, Sweep, orders
from factrecall.experiments.curve import Curve, adaptive, each
from factrecall.experiments.grafted import Grafted, open_grafted
from factrecall.models.anatomy import anatomy_of
from factrecall.models.restart import Restart
from factrecall.parameters.nodes import Kind, Nodes
from factrecall.progress import progress
from factrecall.seeds import generator
from factrecall.storage import write_table

if TYPE_CHECKING:
    import torch

    from factrecall.config.circuits import Adaptive, Each, Steps

SWEEP = {"direction": "string", "priority": "string", "draw": "int32"}

STEPS = {
    **SWEEP,
    "step": "int32",
    "nodes": "int32",
    "shared_fraction": "float64",
    "grafted_fraction": "float64",
    "right": "list<int32>",
}
"""Columns of one job's outcomes: a row a step that was asked.

`nodes` are intervened on, with these shares of the kind's S and γ; `right` numbers the questions
that are then answered rightly, in the order of the table of questions.
"""

CURVES = {**SWEEP, "steps": "int32", "asked": "int32", "held_out": "int32", "worst": "float64"}
"""Columns of one job's sweeps: how many steps there are, how many of them were asked, how many of
these tested the curve between the others, and how far off the worst of them was."""

QUESTIONS = {"question": "int32", "individual": "int32", "relation": "string", "grafted": "bool"}
"""Columns of one job's questions; `grafted` says whether the whole grafted model is right."""

NODES = {
    "node": "int32",
    "layer": "int32",
    "projection": "string",
    "head": "int32",
    "weight": "float64",
    "size": "int64",
    "shared": "int64",
    "grafted": "int64",
    "shared_rank": "int32",
    "grafted_rank": "int32",
}
"""Columns of one job's nodes: parameters in all, in S and in γ, and ranks by the latter two.

The node of most has rank 1; counts are multiplied by `weight` before they are ranked, and nodes of
equal counts share the best of their ranks.
"""


def intervene(
    kind: Kind,
    size: Steps,
    steps: Each | Adaptive,
    draws: int,
    individuals: int | None,
    grafted_individuals: int | None,
    batch_tokens: int,
    study_seed: int,
    *,
    base: Path,
    tuned: Path,
    seed: int,
    sets: Path,
    masks: Path,
    outcomes: Path,
    qa: Path,
    out: Path,
    curves: Path,
    nodes: Path,
    questions: Path,
    cache_gb: float,
    device: torch.device,
    provenance: Mapping[str, Any],
) -> None:
    """Intervene on all nodes of a kind, in both directions and by every priority.

    Parameters
    ----------
    kind, size, steps, draws, individuals, grafted_individuals, batch_tokens, study_seed
        What the configuration says.
    base, tuned : Path
        Folders of θpre and θtask.
    seed : int
        Of the fine-tuning.
    sets, masks, outcomes : Path
        Its shared sets, and the masks and outcomes of grafting it on QA out.
    qa : Path
        The table of questions.
    out, curves, nodes, questions : Path
        The tables to write, columns ``STEPS``, ``CURVES``, ``NODES`` and ``QUESTIONS``.
    cache_gb : float
        Memory for the residual streams that are kept.
    device : torch.device
        Where to run.
    provenance : mapping
        Kept in the metadata of every file.
    """
    grafted = open_grafted(base, tuned, sets, masks, outcomes, device)
    judge = grafted.questions(qa, grafted_individuals, individuals, study_seed, batch_tokens)
    model, parts = grafted.model, Nodes.of(grafted.model, kind)
    table = _table(parts, grafted)
    rng = generator(study_seed, "circuits", kind, seed)
    by = orders(parts, grafted.shared, grafted.mask, draws, rng)
    per_step = {"forward": size.forward, "backward": size.backward}
    counts = {d: -(-len(parts) // per_step[d]) for d in DIRECTIONS}
    rows, told, done = [], [], 0
    layers = anatomy_of(model.config).layers_of(model)
    beginnings = Beginnings(judge.texts, batch_tokens, device)
    with (
        grafted.weights as weights,
        Restart(model, layers, beginnings, cache_gb * 1e9) as asked,
        progress(
            sum(count + 1 for count in counts.values()) * len(by), f"interventions, {kind}", "step"
        ) as watch,
    ):
        weights.hold(grafted.mask)
        whole = asked.right(0)
        circuit = Circuit(weights, asked, parts, grafted.mask)
        for direction, (key, order) in product(DIRECTIONS, by.items()):
            ask = _Asker(circuit.sweep(order, direction), per_step[direction], watch, done)
            curve = _curve(ask, counts[direction], steps, rng)
            done += counts[direction] + 1
            if len(ask.found) <= counts[direction]:
                watch(done)
            named = {"direction": direction, "priority": key[0], "draw": key[1]}
            told.append(_told(curve, counts[direction], named))
            rows += _rows(ask.found, order, table, per_step[direction], named)
    write_table(out, pd.DataFrame(rows), STEPS, provenance)
    write_table(curves, pd.DataFrame(told), CURVES, provenance)
    write_table(nodes, table, NODES, provenance)
    asked_ = judge.rows[["individual", "relation"]].assign(question=range(len(whole)))
    write_table(questions, asked_.assign(grafted=whole), QUESTIONS, provenance)


class _Asker:
    """Asks a sweep step by step, and keeps what it found."""

    def __init__(
        self, sweep: Sweep, per_step: int, watch: Callable[[int], None], before: int
    ) -> None:
        self.found: dict[int, np.ndarray] = {}
        self._sweep, self._per_step, self._watch, self._before = sweep, per_step, watch, before

    def __call__(self, step: int) -> float:
        self.found[step] = self._sweep.at(min(step * self._per_step, self._sweep.nodes))
        self._watch(self._before + len(self.found))
        return float(self.found[step].mean())


def _curve(
    ask: Callable[[int], float], count: int, steps: Each | Adaptive, rng: np.random.Generator
) -> Curve:
    if steps.method == "each":
        return each(ask, count, steps.stride)
    return adaptive(ask, count, steps.intervals, steps.tolerance, steps.held_out, rng)


def _told(curve: Curve, count: int, key: Mapping[str, object]) -> dict[str, object]:
    held = {"held_out": curve.held_out, "worst": curve.worst}
    return {**key, "steps": count, "asked": len(curve.values), **held}


def _rows(
    found: Mapping[int, np.ndarray],
    order: np.ndarray,
    table: pd.DataFrame,
    per_step: int,
    key: Mapping[str, object],
) -> list[dict[str, object]]:
    shares = {}
    for name in ("shared", "grafted"):
        counts = table[name].to_numpy()[order]
        shares[name] = np.concatenate([[0], np.cumsum(counts)]) / max(1, counts.sum())
    rows: list[dict[str, object]] = []
    for step, right in sorted(found.items()):
        nodes = min(step * per_step, len(order))
        fractions = {f"{name}_fraction": share[nodes] for name, share in shares.items()}
        numbers = np.flatnonzero(right).astype(np.int32)
        rows.append({**key, "step": step, "nodes": nodes, **fractions, "right": numbers})
    return rows


def _table(parts: Nodes, grafted: Grafted) -> pd.DataFrame:
    counts = {"shared": parts.counts(grafted.shared), "grafted": parts.counts(grafted.mask)}
    table = parts.table.assign(node=range(len(parts)), size=parts.sizes(), **counts)
    for name in counts:
        score = table[name] * table["weight"]
        table[f"{name}_rank"] = score.rank(method="min", ascending=False).astype(int)
    return table
