"""The tables of the page, as text ready to be shown: per cent, points, durations."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from factrecall.evaluation.exact_match import SPLITS
from factrecall.experiments.shared_parameters.top_tensors import Gathering
from factrecall.report.published import published
from factrecall.report.style import SPLIT_LABELS, TUNING_LABELS
from factrecall.report.summaries import by_seed, spread
from factrecall.report.timings import Timing, duration, summarise

MISSING = "\N{EN DASH}"
NO_BREAK = "\N{NO-BREAK SPACE}"
TIMES = "\N{MULTIPLICATION SIGN}"


class Table(NamedTuple):
    """A table of the page: its rows come in groups, each under a title (None: no title)."""

    caption: str
    head: list[str]
    groups: list[tuple[str | None, list[list[str]]]]


def percent(share: float) -> str:
    """Write a share from 0 to 1 as per cent with one decimal, without the sign."""
    return MISSING if math.isnan(share) else f"{100 * share:.1f}"


def points(difference: float) -> str:
    """Write a difference of shares in points, with its sign."""
    rounded = round(100 * difference, 1)
    return f"{rounded:+.1f}".replace("-", "\N{MINUS SIGN}") if rounded else "0.0"


def _whole(share: float) -> str:
    return f"{100 * share:.0f}{NO_BREAK}%"


def recall_table(recall: pd.DataFrame) -> Table:
    """Return accuracy by split and tuning: mean, spread and every seed."""
    seeds = by_seed(recall)
    several = seeds.groupby("tuning")["seed"].transform("nunique") > 1
    columns = sorted(seeds.loc[several, "seed"].unique())
    single = seeds.set_index(["split", "tuning", "seed"])["accuracy"]
    summary = spread(seeds).set_index(["split", "tuning"])
    groups: list[tuple[str | None, list[list[str]]]] = []
    for split in SPLITS:
        rows = []
        for tuning, row in summary.loc[split].iterrows() if split in summary.index else ():
            cells = [percent(single.get((split, tuning, seed), math.nan)) for seed in columns]
            rows.append([TUNING_LABELS[str(tuning)], *_mean(row), *cells])
        groups.append((SPLIT_LABELS[split], rows))
    return Table(
        "Answers exactly right, in per cent, over all relations; s.d. is the sample standard "
        "deviation over seeds.",
        ["Tuning", "mean", "s.d.", *(f"seed{NO_BREAK}{seed}" for seed in columns)],
        groups,
    )


def _mean(row: pd.Series) -> list[str]:
    return [percent(row["mean"]), percent(row["sd"])]


def comparison_table(recall: pd.DataFrame, model: str) -> Table:
    """Return this study's accuracies beside those the paper gives for `model`."""
    summary = spread(by_seed(recall)).set_index(["tuning", "split"])
    rows = []
    for tuning, label in TUNING_LABELS.items():
        cells = []
        for split in SPLITS:
            key = (tuning, split)
            here = MISSING
            if key in summary.index:
                mean, sd = _mean(summary.loc[key])
                here = mean if sd == MISSING else f"{mean} ± {sd}"
            theirs = published(model, tuning, split)
            cells += [here, MISSING if theirs is None else f"{theirs:.1f}"]
        rows.append([label, *cells])
    names = [SPLIT_LABELS[split].partition(":")[0] for split in SPLITS]
    head = [f"{name}, {side}" for name in names for side in ("here", "paper")]
    return Table(
        "Answers exactly right, in per cent; here: mean ± s.d. over seeds.",
        ["Tuning", *head],
        [(None, rows)],
    )


def run_table(study: Mapping[str, Any], sizes: Mapping[str, int]) -> Table:
    """Return what each model of the study is and how long it was trained.

    Parameters
    ----------
    study : mapping
        The resolved configuration.
    sizes : mapping of str to int
        Number of parameters of the models for which it is known.
    """
    rows = []
    for name, model in study["models"].items():
        recipes = model["training"]
        trained = [
            f"{recipes[t]['updates']:,} {TIMES} {recipes[t]['batch_size']}"
            for t in ("bio", "stage", "mix")
        ]
        size = f"{sizes[name]:,}" if name in sizes else MISSING
        rows.append([name, _shape(model), size, *trained])
    return Table(
        f"Models, their number of parameters, and updates {TIMES} batch size of each fine-tuning "
        "(Stage-tuned: the questions, after the biographies of BIO).",
        ["Model", "What it is", "parameters", "BIO", "Stage", "Mix"],
        [(None, rows)],
    )


def _shape(model: Mapping[str, Any]) -> str:
    if model["source"] == "scratch":
        return (
            f"{model['architecture']} from scratch, {model['layers']} layers, "
            f"width {model['hidden_size']}, {model['heads']} heads"
        )
    if model["source"] == "hub":
        return f"{model['repository']} at {model.get('revision') or 'its newest revision'}"
    return f"folder {model['path']}"


def timing_table(timings: Sequence[Timing]) -> Table:
    """Return time and memory by stage, model and tuning."""
    rows = [
        [
            row.stage,
            row.model or MISSING,
            TUNING_LABELS.get(row.tuning, row.tuning) or MISSING,
            str(row.runs),
            duration(row.seconds),
            duration(row.total),
            MISSING if math.isnan(row.memory) else f"{row.memory:,.0f}",
        ]
        for row in summarise(timings).itertuples()
    ]
    return Table(
        "Wall-clock time and peak memory as the workflow measured them.",
        ["Stage", "Model", "Tuning", "runs", "mean a run", "all runs", "peak MB"],
        [(None, rows)],
    )


def gathering_table(gatherings: Mapping[str, Sequence[Gathering]]) -> Table:
    """Return, by tuning and task, how many gradients were traced and where they gathered."""
    groups: list[tuple[str | None, list[list[str]]]] = [
        (
            TUNING_LABELS[tuning],
            [
                [
                    g.task,
                    f"{g.gradients:,}",
                    "; ".join(
                        f"{kind} {_whole(share)} (chance {_whole(chance)})"
                        for kind, share, chance in g.kinds
                    ),
                ]
                for g in tasks
            ],
        )
        for tuning, tasks in gatherings.items()
    ]
    return Table(
        "Gradients added up by task, and the kinds of tensor (all layers together) that hold "
        "most of the most influenced parameters.",
        ["Task", "gradients", "where the top parameters are"],
        groups,
    )


def flat(mapping: Mapping[str, Any], prefix: str = "") -> list[list[str]]:
    """Return nested settings as rows of dotted key and value."""
    rows = []
    for key, value in mapping.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            rows += flat(value, f"{name}.")
        else:
            rows.append([name, str(value)])
    return rows
