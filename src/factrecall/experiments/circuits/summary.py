"""The study's tables of circuits, and the quantities that the paper makes claims of."""

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
    ENOUGH,
    NODES,
    QUESTIONS,
    SHARES,
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
"""Columns of ``tables/sweeps.parquet``: how finely each sweep was evaluated (see ``CURVES``)."""

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
    "ranking": "string",
    "random_order": "int32",
    "measure": "string",
    "at": "float64",
    "value": "float64",
}
"""Columns of ``tables/circuits.parquet``: a row a quantity that the paper makes claims of.

``needed``: the share of nodes at which completeness first reaches `at`, forward.
``reached``: the completeness of a share `at` of all nodes, forward.
``lost``: one minus the completeness when a share `at` of the nodes is reset to θpre.
``held``: the share of the kind's S in a share `at` of the nodes, counted node by node (not of
random orders).
``area``: the mean completeness over all shares of nodes, forward; `at` is missing.
``area_lost``: the mean of ``lost``, backward.
``floor``: the completeness with no node of the kind grafted.
Between evaluated steps, curves are straight lines.
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
        yield "circuits", pd.DataFrame(curve_measures(curve, job.kind, nodes)).assign(**job.of_kind)
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


def curve_measures(
    curve: pd.DataFrame, kind: str, nodes: pd.DataFrame
) -> Iterator[dict[str, object]]:
    """Yield the quantities of one job's curves: rows of ``CIRCUITS`` without run and kind.

    Parameters
    ----------
    curve : DataFrame
        Columns of ``INTERVENTIONS`` from `direction` on.
    kind : str
        Kind of nodes.
    nodes : DataFrame
        Columns of ``HEADS`` without the run.
    """
    count = len(nodes)
    # A share of less than one node is read at the first node.
    at = {share: max(share, 1 / count) for share in SHARES[kind]}
    for (direction, ranking, number), rows in curve.groupby(list(SWEEP), sort=False):
        rows = rows.sort_values("nodes")
        share = rows["nodes"].to_numpy() / count
        complete = rows["completeness"].to_numpy()
        lost = 1 - complete
        found: list[tuple[str, float, float]] = []
        if direction == "forward":
            found.append(("needed", ENOUGH, _first(share, complete, ENOUGH)))
            found += [("reached", a, np.interp(place, share, complete)) for a, place in at.items()]
            if ranking != "random":
                score = nodes[str(ranking)] * nodes["weight"]
                held = nodes["shared"].iloc[np.argsort(-score, kind="stable")].cumsum()
                first = np.rint(np.array(list(at.values())) * count).astype(int) - 1
                parts = held.to_numpy()[first] / max(1, held.iloc[-1])
                found += [("held", a, part) for a, part in zip(at, parts, strict=True)]
            found.append(("area", np.nan, np.trapezoid(complete, share)))
            found.append(("floor", np.nan, complete[0]))
        else:
            found += [("lost", a, np.interp(place, share, lost)) for a, place in at.items()]
            found.append(("area_lost", np.nan, np.trapezoid(lost, share)))
        for measure, where, value in found:
            key = {"ranking": ranking, "random_order": number, "measure": measure}
            yield {**key, "at": where, "value": float(value)}


def _first(share: np.ndarray, complete: np.ndarray, least: float) -> float:
    """Return the share at which a line through the points first reaches `least`; NaN if none."""
    reached = np.flatnonzero(complete >= least)
    if not len(reached):
        return float("nan")
    i = int(reached[0])
    if i == 0:
        return float(share[0])
    part = (least - complete[i - 1]) / (complete[i] - complete[i - 1])
    return float(share[i - 1] + part * (share[i] - share[i - 1]))
