"""All probes of a model against a loop of scikit-learn's logistic regressions, one by one.

A model of 28 layers is imagined, 256 wide, with 2,000 rows to fit to and 500 to test on for each
of 6 relations and 3 formats: 504 probes, with as many classes as the paper's pools have first
tokens. Of the layers four are measured, since the seconds of each are alike; the loop fits one
probe a relation of them. Both choose of four penalties by the same validation rows, then fit to
all. States hold a code of the class in a subspace, the clearer the deeper, and noise whose variance
falls by a power law, so that probes are neither perfect nor blind.

The bar is against scikit-learn at the precision that it needs to end where exact weights are: at
its default tolerance it stops earlier, at other accuracies; both are told.
"""

from __future__ import annotations

import time
import warnings
from importlib.metadata import version
from importlib.util import find_spec

import numpy as np
import torch

from factrecall.experiments.representations.logistic_regression import PrincipalAxes, fit_chosen
from factrecall.runtime.seeds import generator
from tests.benchmarks.table import Row

CLASSES = {
    "birth_date": 12,
    "birth_city": 200,
    "university": 300,
    "job": 100,
    "employer": 263,
    "blood_type": 8,
}
LAYERS, MEASURED, FORMATS, WIDTH, ROWS, TESTED = 28, (6, 13, 20, 27), 3, 256, 2000, 500
PENALTIES = [1e-4, 1e-3, 1e-2, 1e-1]
VALIDATION = torch.arange(ROWS) % 5 == 0
PRECISE, USUAL = 1e-6, 1e-4
TURNS = 3


def states(relation: str, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return states (problems, rows, width) and classes (rows,)."""
    rng, classes = generator(seed, "states", relation), CLASSES[relation]
    y = rng.integers(classes, size=ROWS + TESTED)
    y[:classes] = np.arange(classes)
    argsort_descending = np.arange(1, WIDTH + 1) ** -0.5
    argsort_descending /= np.sqrt((argsort_descending**2).mean())
    rank = min(classes, 64)
    h = np.empty((len(MEASURED) * FORMATS, len(y), WIDTH), dtype=np.float32)
    for problem in range(len(h)):
        depth = (MEASURED[problem // FORMATS] + 1) / LAYERS
        code = rng.normal(size=(classes, rank)) @ rng.normal(size=(rank, WIDTH)) / np.sqrt(rank)
        axes = np.linalg.qr(rng.normal(size=(WIDTH, WIDTH)))[0]
        noise = rng.normal(size=(len(y), WIDTH)) * argsort_descending @ axes
        h[problem] = 0.45 * depth * code[y] + noise
    return torch.from_numpy(h), torch.from_numpy(y)


def ours(h: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return accuracies and penalties of all problems, layer by layer as the package does."""
    right, chosen = [], []
    for part in h.split(FORMATS):
        turn = PrincipalAxes.of(part[:, :ROWS])
        weights, penalty = fit_chosen(turn(part[:, :ROWS]), y[:ROWS], PENALTIES, VALIDATION)
        said = (turn(part[:, ROWS:]) @ weights).argmax(-1)
        right.append((said == y[ROWS:]).double().mean(1))
        chosen.append(penalty)
    return torch.cat(right), torch.cat(chosen)


def loop(h: torch.Tensor, y: torch.Tensor, tolerance: float) -> float:
    """Return the test accuracy of one problem, as scikit-learn finds it."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaled = StandardScaler().fit(h[:ROWS].numpy()).transform(h.numpy())
    classes = y.numpy()

    def fitted(rows: np.ndarray, penalty: float) -> LogisticRegression:
        model = LogisticRegression(C=1 / (len(rows) * penalty), tol=tolerance, max_iter=10_000)
        return model.fit(scaled[rows], classes[rows])

    validation, rest = (torch.nonzero(m)[:, 0].numpy() for m in (VALIDATION, ~VALIDATION))
    scores = {p: fitted(rest, p).score(scaled[validation], classes[validation]) for p in PENALTIES}
    best = max(PENALTIES, key=lambda p: (scores[p], p))
    return float(fitted(np.arange(ROWS), best).score(scaled[ROWS:], classes[ROWS:]))


def bench_probes() -> list[Row]:
    """Compare seconds of all probes and their test accuracies."""
    what, loop_of = "504 linear probes, fitted and chosen", "scikit-learn, one by one"
    if find_spec("sklearn") is None:
        return [Row.missing(what, loop_of, 5)]
    warnings.filterwarnings("ignore", module="sklearn")
    ratios: dict[float, list[float]] = {PRECISE: [], USUAL: []}
    gaps: dict[float, list[float]] = {PRECISE: [], USUAL: []}
    for turn in range(TURNS):
        spent = {name: 0.0 for name in ("ours", PRECISE, USUAL)}
        for number, relation in enumerate(CLASSES):
            h, y = states(relation, turn)
            begin = time.process_time()
            right, _ = ours(h, y)
            spent["ours"] += (time.process_time() - begin) / len(h)
            # Another layer each turn and relation, another format each relation.
            problem = (5 * number + FORMATS * turn) % len(h)
            for tolerance in (PRECISE, USUAL):
                begin = time.process_time()
                accuracy = loop(h[problem], y, tolerance)
                spent[tolerance] += time.process_time() - begin
                gaps[tolerance].append(100 * abs(float(right[problem]) - accuracy))
        for tolerance, found in ratios.items():
            found.append(spent[tolerance] / spent["ours"])
    rows = []
    for tolerance, bar in ((PRECISE, 5), (USUAL, None)):
        against = f"{loop_of}, tol={tolerance:g}"
        peer = {"version": version("scikit-learn")}
        rows += [
            Row.of(what, against, ratios[tolerance], bar, **peer),
            Row.of(
                "… accuracies apart, points",
                against,
                gaps[tolerance],
                bar and 0.5,
                least=False,
                **peer,
            ),
        ]
    return rows
