"""The plan beside what a finished study took: time and peak memory, stage by stage, on this CPU.

    python -m tests.benchmarks.plan results/laptop --configfile config.yaml

Snakemake measures each job (`results/<study>/benchmarks`): seconds, peak of resident memory in MiB,
share of a core that was used. Bars: peak memory within 25 % and time within 2×, each the mean of a
stage's jobs, and the sum of all. On a machine that does other work, too, a job waits for its turn:
where it used less of a core than `SHARED`, its CPU seconds stand in for its time. These are sampled
every so often, lack up to the last half a minute, and so are told apart by an asterisk. The study
must have run with ``FACTRECALL_FORK_SERVER=off``: the plan is of jobs that load their libraries.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from factrecall.config.reading import read_study
from factrecall.cost.devices import this_cpu
from factrecall.cost.jobs import StageJob
from factrecall.cost.plan import plan_study
from factrecall.runs import job_name

SHARED = 55.0
"""Per cent of a core; a job of ours that is alone uses 65 and more, start-up included."""

TIME, MEMORY = 2.0, 1.25


@dataclass(frozen=True)
class Measured:
    """What Snakemake measured of a job."""

    seconds: float
    busy: float
    load: float
    bytes: float

    @property
    def time(self) -> float:
        """Seconds, or those of the CPU if the job waited for others."""
        return self.busy if self.shared else self.seconds

    @property
    def shared(self) -> bool:
        """Whether the job waited for others."""
        return self.load < SHARED


def benchmark(results: Path, job: StageJob) -> Path:
    """Return the file of a job, as the rules name it."""
    known = {name: value for name, value in vars(job).items() if name != "stage" and value != ""}
    if not job.tuning and job.stage not in ("make-facts", "pretrain"):
        del known["seed"]
    return results / "benchmarks" / f"{job_name(job.stage.replace('-', '_'), known)}.tsv"


def measured(path: Path) -> Measured | None:
    """Read what was measured of a job; None if it was not, or was too short to be."""
    if not path.is_file():
        return None
    row = pd.read_csv(path, sep="\t", na_values="-").iloc[-1]
    if row[["s", "max_rss", "cpu_time", "mean_load"]].isna().any():
        return None
    return Measured(row["s"], row["cpu_time"], row["mean_load"], row["max_rss"] * 2**20)


def lines(results: Path, configfiles: list[Path]) -> Iterator[tuple[str, bool]]:
    """Yield the table line by line, each with whether it meets its bars."""
    cpu = this_cpu()
    plan = plan_study(read_study(*configfiles), cpu)
    yield f"one thread of this CPU: {cpu.rates['float32'] / 1e9:.0f} GFLOP/s", True
    yield (
        (
            f"{'stage':26}{'jobs':>6}{'plan s':>9}{'took s':>9}{'ratio':>7}"
            f"{'plan MB':>9}{'took MB':>9}{'ratio':>7}"
        ),
        True,
    )
    totals = [0.0, 0.0]
    for (stage, _), jobs in plan.rows.items():
        pairs = [(p, measured(benchmark(results, p.job))) for p in jobs]
        done = [(p, m) for p, m in pairs if m is not None]
        if not done:
            yield f"{stage:26}{'0':>6}", True
            continue
        planned = sum(p.seconds for p, _ in done) / len(done)
        took = sum(m.time for _, m in done) / len(done)
        memory = sum(p.cost.memory.host for p, _ in done) / len(done) / 1e6
        peak = sum(m.bytes for _, m in done) / len(done) / 1e6
        totals = [totals[0] + planned * len(done), totals[1] + took * len(done)]
        ok = {
            "time": _within(planned / took, TIME),
            "memory": _within(memory / peak, MEMORY),
        }
        mark = "*" if any(m.shared for _, m in done) else " "
        missed = " ".join(f"{name} MISSED" for name, good in ok.items() if not good)
        yield (
            (
                f"{stage:26}{len(done):>6}{planned:>9.1f}{took:>8.1f}{mark}"
                f"{planned / took:>7.2f}{memory:>9.0f}{peak:>9.0f}{memory / peak:>7.2f}  {missed}"
            ),
            not missed,
        )
    ratio = totals[0] / totals[1]
    yield (
        f"{'in all':26}{'':>6}{totals[0]:>9.0f}{totals[1]:>8.0f} {ratio:>7.2f}",
        _within(ratio, TIME),
    )


def _within(ratio: float, bar: float) -> bool:
    return 1 / bar <= ratio <= bar


def main() -> int:
    """Print the table; return 1 if a bar is missed."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.plan")
    parser.add_argument("results", type=Path, help="the folder of a finished study")
    parser.add_argument("--configfile", type=Path, nargs="+", default=[Path("config.yaml")])
    options = parser.parse_args()
    met = True
    for line, ok in lines(options.results, options.configfile):
        print(line)
        met = met and ok
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
