"""The stages of circuits: sweeps over one kind of nodes of a grafted model, and all of a study.

Ranking nodes by S and ranking them by γ or at random are two jobs: a change of S leaves the second
as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from factrecall.experiments.circuits.runs import Intervention
from factrecall.runs import interventions
from factrecall.runtime.errors import FactRecallError
from factrecall.runtime.job import Job
from factrecall.runtime.stage import EXPERIMENTS, TABLES, Input, Output, stage
from factrecall.vocabulary import NodeKind

if TYPE_CHECKING:
    from factrecall.experiments.circuits.settings import AdaptiveSteps, AllSteps, NodesPerStep


@stage(
    "intervene",
    settings=lambda study, kind, ranking: {
        "size": getattr(study.circuits, kind),
        "steps": study.circuits.steps,
        "random_orders": study.circuits.random_orders if ranking == "baseline" else 0,
        "individuals": study.circuits.individuals,
        "grafted_individuals": study.grafting.fit_individuals,
    },
    libraries=EXPERIMENTS,
    per=interventions,
    device="model",
    resumes=True,
)
def intervene(
    job: Job,
    *,
    base: Input,
    tuned: Input,
    seed: int,
    kind: NodeKind,
    ranking: str,
    sets: Input | None,
    masks: Input,
    outcomes: Input,
    qa: Input,
    out: Output,
    curves: Output,
    nodes: Output,
    questions: Output,
    size: NodesPerStep,
    steps: AllSteps | AdaptiveSteps,
    random_orders: int,
    individuals: int | None,
    grafted_individuals: int | None,
    max_eval_tokens: int,
    study_seed: int,
) -> None:
    """Intervene on the heads or neurons of a grafted model, in both directions.

    Parameters
    ----------
    seed
        Of the fine-tuning; random orders of different seeds are different draws.
    sets
        the shared sets of the fine-tuned model, to rank nodes by; the baseline takes none
    out
        the table of steps to write
    curves
        the table of how closely each sweep was evaluated to write
    nodes
        the table of nodes to write
    questions
        the table of questions to write
    """
    from factrecall.experiments.circuits.compute import SweepPlan, run_sweeps
    from factrecall.experiments.circuits.tables import CURVES, NODES, QUESTIONS, STEPS
    from factrecall.experiments.grafting.grafted_model import open_grafted
    from factrecall.parameters.sets import read_set
    from factrecall.runtime.seeds import generator

    if (ranking == "shared") != (sets is not None):
        why = f"nodes are ranked by {ranking}, " + (
            "no sets are given" if sets is None else "not by S"
        )
        raise FactRecallError(
            "--sets", why, "give the shared sets with --ranking shared, and only then"
        )
    # Where passes begin depends on the cache, and so do the last bits of what they compute.
    checkpoint, memory = job.checkpoint(cache_gb=job.cache_gb), job.cache_gb * 1e9
    ranked_by = "grafted" if sets is None else "shared"
    grafted = open_grafted(base, tuned, masks, outcomes, job.device, memory)
    evaluator = grafted.questions(qa, grafted_individuals, individuals, study_seed, max_eval_tokens)
    chosen = grafted.mask if sets is None else read_set(sets, "S", grafted.weights.space)
    rng = generator(study_seed, "circuits", ranked_by, kind, seed)
    plan = SweepPlan(kind, size, steps, random_orders, max_eval_tokens, memory)
    tables = run_sweeps(grafted, evaluator, ranked_by, chosen, plan, checkpoint, rng)
    job.write(out, tables["steps"], STEPS)
    job.write(curves, tables["curves"], CURVES)
    job.write(nodes, tables["nodes"], NODES)
    job.write(questions, tables["questions"], QUESTIONS)
    checkpoint.remove()


@stage("summarise-circuits", libraries=TABLES)
def summarise_circuits(
    job: Job,
    *,
    interventions: list[Intervention],
    out: Output,
    by_relation: Output,
    continuity: Output,
    heads: Output,
    sweeps: Output,
    circuits: Output,
    first_study_seed: int,
) -> None:
    """Gather what all interventions show.

    Parameters
    ----------
    interventions
        the files of one job; for each kind once by shared and once by baseline
    out
        the table of accuracies and completeness to write
    by_relation
        the table of accuracies by relation to write
    continuity
        the table of what stays right once it is to write
    heads
        the table of attention nodes to write
    sweeps
        the table of how closely each sweep was evaluated to write
    circuits
        the table of the circuits' numbers to write
    first_study_seed
        Shuffles outcomes between individuals.
    """
    from factrecall.experiments.circuits.summary import circuit_tables

    paths = {
        "interventions": out,
        "by_relation": by_relation,
        "continuity": continuity,
        "heads": heads,
        "sweeps": sweeps,
        "circuits": circuits,
    }
    for name, table, schema in circuit_tables(interventions, first_study_seed):
        job.write(paths[name], table, schema)
