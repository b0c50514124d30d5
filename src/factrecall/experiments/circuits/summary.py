"""All sweeps of a study together: their tables, and the numbers that the paper makes claims of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from factrecall.experiments.circuits.continuity import CONTINUITY, exchanged, lasting
from factrecall.experiments.circuits.stage import CURVES, NODES, QUESTIONS, STEPS, SWEEP
from factrecall.experiments.circuits.sweep import BY
from factrecall.runtime.errors import FactRecallError
from factrecall.runtime.seeds import generator
from factrecall.runtime.storage import read_table, write_table

RUN = {"model": "string", "tuning": "string", "seed": "int32"}
KEYS = [*RUN, "kind", *SWEEP]

INTERVENTIONS = {
    **RUN,
    "kind": "string",
    "direction": "string",
    "priority": "string",
    "draw": "int32",
    "step": "int32",
    "nodes": "int32",
    "completeness": "float64",
    "accuracy": "float64",
    "shared_fraction": "float64",
    "grafted_fraction": "float64",
}
"""Columns of ``tables/interventions.parquet``: a row a step of a sweep.

`completeness` is the accuracy as a share of the whole grafted model's, missing if that knows
nothing. The fractions are those of the kind's S and γ in the nodes intervened on.
"""

BY_RELATION = {
    **{column: INTERVENTIONS[column] for column in [*KEYS, "step", "nodes"]},
    "relation": "string",
    "n": "int32",
    "correct": "int32",
    "accuracy": "float64",
}
"""Columns of ``tables/interventions_by_relation.parquet``."""

SWEEPS = {
    **{column: INTERVENTIONS[column] for column in KEYS},
    **{column: kind for column, kind in CURVES.items() if column != "order"},
}
"""Columns of ``tables/sweeps.parquet``: how closely each sweep was asked (`intervene.CURVES`)."""

_COUNTED = {"shared": "int64", "grafted": "int64", "shared_rank": "int32", "grafted_rank": "int32"}
HEADS = {
    **RUN,
    **{column: kind for column, kind in NODES.items() if column not in ("members", "rank")},
    **_COUNTED,
}
"""Columns of ``tables/heads.parquet``: a row an attention node (`intervene.NODES`), its parameters
in S and in γ, and its ranks by these."""

CIRCUITS = {
    **{column: INTERVENTIONS[column] for column in [*RUN, "kind", "priority", "draw"]},
    "measure": "string",
    "at": "float64",
    "value": "float64",
}
"""Columns of ``tables/circuits.parquet``: what the paper says of circuits, in numbers.

``needed``: the share of nodes with which completeness first reaches `at`, forward.
``reached``: the completeness of a share `at` of all nodes, forward.
``lost``: one minus the completeness left when a share `at` of the nodes is put back.
``held``: the share of the kind's S in a share `at` of the nodes, counted node by node (not of
random orders).
``area``: the mean completeness over all shares of nodes, forward; `at` is missing.
``area_lost``: the mean of ``lost``, backward.
``floor``: the completeness with no node of the kind grafted: what all else gives.
Between steps that were asked, curves are read off straight lines.
"""

ENOUGH = 0.8
"""The completeness that the paper's sufficient circuits reach (section 4.1)."""

SHARES = {
    "attention": (0.1, 0.6, 0.8),  # the paper's top 10 %, and its 60 % (Llama) and 80 % (Pythia)
    "column": (320 / 401_408, 0.1),  # its 320 columns, of Llama-3.2-3B's
    "unit": (0.1,),
}
"""Shares of nodes at which curves are read."""


@dataclass(frozen=True)
class Intervention:
    """The files of one job (see `intervene`)."""

    model: str
    tuning: str
    seed: int
    kind: str
    by: str
    steps: Path
    curves: Path
    nodes: Path
    questions: Path

    @property
    def run(self) -> dict[str, object]:
        """Which run it is of."""
        return {"model": self.model, "tuning": self.tuning, "seed": self.seed}

    @property
    def of(self) -> dict[str, object]:
        """Which run and kind of nodes it is of."""
        return {**self.run, "kind": self.kind}


def summarise_circuits(
    seed: int,
    *,
    interventions: Sequence[Intervention],
    out: Path,
    by_relation: Path,
    continuity: Path,
    heads: Path,
    sweeps: Path,
    circuits: Path,
    provenance: Mapping[str, Any],
) -> None:
    """Write the study's tables of circuits.

    Parameters
    ----------
    seed : int
        The study's; exchanges outcomes between people.
    interventions : sequence of Intervention
        All jobs.
    out, by_relation, continuity, heads, sweeps, circuits : Path
        The tables to write, columns ``INTERVENTIONS``, ``BY_RELATION``, ``CONTINUITY``, ``HEADS``,
        ``SWEEPS`` and ``CIRCUITS``.
    provenance : mapping
        Kept in the metadata of every file.

    Raises
    ------
    FactRecallError
        When a job by shared parameters is without its controls, or they without it.
    """
    parts: dict[str, list[pd.DataFrame]] = {}

    def add(name: str, table: pd.DataFrame, **labels: object) -> None:
        parts.setdefault(name, []).append(table.assign(**labels))

    for shared, controls in _pairs(interventions):
        of = shared.of
        nodes = _nodes(shared, controls)
        if shared.kind == "attention":
            add("heads", nodes, **shared.run)
        for one in (shared, controls):
            steps = read_table(one.steps, STEPS)
            curves = read_table(one.curves, CURVES)
            questions = read_table(one.questions, QUESTIONS)
            right = _right(steps, len(questions))
            curve = _fractions(_accuracy(steps, right, questions), curves, nodes)
            add("interventions", curve, **of)
            add("by_relation", _by_relation(steps, right, questions), **of)
            add("sweeps", curves, **of)
            add("circuits", pd.DataFrame(numbers(curve, one.kind, nodes)), **of)
            if one is shared:
                forward = right[(steps["direction"] == "forward").to_numpy()]
                rng = generator(seed, "continuity", *map(str, of.values()))
                chance = exchanged(forward, questions, rng)
                add("continuity", lasting(forward, questions), shuffled=False, **of)
                add("continuity", lasting(chance, questions), shuffled=True, **of)
    targets = {
        "interventions": (out, INTERVENTIONS),
        "by_relation": (by_relation, BY_RELATION),
        "continuity": (continuity, CONTINUITY),
        "heads": (heads, HEADS),
        "sweeps": (sweeps, SWEEPS),
        "circuits": (circuits, CIRCUITS),
    }
    for name, (path, schema) in targets.items():
        empty = pd.DataFrame(columns=list(schema))
        table = pd.concat(parts[name], ignore_index=True) if name in parts else empty
        write_table(path, table[list(schema)], schema, provenance)


