"""Speed against naive ways and peers: ratios within one run, on this machine, one thread.

    make bench                                   all of them, on the laptop study's sizes
    python -m tests.benchmarks recall trace      some of them

Contestants take turns, and each ratio is the median of the turns', so that a noisy machine hurts
both alike. Verdicts, losses and examples are the same on both sides, and that is asserted.
"""

from __future__ import annotations

import os
import sys

os.environ["OMP_NUM_THREADS"] = "1"

import torch
from transformers.utils import logging

from tests.benchmarks.bench_probes import bench_probes
from tests.benchmarks.circuits import bench_circuits
from tests.benchmarks.parameters import bench_entry, bench_graft, bench_sweep
from tests.benchmarks.training import bench_recall, bench_trace, bench_training

BENCHMARKS = {
    "recall": bench_recall,
    "training": bench_training,
    "trace": bench_trace,
    "entry": bench_entry,
    "sweep": bench_sweep,
    "graft": bench_graft,
    "circuits": bench_circuits,
    "probes": bench_probes,
}


def main(names: list[str]) -> int:
    """Run the named benchmarks, or all.

    Returns 1 if one misses its bar, else 2 if one could not be measured for want of a peer.
    """
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    met = [BENCHMARKS[name]() for name in names or BENCHMARKS]
    return 1 if False in met else 2 if None in met else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
