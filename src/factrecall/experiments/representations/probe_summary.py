"""Accuracies of the probes of all models, and how far formats share features and mechanisms.

Acc(h·W) is the accuracy of the probe W on the states h. Δrep = |Acc(h_QA·W_QA) - Acc(h_BIO·W_QA)|
measures whether statements have the features of questions, and Δmech = |Acc(h_QA·W_QA) -
Acc(h_QA·W_BIO)| whether one mechanism decodes both (paper 2505.16178, section 3.2). The paper's
number for Δmech is of BIO states, for which it prints no formula: we take it as |Acc(h_BIO·W_BIO) -
Acc(h_BIO·W_QA)| and call it ``mech_bio``.

The absolute value of a difference near zero is too large on average. Intervals are therefore of
signed differences, and seeds, layers and relations are averaged before the absolute value is taken:
the bias shrinks, and differences of opposite sign cancel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from factrecall.experiments.representations.tables import (
    ALL,
    BIO_FORMATS,
    CONSISTENCY,
    FITS,
    LABELS,
    MEASURES,
    PROBE_EXAMPLES,
    PROBED_SPLITS,
)
from factrecall.runtime.seeds import generator
from factrecall.runtime.statistics import TOGETHER, draw_people
from factrecall.runtime.storage import read_table
from factrecall.vocabulary import COMPARED, RELATIONS, STATE_FORMATS

LEVEL = 0.95

CELLS = 500
"""Means that are drawn at a time; a few tens of megabytes."""


@dataclass(frozen=True)
class Probed:
    """The tables of a fine-tuned model's probes (see `probe`)."""

    model: str
    tuning: str
    seed: int
    examples: Path
    fits: Path


