"""The study's tables of circuits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from factrecall.experiments.circuits.continuity import (
    CONTINUITY,
    measure_continuity,
    shuffle_outcomes,
)
from factrecall.experiments.circuits.tables import (
    CURVES,
    NODES,
    QUESTIONS,
    READ,
    STEPS,
    SWEEP,
)
from factrecall.runs import RANKINGS, RUN
from factrecall.runtime.errors import FactRecallError
from factrecall.runtime.seeds import generator
from factrecall.runtime.storage import read_table

if TYPE_CHECKING:
    from factrecall.experiments.circuits.runs import Intervention

KEYS = {**RUN, "kind": "string", **SWEEP}

INTERVENTIONS = {
    **KEYS,
    "step": "int32",
    "nodes": "int32",
    "completeness": "float64",
    "accuracy": "float64",
    "shared_fraction": "float64",
    "grafted_fraction": "float64",
}
"""Columns of ``tables/interventions.parquet``: a row a step of a sweep.

`completeness` is accuracy over that of the whole grafted model, missing if that is 0. The fractions
are those of the kind's S and γ in the nodes intervened on.
"""

BY_RELATION = {
    **KEYS,
    "step": "int32",
    "nodes": "int32",
    "relation": "string",
    "n": "int32",
    "correct": "int32",
    "accuracy": "float64",
}
"""Columns of ``tables/interventions_by_relation.parquet``."""

SWEEPS = {**KEYS, **{column: kind for column, kind in CURVES.items() if column != "order"}}
"""Columns of ``tables/sweeps.parquet``: how finely each sweep was evaluated, and of which mask (see
``CURVES``)."""

HEADS = {
    **RUN,
    **{column: kind for column, kind in NODES.items() if column not in ("members", "rank")},
    "shared": "int64",
    "grafted": "int64",
    "shared_rank": "int32",
    "grafted_rank": "int32",
}
"""Columns of ``tables/heads.parquet``: a row an attention node (see ``NODES``), its parameters in S
and in γ, and its ranks by these."""

CIRCUITS = {
    **RUN,
    "kind": "string",
    "direction": "string",
    "ranking": "string",
    "start": "float64",
    "end": "float64",
    "individual": "int32",
    "right": "float64",
    "whole": "float64",
}
"""Columns of ``tables/circuits.parquet``: what claims are judged by, a row a curve and person.

`right` is the share of the person's questions that are right, the mean over the curve from a share
`start` of the nodes to a share `end` (where both are one, at that share; see ``READ``) and over
random orders. `whole` is that share for the whole grafted model. Between evaluated steps, curves
are straight lines.
"""


def circuit_tables(
    interventions: Sequence[Intervention], study_seed: int
) -> Iterator[tuple[str, pd.DataFrame, Mapping[str, str]]]:
    """Yield the study's tables of circuits: the name of each, the table and its columns.

    Raises
    ------
    FactRecallError
        When a job by S is without its baseline, or the baseline without it.
    """
    parts: dict[str, list[pd.DataFrame]] = {}
    for jobs in _pairs(interventions):
        for name, table in _tables(jobs, study_seed):
            parts.setdefault(name, []).append(table)
    schemas: dict[str, Mapping[str, str]] = {
        "interventions": INTERVENTIONS,
        "by_relation": BY_RELATION,
        "continuity": CONTINUITY,
        "heads": HEADS,
        "sweeps": SWEEPS,
        "circuits": CIRCUITS,
    }
    for name, schema in schemas.items():
        found = parts.get(name, [pd.DataFrame(columns=list(schema))])
        table = pd.concat(found, ignore_index=True)
        yield name, table[list(schema)], schema


def _pairs(interventions: Sequence[Intervention]) -> Iterator[dict[str, Intervention]]:
    """Yield the jobs of each run and kind, in the order of ``RANKINGS``."""
    found: dict[tuple[object, ...], dict[str, Intervention]] = {}
    for one in interventions:
        found.setdefault(tuple(one.of_kind.values()), {})[one.ranking] = one
    for of, jobs in found.items():
        if set(jobs) != set(RANKINGS):
            raise FactRecallError(
                f"--interventions {' '.join(map(str, of))}",
                f"it is given for: {', '.join(jobs)}",
                f"give it once for each of: {', '.join(RANKINGS)}",
            )
        yield {ranking: jobs[ranking] for ranking in RANKINGS}


def _tables(jobs: Mapping[str, Intervention], seed: int) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield the parts of the study's tables that one run and kind of nodes add."""
    shared = jobs["shared"]
    nodes = _nodes(*jobs.values())
    if shared.kind == "attention":
        yield "heads", nodes.assign(**shared.labels)
    for by, job in jobs.items():
        curves, questions = read_table(job.curves, CURVES), read_table(job.questions, QUESTIONS)
        steps = read_table(job.steps, STEPS)
        right = np.zeros((len(steps), len(questions)), dtype=bool)
        for row, numbers in zip(right, steps.pop("right"), strict=True):
            row[np.asarray(numbers, dtype=np.int64)] = True
        curve = _fractions(_accuracy(steps, right, questions), curves, nodes)
        yield "interventions", curve.assign(**job.of_kind)
        yield "by_relation", _by_relation(steps, right, questions).assign(**job.of_kind)
        yield "sweeps", curves.assign(**job.of_kind)
        people = by_person(steps, right, questions, job.kind, len(nodes))
        yield "circuits", people.assign(**job.of_kind)
        if by == "shared":
            forward = right[(steps["direction"] == "forward").to_numpy()]
            rng = generator(seed, "continuity", *map(str, job.of_kind.values()))
            for chance in (False, True):
                outcomes = shuffle_outcomes(forward, questions, rng) if chance else forward
                found = measure_continuity(outcomes, questions)
                yield "continuity", found.assign(shuffled=chance, **job.of_kind)


