"""Progress with rate and time left: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Watch = Callable[..., None]

LINE_SECONDS = 15.0
"""How often a log gets a line."""


@contextmanager
def progress(total: int, title: str, unit: str) -> Iterator[Watch]:
    """Show how far a loop of `total` units is, on standard error.

    Yields
    ------
    callable
        Call it with the units done so far and, if there is one, the latest loss.
    """
    if int(os.environ.get("RANK", 0)):  # process 0 shows it
        yield lambda done, loss=math.nan: None
    elif sys.stderr.isatty():
        from tqdm import tqdm

        with tqdm(total=total, desc=title, unit=unit, dynamic_ncols=True) as bar:

            def watch(done: int, loss: float = math.nan) -> None:
                if not math.isnan(loss):
                    bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
                bar.update(done - bar.n)

            yield watch
    else:
        yield _lines(total, title, unit)


def _lines(total: int, title: str, unit: str) -> Watch:
    begin = last = time.monotonic()
    first: int | None = None

    def watch(done: int, loss: float = math.nan) -> None:
        nonlocal first, last
        now = time.monotonic()
        # A resumed run starts above zero; its rate is that of the units done since.
        first = done if first is None else first
        if done < total and now - last < LINE_SECONDS:
            return
        last = now
        rate = (done - first) / max(now - begin, 1e-9)
        left = f", {(total - done) / rate:.0f} s left" if done < total and rate else ""
        shown = "" if math.isnan(loss) else f", loss {loss:.3f}"
        line = f"{title}: {done}/{total} {unit}s, {rate:.1f}/s{shown}{left}"
        print(line, file=sys.stderr, flush=True)

    return watch