def _pairs(interventions: Sequence[Intervention]) -> Iterator[list[Intervention]]:
    """Yield, of each run and kind, the job by shared parameters and that of its controls."""
    jobs: dict[tuple[object, ...], dict[str, Intervention]] = {}
    for one in interventions:
        jobs.setdefault(tuple(one.of.values()), {})[one.by] = one
    for of, found in jobs.items():
        if set(found) != set(BY):
            raise FactRecallError(
                f"--intervention {' '.join(map(str, of))}",
                f"it is given for: {', '.join(found)}",
                f"give it once for each of: {', '.join(BY)}",
            )
        yield [found[by] for by in BY]


def _nodes(shared: Intervention, controls: Intervention) -> pd.DataFrame:
    """Return nodes with their parameters in S and in γ; columns of ``HEADS`` without the run."""
    nodes = read_table(shared.nodes, NODES)
    both = {"shared": nodes, "grafted": read_table(controls.nodes, NODES)}
    for name, table in both.items():
        nodes = nodes.assign(**{name: table["members"], f"{name}_rank": table["rank"]})
    return nodes.drop(columns=["members", "rank"])


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


def _right(steps: pd.DataFrame, questions: int) -> np.ndarray:
    right = np.zeros((len(steps), questions), dtype=bool)
    for row, numbers_ in zip(right, steps["right"], strict=True):
        row[np.asarray(numbers_, dtype=np.int64)] = True
    return right


def _accuracy(steps: pd.DataFrame, right: np.ndarray, questions: pd.DataFrame) -> pd.DataFrame:
    accuracy = right.mean(1)
    whole = questions["grafted"].mean()
    completeness = accuracy / whole if whole else np.nan
    return steps.drop(columns="right").assign(accuracy=accuracy, completeness=completeness)


def _by_relation(steps: pd.DataFrame, right: np.ndarray, questions: pd.DataFrame) -> pd.DataFrame:
    columns = [*SWEEP, "step", "nodes"]
    found = []
    for relation, members in questions.groupby("relation", sort=False).indices.items():
        correct = right[:, members].sum(1)
        counts = {"n": len(members), "correct": correct, "accuracy": correct / len(members)}
        found.append(steps[columns].assign(relation=relation, **counts))
    return pd.concat(found, ignore_index=True)


def numbers(curve: pd.DataFrame, kind: str, nodes: pd.DataFrame) -> Iterator[dict[str, object]]:
    """Read the numbers of one job off its curves; the last columns of ``CIRCUITS``.

    Parameters
    ----------
    curve : DataFrame
        Columns of ``INTERVENTIONS`` but for those that tell which run and kind it is.
    kind : str
        Kind of nodes.
    nodes : DataFrame
        Columns of ``NODES``.
    """
    count = len(nodes)
    # Of less than one node nothing can be said; the first is then what is looked at.
    at = {wanted: max(wanted, 1 / count) for wanted in SHARES[kind]}
    for (direction, priority, draw), rows in curve.groupby(list(SWEEP), sort=False):
        rows = rows.sort_values("nodes")
        share = rows["nodes"].to_numpy() / count
        complete = rows["completeness"].to_numpy()
        found: list[tuple[str, float, float]] = []
        if direction == "forward":
            found.append(("needed", ENOUGH, _first(share, complete, ENOUGH)))
            found += [("reached", a, np.interp(place, share, complete)) for a, place in at.items()]
            if priority != "random":
                score = nodes[str(priority)] * nodes["weight"]
                held = nodes["shared"].iloc[np.argsort(-score, kind="stable")].cumsum()
                first = np.rint(np.array(list(at.values())) * count).astype(int) - 1
                parts = held.to_numpy()[first] / max(1, held.iloc[-1])
                found += [("held", a, part) for a, part in zip(at, parts, strict=True)]
            found.append(("area", np.nan, np.trapezoid(complete, share)))
            found.append(("floor", np.nan, complete[0]))
        else:
            lost = 1 - complete
            found += [("lost", a, np.interp(place, share, lost)) for a, place in at.items()]
            found.append(("area_lost", np.nan, np.trapezoid(lost, share)))
        for measure, where, value in found:
            yield {
                "priority": priority,
                "draw": draw,
                "measure": measure,
                "at": where,
                "value": float(value),
            }


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