def summarise_probes(runs: Sequence[Probed], seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the tables of all probes, columns ``PROBES`` and ``CONSISTENCY``.

    The study's `seed` draws the samples of people.
    """
    accuracies, answers = [], []
    for run in runs:
        examples = read_table(run.examples, PROBE_EXAMPLES)
        known = {"model": run.model, "tuning": run.tuning, "seed": run.seed}
        accuracies.append(probe_accuracies(examples, read_table(run.fits, FITS)).assign(**known))
        answers += [_differences(run, examples, split) for split in PROBED_SPLITS]
    return pd.concat(accuracies), consistencies(answers, seed)


def probe_accuracies(examples: pd.DataFrame, fits: pd.DataFrame) -> pd.DataFrame:
    """Return a model's accuracies: columns ``PROBES`` but for what names the model."""
    probe, tests = ["layer", "relation", "trained"], ["tested", "split"]
    means = examples.groupby([*probe, *tests, "labels"], sort=False, observed=True)["right"].mean()
    of = means.index.get_level_values("labels")
    accuracy, control = (means[of == labels].droplevel("labels") for labels in LABELS)
    table = pd.DataFrame({"accuracy": accuracy, "shuffled": control.reindex(accuracy.index)})
    table = table.reset_index()
    own = fits[fits["labels"] == "true"].drop(columns="labels")
    table = table.merge(own, on=probe)
    held = table["split"] == "held"
    table["chance"] = table.pop("chance_held").where(held, table.pop("chance_out"))
    whole = table.groupby(["layer", "trained", *tests], sort=False)
    means = whole[["accuracy", "shuffled", "chance"]].mean()
    together = means.join(whole[["rows", "classes"]].sum()).reset_index()
    return pd.concat([table, together.assign(relation=ALL, penalty=np.nan)])


class _Differences(NamedTuple):
    """Differences of verdicts between a matching probe and another, of one run and split.

    They are -1, 0 or 1, of shape (people, layers, relations, BIO formats, measures).
    """

    run: Probed
    split: str
    layers: np.ndarray
    people: np.ndarray
    values: np.ndarray


def _differences(run: Probed, examples: pd.DataFrame, split: str) -> _Differences:
    rows = examples[(examples["labels"] == "true") & (examples["split"] == split)]
    people, layers = (np.sort(rows[key].unique()) for key in ("individual", "layer"))
    shape = (len(people), len(layers), len(RELATIONS), len(STATE_FORMATS), len(STATE_FORMATS))
    right = np.full(shape, -1, dtype=np.int8)
    names = {"relation": RELATIONS, "trained": STATE_FORMATS, "tested": STATE_FORMATS}
    right[
        np.searchsorted(people, rows["individual"]),
        np.searchsorted(layers, rows["layer"]),
        *(pd.Categorical(rows[key], categories=known).codes for key, known in names.items()),
    ] = rows["right"]
    if (right < 0).any():
        raise ValueError(f"{run.examples}: it does not test every probe on every person")
    qa, bio = STATE_FORMATS.index("qa"), [STATE_FORMATS.index(name) for name in BIO_FORMATS]
    own, crossed = right[..., qa, qa, None], right[..., qa, bio]
    values = np.stack(
        [own - crossed, own - right[..., bio, qa], right[..., bio, bio] - crossed], -1
    )
    return _Differences(run, split, layers, people, values)


def consistencies(found: Sequence[_Differences], seed: int) -> pd.DataFrame:
    """Return Δrep and Δmech of all models, columns ``CONSISTENCY``."""
    groups: dict[tuple[str, str], dict[str, list[_Differences]]] = {}
    for part in found:
        if len(part.people):
            tunings = groups.setdefault((part.run.model, part.split), {})
            tunings.setdefault(part.run.tuning, []).append(part)
    tables = []
    for (model, split), tunings in groups.items():
        rng = generator(seed, "consistency", model, split)
        tables.append(_compared(tunings, rng).assign(model=model, split=split))
    return pd.concat(tables) if tables else pd.DataFrame(columns=list(CONSISTENCY))


def _compared(
    tunings: Mapping[str, Sequence[_Differences]], rng: np.random.Generator
) -> pd.DataFrame:
    """Return the rows of one model and split: of each tuning, and of the pair."""
    first = next(iter(tunings.values()))[0]
    for part in (part for parts in tunings.values() for part in parts):
        for axis in ("people", "layers"):
            if not np.array_equal(getattr(part, axis), getattr(first, axis)):
                why = f"it is of other {axis} than {first.run.examples}"
                raise ValueError(f"{part.run.examples}: {why}")
    count = len(first.people)
    # How often each person is drawn: the same samples for all, so that differences are paired.
    drawn = draw_people(count, rng) / count
    tables = []
    for tuning, parts in tunings.items():
        cells, values = _cells(parts)
        signed = values.mean(0)
        low, high = _interval(drawn, values)
        columns = {"value": abs(signed), "signed": signed, "low": low, "high": high}
        tables.append(cells.assign(tuning=tuning, **columns))
    seeds = [{part.run.seed for part in tunings.get(tuning, ())} for tuning in COMPARED]
    if both := seeds[0] & seeds[1]:
        (cells, stage), (_, mix) = (
            _cells([part for part in tunings[tuning] if part.run.seed in both])
            for tuning in COMPARED
        )
        ours, theirs = stage.mean(0), mix.mean(0)
        low, high = _interval(drawn, stage, mix)
        columns = {"value": abs(ours) - abs(theirs), "signed": ours - theirs}
        tables.append(cells.assign(tuning=" - ".join(COMPARED), **columns, low=low, high=high))
    return pd.concat(tables).assign(people=count)


def _cells(parts: Sequence[_Differences]) -> tuple[pd.DataFrame, np.ndarray]:
    """Return the values of some seeds, shape (people, cells), with the means over each axis.

    Of cells it returns seed, layer, relation, bio and measure.
    """
    parts = sorted(parts, key=lambda part: part.run.seed)
    values = np.stack([part.values for part in parts], 1).astype(float)
    for axis in (1, 2, 3):
        values = np.concatenate([values, values.mean(axis, keepdims=True)], axis)
    names = {
        "seed": [*(part.run.seed for part in parts), TOGETHER],
        "layer": [*parts[0].layers, TOGETHER],
        "relation": [*RELATIONS, ALL],
        "bio": BIO_FORMATS,
        "measure": MEASURES,
    }
    cells = pd.MultiIndex.from_product(names.values(), names=list(names))
    return cells.to_frame(index=False), values.reshape(len(values), -1)


def _interval(drawn: np.ndarray, *values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return percentile intervals of means over people, or of the difference of absolute means.

    `drawn` is each person's share of each sample, (samples, people); `values` are one array of
    shape (people, cells), or two whose absolute means are compared.
    """
    bounds = []
    for begin in range(0, values[0].shape[1], CELLS):
        means = [drawn @ part[:, begin : begin + CELLS] for part in values]
        sampled = means[0] if len(means) == 1 else abs(means[0]) - abs(means[1])
        bounds.append(np.quantile(sampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0))
    low, high = np.concatenate(bounds, 1)
    return low, high