def _nodes(shared: Intervention, baseline: Intervention) -> pd.DataFrame:
    """Return nodes with their parameters in S and in γ; columns of ``HEADS`` without the run."""
    nodes = read_table(shared.nodes, NODES).drop(columns=["members", "rank"])
    for name, job in (("shared", shared), ("grafted", baseline)):
        table = read_table(job.nodes, NODES)
        nodes = nodes.assign(**{name: table["members"], f"{name}_rank": table["rank"]})
    return nodes


def _accuracy(steps: pd.DataFrame, right: np.ndarray, questions: pd.DataFrame) -> pd.DataFrame:
    accuracy = right.mean(1)
    whole = questions["grafted"].mean()
    return steps.assign(accuracy=accuracy, completeness=accuracy / whole if whole else np.nan)


def _fractions(steps: pd.DataFrame, curves: pd.DataFrame, nodes: pd.DataFrame) -> pd.DataFrame:
    """Add the shares of the kind's S and γ that are in the nodes of each step."""
    orders = curves.set_index(list(SWEEP))["order"]
    for name in ("shared", "grafted"):
        counts = nodes[name].to_numpy()
        found = np.empty(len(steps))
        for key, rows in steps.groupby(list(SWEEP), sort=False).indices.items():
            held = np.concatenate([[0], np.cumsum(counts[orders[key]])]) / max(1, counts.sum())
            found[rows] = held[steps["nodes"].to_numpy()[rows]]
        steps = steps.assign(**{f"{name}_fraction": found})
    return steps


def _by_relation(steps: pd.DataFrame, right: np.ndarray, questions: pd.DataFrame) -> pd.DataFrame:
    found = []
    for relation, members in questions.groupby("relation", sort=False).indices.items():
        correct = right[:, members].sum(1)
        counts = {"n": len(members), "correct": correct, "accuracy": correct / len(members)}
        found.append(steps[[*SWEEP, "step", "nodes"]].assign(relation=relation, **counts))
    return pd.concat(found, ignore_index=True)


def by_person(
    steps: pd.DataFrame, right: np.ndarray, questions: pd.DataFrame, kind: str, nodes: int
) -> pd.DataFrame:
    """Read what claims are about off the curves of each person.

    Parameters
    ----------
    steps : DataFrame
        Columns of ``STEPS`` up to `nodes`.
    right : ndarray of bool, shape (steps, questions)
        Outcomes.
    questions : DataFrame
        Columns of ``QUESTIONS``.
    kind : str
        Kind of nodes.
    nodes : int
        How many there are of it.

    Returns
    -------
    DataFrame
        Columns of ``CIRCUITS`` from `direction` on.
    """
    people = pd.Index(questions["individual"].unique(), name="individual")
    whole = questions.groupby("individual")["grafted"].mean().reindex(people)
    curves = pd.DataFrame(right.T).groupby(questions["individual"].to_numpy()).mean().loc[people]
    parts = []
    for (direction, ranking, _), rows in steps.groupby(list(SWEEP), sort=False):
        rows = rows.sort_values("nodes")
        lines = curves[rows.index].to_numpy()
        for start, end in READ[kind]:
            found = mean_between(rows["nodes"].to_numpy() / nodes, lines, start, end)
            table = pd.DataFrame({"individual": people, "right": found, "whole": whole.to_numpy()})
            key = {"direction": direction, "ranking": ranking, "start": start, "end": end}
            parts.append(table.assign(**key))
    keys = ["direction", "ranking", "start", "end", "individual"]
    return pd.concat(parts).groupby(keys, sort=False, as_index=False).mean()


def mean_between(share: np.ndarray, lines: np.ndarray, start: float, end: float) -> np.ndarray:
    """Return the means of curves (people, steps) over the shares of nodes from start to end."""
    at = np.unique(np.clip([start, *share, end], start, end))
    values = np.stack([np.interp(at, share, line) for line in lines])
    return values[:, 0] if start == end else np.trapezoid(values, at) / (end - start)
