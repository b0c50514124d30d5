"""All sweeps of a job, as tables."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from factrecall.evaluation.early_exit import EarlyExit
from factrecall.evaluation.incremental_forward import IncrementalForward
from factrecall.experiments.circuits.adaptive_grid import evaluate_curve
from factrecall.experiments.circuits.sweep import Circuit, rank_nodes
from factrecall.experiments.circuits.sweep_runner import SweepRunner
from factrecall.experiments.circuits.tables import DIRECTIONS
from factrecall.models.architectures import architecture_of
from factrecall.parameters.nodes import Nodes
from factrecall.parameters.sets import ParameterSet
from factrecall.runtime.checkpoint import Checkpoint
from factrecall.runtime.progress import progress
from factrecall.vocabulary import NodeKind

if TYPE_CHECKING:
    from factrecall.evaluation.exact_match import Evaluator
    from factrecall.experiments.circuits.settings import AdaptiveSteps, AllSteps, NodesPerStep
    from factrecall.experiments.grafting.grafted_model import Grafted


@dataclass(frozen=True)
class SweepPlan:
    """How a job sweeps over its nodes.

    Attributes
    ----------
    kind : {"attention", "column", "unit"}
        The nodes.
    size : NodesPerStep
        How many nodes a step intervenes on.
    steps : AllSteps or AdaptiveSteps
        Which steps are evaluated.
    random_orders : int
        How many random rankings there are besides the counted one.
    max_eval_tokens : int
        Tokens in a batch.
    cache_bytes : float
        Memory for cached residual streams.
    """

    kind: NodeKind
    size: NodesPerStep
    steps: AllSteps | AdaptiveSteps
    random_orders: int
    max_eval_tokens: int
    cache_bytes: float


def run_sweeps(
    grafted: Grafted,
    questions: Evaluator,
    ranking: str,
    chosen: ParameterSet,
    settings: SweepPlan,
    checkpoint: Checkpoint,
    rng: np.random.Generator,
) -> dict[str, pd.DataFrame]:
    """Intervene on all nodes of a kind, in both directions.

    Parameters
    ----------
    grafted : Grafted
        The model.
    questions : Evaluator
        What it is evaluated on.
    ranking, chosen : str, ParameterSet
        The first ranking is by parameters in `chosen`.
    settings : SweepPlan
        How.
    checkpoint : Checkpoint
        Of the job.
    rng : Generator
        Draws random orders and the steps that test a curve.

    Returns
    -------
    dict of str to DataFrame
        "steps", "curves", "nodes" and "questions"; see `circuits.tables`.
    """
    model, device, memory = grafted.model, grafted.device, settings.cache_bytes
    nodes = Nodes.of(model, settings.kind)
    orders = rank_nodes(nodes, {ranking: chosen}, settings.random_orders, rng)
    per_step = {"forward": settings.size.forward, "backward": settings.size.backward}
    last = {direction: -(-len(nodes) // per_step[direction]) for direction in DIRECTIONS}
    total = sum(count + 1 for count in last.values()) * len(orders)
    title = f"interventions, {settings.kind}, by {ranking}"
    steps, curves, done = [], [], 0
    layers = architecture_of(model.config).layers_of(model)
    early_exit = EarlyExit(questions.texts, settings.max_eval_tokens, device)
    with (
        grafted.weights as weights,
        IncrementalForward(model, layers, early_exit, memory) as incremental,
        progress(total, title, "step") as watch,
        checkpoint,
    ):
        weights.set(grafted.mask)
        whole = incremental.right(0)
        circuit = Circuit(weights, incremental, nodes, grafted.mask)
        runner = SweepRunner(checkpoint, watch)
        for direction, ((name, number), order) in product(DIRECTIONS, orders.items()):
            sweep = {"direction": direction, "ranking": name, "random_order": number}
            runner.begin(partial(circuit.sweep, order, direction), per_step[direction], done)
            curve = evaluate_curve(runner, last[direction], settings.steps, rng)
            done += last[direction] + 1
            curves.append(
                {
                    **sweep,
                    "steps": last[direction],
                    "evaluated": len(curve.values),
                    "held_out": curve.held_out,
                    "worst": curve.worst,
                    "objective": grafted.objective,
                    "held_out_recovery": grafted.held_out_recovery,
                    "order": order,
                }
            )
            for step, right in sorted(runner.outcomes.items()):
                count = min(step * per_step[direction], len(order))
                numbers = np.flatnonzero(right).astype(np.int32)
                steps.append({**sweep, "step": step, "nodes": count, "right": numbers})
        watch(total)
        runner.end()
    rows = questions.rows[["individual", "relation"]]
    return {
        "steps": pd.DataFrame(steps),
        "curves": pd.DataFrame(curves),
        "nodes": _nodes(nodes, chosen),
        "questions": rows.assign(question=range(len(whole)), grafted=whole),
    }


def _nodes(nodes: Nodes, chosen: ParameterSet) -> pd.DataFrame:
    members = nodes.counts(chosen)
    score = pd.Series(members * nodes.table["weight"].to_numpy())
    return nodes.table.assign(
        node=range(len(nodes)),
        size=nodes.sizes(),
        members=members,
        rank=score.rank(method="min", ascending=False).astype(int),
    )
