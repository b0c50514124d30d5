"""Commands of the experiments on representations: states, probes, gradients, what facts rest on."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from factrecall.cli.common import Command, device_of, given, open_study, seed_of
from factrecall.cli.experiments import RUN

TABLES = {
    "probes": "accuracies of probes",
    "consistency": "consistency of representations",
    "gradients": "consistency of gradients",
    "signature": "what facts are read from",
    "patching": "what patched states restore",
}


def add(commands: Any) -> None:
    """Add the commands of this module."""
    represent = Command(
        commands, "represent", _represent, "keep hidden states; see what facts are read from"
    )
    represent.path("--tuned", "the fine-tuned model folder")
    represent.path("--bio", "the bio table")
    represent.path("--qa", "the qa table")
    represent.output("--out", "the hidden states to write")
    represent.output("--signature", "the table to write of which parts of a prompt a fact rests on")
    represent.output("--patching", "the table to write of what patched states do")

    probe = Command(commands, "probe", _probe, "read attributes off hidden states by linear probes")
    probe.path("--states", "the hidden states of one model")
    probe.output("--out", "the per-example table to write")
    probe.output("--fits", "the table of probes to write")

    compare = Command(
        commands,
        "compare-gradients",
        _compare_gradients,
        "see whether the same parameters learn a fact told and asked",
    )
    compare.each(
        "--moment",
        ("PHASE", "SHARE", "WEIGHTS"),
        "a model folder or snapshot of the training history, in order",
    )
    compare.path("--sets", "the shared sets")
    compare.path("--masks", "the masks, fitted to QA out")
    compare.path("--outcomes", "the outcomes of these masks")
    compare.facts()
    compare.output("--out", "the per-fact table to write")

    summarise = Command(
        commands,
        "summarise-representations",
        _summarise,
        "gather what is known of all representations",
    )
    summarise.each(
        "--represented",
        (*RUN, "PROBES", "FITS", "GRADIENTS", "SIGNATURE", "PATCHING"),
        "the tables of one fine-tuned model",
    )
    for name, text in TABLES.items():
        summarise.output(f"--{name}", f"the table of {text} to write")


def _represent(options: argparse.Namespace) -> None:
    study, settings, provenance = open_study(options)
    device = device_of(study)
    from factrecall.experiments.representations.stage import represent

    represent(
        **settings,
        **given(options, "tuned", "bio", "qa", "signature", "patching"),
        states=options.out,
        device=device,
        provenance=provenance,
    )


def _probe(options: argparse.Namespace) -> None:
    study, settings, provenance = open_study(options)
    device = device_of(study, exact=True)
    from factrecall.experiments.representations.probes import probe

    probe(
        **settings, **given(options, "states", "out", "fits"), device=device, provenance=provenance
    )


def _compare_gradients(options: argparse.Namespace) -> None:
    study, settings, provenance = open_study(options)
    device = device_of(study)
    from factrecall.data.files import FactFiles
    from factrecall.experiments.gradient_similarity.stage import Moment, compare_gradients

    moments = [
        Moment(phase, _share(share), Path(weights)) for phase, share, weights in options.moment
    ]
    compare_gradients(
        **settings,
        **given(options, "sets", "masks", "outcomes", "out"),
        moments=moments,
        facts=FactFiles(*options.facts),
        device=device,
        provenance=provenance,
    )


def _share(text: str) -> float:
    from factrecall.runtime.errors import FactRecallError

    try:
        return float(text)
    except ValueError:
        raise FactRecallError(
            f"--moment: share {text!r}", "it is no number", "say which part of the phase is over"
        ) from None


def _summarise(options: argparse.Namespace) -> None:
    _, settings, provenance = open_study(options)
    from factrecall.experiments.representations.summary import (
        Represented,
        summarise_representations,
    )

    runs = [
        Represented(model, tuning, seed_of(seed), *map(Path, files))
        for model, tuning, seed, *files in options.represented
    ]
    summarise_representations(
        **settings, **given(options, *TABLES), runs=runs, provenance=provenance
    )
