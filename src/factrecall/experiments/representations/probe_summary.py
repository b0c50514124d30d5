"""Accuracies of the probes of all models, and how far formats share features and mechanisms.

Acc(h·W) is the accuracy of the probe W on the states h. Δrep = |Acc(h_QA·W_QA) - Acc(h_BIO·W_QA)|
measures whether statements have the features of questions, and Δmech = |Acc(h_QA·W_QA) -
Acc(h_QA·W_BIO)| whether one mechanism decodes both (paper 2505.16178, section 3.2). The paper's
number for Δmech is of BIO states, for which it prints no formula: we take it as |Acc(h_BIO·W_BIO) -
Acc(h_BIO·W_QA)| and call it ``mech_bio``.

The absolute value of a difference near zero is too large on average. The table therefore holds
signed differences; absolute values are taken after all means.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from factrecall.experiments.representations.tables import (
    ALL,
    BIO_FORMATS,
    FITS,
    LABELS,
    MEASURES,
    PROBE_EXAMPLES,
)
from factrecall.runs import Run
from factrecall.runtime.storage import read_table
from factrecall.vocabulary import RELATIONS, STATE_FORMATS

_PERSON = ["layer", "split", "individual"]


@dataclass(frozen=True)
class Probed(Run):
    """The tables of a fine-tuned model's probes (see `probe`)."""

    examples: Path
    fits: Path


def summarise_probes(runs: Sequence[Probed]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the tables of all probes, columns ``PROBES`` and ``CONSISTENCY``."""
    accuracies, differences = [], []
    for run in runs:
        examples = read_table(run.examples, PROBE_EXAMPLES)
        fits = read_table(run.fits, FITS)
        accuracies.append(probe_accuracies(examples, fits).assign(**run.labels))
        try:
            differences.append(consistency(examples).assign(**run.labels))
        except ValueError as error:
            raise ValueError(f"{run.examples}: {error}") from error
    return pd.concat(accuracies), pd.concat(differences)


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


def consistency(examples: pd.DataFrame) -> pd.DataFrame:
    """Return a model's differences: columns ``CONSISTENCY`` but for what names the model.

    Raises
    ------
    ValueError
        When not every probe was tested on every person.
    """
    rows = examples[examples["labels"] == "true"]
    by_person = rows.groupby([*_PERSON, "trained", "tested"])["right"].agg(["mean", "size"])
    accuracy, tests = (by_person[c].unstack(["trained", "tested"]) for c in ("mean", "size"))
    if accuracy.shape[1] != len(STATE_FORMATS) ** 2 or not (tests == len(RELATIONS)).all(axis=None):
        raise ValueError("it does not test every probe on every person")
    return differences(accuracy).reset_index()


def differences(accuracy: pd.DataFrame) -> pd.DataFrame:
    """Subtract accuracies, a column a probe's format and tested format, as the measures say.

    Returns
    -------
    DataFrame
        A column `signed`; to the index are added bio and measure.
    """
    found: dict[tuple[str, str], pd.Series] = {}
    for bio in BIO_FORMATS:
        own, crossed = accuracy["qa", "qa"], accuracy["qa", bio]
        values = (own - crossed, own - accuracy[bio, "qa"], accuracy[bio, bio] - crossed)
        found |= {(bio, measure): v for measure, v in zip(MEASURES, values, strict=True)}
    table = pd.concat(found, names=["bio", "measure"]).rename("signed").to_frame()
    return table.reorder_levels([*accuracy.index.names, "bio", "measure"])
