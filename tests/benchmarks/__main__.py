"""Speed against naive ways and peers: ratios within one run, on this machine, one thread.

    make bench                                          all, on the laptop study's sizes
    python -m tests.benchmarks recall trace             some of them
    python -m tests.benchmarks --out bench.parquet      the table as a file, too (or .json)

Contestants take turns, and each ratio is of the same turn, so that a noisy machine hurts both
alike. Verdicts, losses, gradients and examples are the same on both sides, and that is asserted.
`make bench` keeps the peers in an environment of their own (envs/requirements-peers.txt); without
one of them, the others are measured and the exit code is 2.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import torch
from transformers.utils import logging

from tests.benchmarks.circuits import bench_circuits
from tests.benchmarks.parameters import bench_entry, bench_graft, bench_sweep
from tests.benchmarks.probes import bench_probes
from tests.benchmarks.startup import bench_startup
from tests.benchmarks.table import Row, exit_code, table, write
from tests.benchmarks.training import bench_gradients, bench_recall, bench_trace, bench_training

BENCHMARKS = {
    "training": bench_training,
    "gradients": bench_gradients,
    "trace": bench_trace,
    "recall": bench_recall,
    "entry": bench_entry,
    "sweep": bench_sweep,
    "graft": bench_graft,
    "circuits": bench_circuits,
    "probes": bench_probes,
    "startup": bench_startup,
}


def main() -> int:
    """Run the named benchmarks, or all, and print one table (see `exit_code`)."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}")
    parser.add_argument("--out", type=Path, help="write the table to this .parquet or .json, too")
    wanted = parser.parse_args()
    if unknown := set(wanted.names) - set(BENCHMARKS):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    rows: list[Row] = []
    for name in wanted.names or BENCHMARKS:
        print(f"{name} …", flush=True)
        found = BENCHMARKS[name]()
        print(table(found), flush=True)
        rows += found
    print("\n", table(rows), sep="")
    if wanted.out:
        write(rows, wanted.out)
    return exit_code(rows)


if __name__ == "__main__":
    raise SystemExit(main())
