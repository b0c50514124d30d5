"""The stages of shared parameters: one training history, and all of a study."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from factrecall.runs import Run, histories
from factrecall.runtime.job import Job
from factrecall.runtime.stage import EXPERIMENTS, TABLES, Input, Output, stage


@stage(
    "select-shared",
    settings=lambda study: {"k": study.shared.k, "influence": study.shared.influence},
    libraries=EXPERIMENTS,
    per=histories,
)
def select_shared(
    job: Job,
    *,
    traces: list[Input],
    out: Output,
    overlap_curve: Output,
    locations: Output,
    k: int | float,
    influence: str,
) -> None:
    """Select the parameters that both tasks rank highly by their summed gradients.

    Parameters
    ----------
    traces
        the trace of mixed training, or those of both stages
    out
        the sets to write: S_I, S_II and S
    overlap_curve
        the table of |S(k)| to write
    locations
        the table of where S lies to write
    """
    from factrecall.experiments.shared_parameters import compute
    from factrecall.parameters.amounts import absolute_count
    from factrecall.parameters.sets import write_sets
    from factrecall.runtime.errors import FactRecallError

    rankings = compute.read_rankings(traces)
    wanted = absolute_count(k, rankings.space.size)
    if wanted > rankings.keep:
        raise FactRecallError(
            f"shared.k = {k}",
            f"it asks for {wanted:,} parameters, the traces keep {rankings.keep:,}",
            "lower it, or raise trace.top_fraction, which trains all models again",
        )
    sets = compute.shared_sets(rankings, influence, wanted)
    provenance = dict(job.provenance)
    write_sets(out, sets, {"k": wanted, "influence": influence, "provenance": provenance})
    job.write(locations, compute.locations(sets), compute.LOCATIONS)
    del sets  # a curve needs the memory
    found = compute.overlap_curves(rankings, wanted)
    selected = (found["k"] == wanted) & (found["influence"] == influence)
    job.write(overlap_curve, found.assign(selected=selected), compute.OVERLAP_CURVE)


@dataclass(frozen=True)
class Selection(Run):
    """The tables of one training history."""

    overlap_curve: Path
    locations: Path


@stage("summarise-shared", libraries=TABLES)
def summarise_shared(
    job: Job, *, selections: list[Selection], out: Output, locations: Output
) -> None:
    """Gather the shared sets of all training histories.

    Parameters
    ----------
    selections
        the tables of one training history; give one for each
    out
        the table of |S(k)| to write
    locations
        the table of where S lies to write
    """
    from factrecall.experiments.common.summaries import read_runs
    from factrecall.experiments.shared_parameters import compute

    curves = read_runs(selections, compute.OVERLAP_CURVE, "overlap_curve")
    job.write(out, curves, compute.SHARED)
    found = read_runs(selections, compute.LOCATIONS, "locations")
    job.write(locations, found, compute.SHARED_LOCATIONS)
