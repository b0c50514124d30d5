"""What the paper's model costs on this GPU: one script, one table, at most eight minutes.

    PYTHONPATH=src:. python -m tests.benchmarks.gpu --out gpu.json

It needs PyTorch, transformers, numpy, pandas and pyarrow, no weights and no network: a model of
the exact shape of Llama-3.2-3B gets random weights, and texts of random tokens are as long as the
study's. Each part goes through the package's own functions and has a time of its own; one that
fails or takes too long is a line of the table, and the others go on. What the plan says of each
(`factrecall.cost`, at its usual efficiency) stands beside it, for the GPUs that it knows.

`--small` runs the same on a tiny model and, without a GPU, on the CPU: a check of the script.
"""

from __future__ import annotations

import argparse
import json
import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import torch

from tests.benchmarks.gpu_bed import PAPER, SMALL, Bench, Found, precision
from tests.benchmarks.gpu_parts import PARTS
from tests.benchmarks.table import show

MINUTES = 8.0


class _TooLong(Exception):
    """A part has used up its time."""


@contextmanager
def _within(seconds: float) -> Iterator[None]:
    def end(*_: object) -> None:
        raise _TooLong(f"given up after {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def measure(bench: Bench, names: list[str], minutes: float) -> Iterator[Found]:
    """Run parts one after the other; what fails or takes too long becomes a line."""
    end = time.monotonic() + 60 * minutes
    for name in names:
        part, most = PARTS[name]
        left = min(most, end - time.monotonic())
        if left < 1:
            yield Found(name, "–", math.nan, "", note="no time left")
            continue
        try:
            with _within(left):
                for row in part(bench):
                    # Goals are for the paper's model on an H200.
                    yield row if bench.scale is PAPER else replace(row, goal=None)
        except Exception as error:  # one part is not to cost the others
            told = f"{type(error).__name__}: {error}".splitlines()[0]
            yield Found(name, "–", math.nan, "", note=told[:160])
        bench.clear()


def main(arguments: list[str] | None = None) -> int:
    """Measure, print the table; 1 if a goal is missed or a part failed, else 0."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.gpu", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--small", action="store_true", help="a tiny model, to check the script")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="most that all may take")
    parser.add_argument("--out", type=Path, help="write what was found to this .json, too")
    wanted = parser.parse_args(arguments)
    if unknown := set(wanted.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    if wanted.device == "cpu" and not wanted.small:
        parser.error("there is no GPU; --small checks the script on the CPU")
    import transformers

    transformers.utils.logging.set_verbosity_error()
    bench = Bench(SMALL if wanted.small else PAPER, torch.device(wanted.device))
    about = {
        "device": torch.cuda.get_device_name() if wanted.device == "cuda" else "CPU",
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "date": time.strftime("%Y-%m-%d"),
        "shape": dict(bench.scale.shape),
    }
    found = []
    with precision("high"):  # as `workflow.execution.device_of` has it
        for row in measure(bench, wanted.parts or list(PARTS), wanted.minutes):
            print(" ".join(row.cells()), flush=True)
            found.append(row)
    titles = ("part", "what", "measured", "predicted", "goal", "", "note")
    print("\n", show(titles, [row.cells() for row in found]), sep="")
    print(", ".join(f"{key} {value}" for key, value in about.items() if key != "shape"))
    if wanted.out:
        rows = [asdict(row) | {"met": row.met} for row in found]
        for line in rows:
            line["value"] = None if math.isnan(line["value"]) else line["value"]
        text = json.dumps({**about, "rows": rows}, indent=2, ensure_ascii=False)
        wanted.out.write_text(text + "\n", encoding="utf-8")
    failed = any(row.met is False or (row.what == "–") for row in found)
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
