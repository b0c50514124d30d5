"""The whole way from influences to shared parameters at the size of the paper's larger model.

    python -m tests.benchmarks.scale             3.2 G parameters, K = 10⁸
    python -m tests.benchmarks.scale --small     the same, two thousand times smaller

A process of its own ranks the influences of traced tasks, writes the traces, and selects the shared
parameters from them, by the functions that the workflow's jobs call. The parameters are those
of Llama-3.2-3B, by name and shape. Two traces are made one after the other, as two-stage
training does: BIO_in with BIO_out, then QA_in.

The influences are no model's: they are made tensor by tensor each time they are asked for, and
nothing of them is ever on a disk, where those of one pair would be 51 GB. Each is the sum of two
rows of normal numbers that repeat after different primes, one of which all tasks have in common,
so half of the variance is shared. Making them takes time, which is told apart. What a job
reads from a trace is mapped into memory and counts into its peak.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from factrecall.config.training import TraceSettings
from factrecall.experiments.shared_parameters.stages import select_shared
from factrecall.parameters.sets import read_sets
from factrecall.parameters.space import ParameterSpace
from factrecall.runtime.job import Job
from factrecall.training.trace import GradientTrace, write_trace

PEAK, SECONDS = 16.0, 600.0
"""The bars: GB of peak memory, and seconds of wall time, at full size."""

TRACES = {"bio": ("BIO_in", "BIO_out"), "stage": ("QA_in",)}
COMMON, OWN = 4_194_301, {"BIO_in": 4_194_287, "BIO_out": 4_194_277, "QA_in": 4_194_271}
"""After how many numbers the rows repeat; their products are larger than the space."""


def model_of(small: bool) -> LlamaForCausalLM:
    """Return Llama-3.2-3B (3,212,749,824 parameters), or one two thousand times smaller.

    It has no numbers.
    """
    config = LlamaConfig(
        num_hidden_layers=28,
        hidden_size=3072,
        intermediate_size=8192,
        num_attention_heads=24,
        num_key_value_heads=8,
        head_dim=128,
        vocab_size=128_256,
        tie_word_embeddings=True,
    )
    if small:
        for name in ("num_hidden_layers", "hidden_size", "intermediate_size", "head_dim"):
            setattr(config, name, getattr(config, name) // 14)
        config.vocab_size //= 64
    with torch.device("meta"):
        return LlamaForCausalLM(config)


class Influences(Mapping[str, torch.Tensor]):
    """The sums of a trace, made when they are asked for; each is good until the next one is.

    Attributes
    ----------
    seconds : float
        What making them took so far.
    """

    def __init__(self, space: ParameterSpace, tasks: tuple[str, ...]) -> None:
        self._shapes = dict(zip(space.names, space.shapes, strict=True))
        self._offsets = dict(space.offsets())
        self._tasks, self.seconds = tasks, 0.0
        self._buffer = np.empty(max(space.sizes), np.float32)
        draw = {name: np.random.default_rng(period) for name, period in OWN.items()}
        self._common = np.random.default_rng(0).standard_normal(COMMON, dtype=np.float32)
        self._own = {t: draw[t].standard_normal(OWN[t], dtype=np.float32) for t in tasks}

    def __getitem__(self, key: str) -> torch.Tensor:
        begin = time.perf_counter()
        task, kind, name = key.split("/")
        shape, start = self._shapes[name], self._offsets[name]
        flat = self._buffer[: torch.Size(shape).numel()]
        own, done = self._own[task], 0
        while done < len(flat):  # as far as neither row ends
            a, b = (start + done) % COMMON, (start + done) % len(own)
            part = slice(done, done + min(COMMON - a, len(own) - b, len(flat) - done, 1 << 16))
            length = part.stop - part.start
            np.add(self._common[a : a + length], own[b : b + length], out=flat[part])
            if kind == "absolute":
                np.abs(flat[part], out=flat[part])
            done = part.stop
        self.seconds += time.perf_counter() - begin
        return torch.from_numpy(flat).view(shape)

    def __iter__(self) -> Iterator[str]:
        kinds = ("signed", "absolute")
        return (f"{t}/{kind}/{n}" for t in self._tasks for kind in kinds for n in self._shapes)

    def __len__(self) -> int:
        return 2 * len(self._tasks) * len(self._shapes)


def _run(small: bool, folder: Path) -> None:
    """Go the whole way and print what each step took as JSON."""
    torch.set_num_threads(1)
    model = model_of(small)
    space = ParameterSpace.of(model)
    k = 30_000 if small else 100_000_000
    settings = TraceSettings(top_fraction=k * 12 // 10)
    steps: dict[str, dict[str, float]] = {}

    @contextmanager
    def step(name: str) -> Iterator[None]:
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
        taken = {"seconds": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        steps[name] = {**taken, "peak_gb": peak}
        print(name, steps[name], file=sys.stderr, flush=True)

    with step("start"):
        pass
    made, paths = 0.0, []
    for name, tasks in TRACES.items():
        with step(f"rank and write {', '.join(tasks)}"):
            trace = GradientTrace(model, {})
            influences = trace.sums = Influences(space, tasks)  # type: ignore[assignment]
            trace.counts = dict.fromkeys(tasks, 1)
            paths.append(folder / f"{name}.safetensors")
            write_trace(paths[-1], trace, settings, {})
            made += influences.seconds
            del trace, influences
    files = {name: folder / name for name in ("out", "overlap_curve", "locations")}
    with step("select"):
        select_shared(Job(), k=k, influence="absolute", traces=paths, **files)
    found = {name: len(members) for name, members in read_sets(files["out"], space).items()}
    told = {"parameters": space.size, "k": k, "made": made, "sets": found, "steps": steps}
    print(json.dumps(told))


def bench_scale(small: bool = False, folder: Path | None = None) -> bool:
    """Run the whole way in a process of its own, print what it took, and judge it.

    Parameters
    ----------
    small : bool
        Whether to run it at a two-thousandth of the size, to which the bars apply as well.
    folder : Path, optional
        Where the traces (8.7 GB) lie for a while; else where temporary files do.
    """
    with tempfile.TemporaryDirectory(dir=folder) as there:
        command = [sys.executable, "-m", "tests.benchmarks.scale", "--run", there]
        done = subprocess.run(
            [*command, *(["--small"] if small else [])], stdout=subprocess.PIPE, check=True
        )
    found = json.loads(done.stdout)
    print(f"     {found['parameters']:,} parameters, K = {found['k']:,}")
    for name, taken in found["steps"].items():
        print(
            f"     {name}: {taken['seconds']:.1f} s ({taken['cpu']:.1f} s of CPU), "
            f"peak so far {taken['peak_gb']:.2f} GB"
        )
    print(f"     of this, to make influences: {found['made']:.1f} s")
    print("     " + ", ".join(f"|{name}| = {size:,}" for name, size in found["sets"].items()))
    seconds = sum(taken["seconds"] for taken in found["steps"].values())
    peak = max(taken["peak_gb"] for taken in found["steps"].values())
    met = seconds <= SECONDS and peak <= PEAK
    print(
        f"{'ok  ' if met else 'FAIL'} select at scale: {seconds:.0f} s (at most {SECONDS:.0f}), "
        f"{peak:.1f} GB (at most {PEAK:.0f})",
        flush=True,
    )
    return met


def main() -> int:
    """Run the benchmark; 1 if it misses a bar."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--small", action="store_true", help="at a two-thousandth of the size")
    parser.add_argument("--folder", type=Path, help="where to put the traces for a while")
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.run:
        _run(chosen.small, chosen.run)
        return 0
    return 0 if bench_scale(chosen.small, chosen.folder) else 1


if __name__ == "__main__":
    raise SystemExit(main())
