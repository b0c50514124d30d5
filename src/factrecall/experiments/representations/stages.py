"""The stages of representations: hidden states of one model, probes of them, and all of a study.

In `capture` three analyses of the same model and facts share a job, since each takes about as
long as opening the model: the hidden states that probes need (`states`), the parts of the prompt
that an answer is attributed to (`attribution`), and whether the state of a statement restores the
answer to the question (`patching`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from factrecall.runs import Run, histories
from factrecall.runtime.job import Job
from factrecall.runtime.stage import EXPERIMENTS, TABLES, Input, Output, stage

if TYPE_CHECKING:
    from factrecall.experiments.representations.settings import (
        ProbeSettings,
        RepresentationSettings,
    )


@stage(
    "capture",
    settings=lambda study: {
        # How probes are fitted does not matter here, only to whom.
        "representations": study.representations.model_copy(
            update={
                "gradient_similarity": None,
                "probes": study.representations.probes.model_copy(
                    update={"held_out": None, "penalties": None}
                ),
            }
        ),
    },
    libraries=(*EXPERIMENTS, "captum"),
    per=histories,
    device="model",
)
def capture(
    job: Job,
    *,
    tuned: Input,
    individuals: Input,
    bio: Input,
    qa: Input,
    states: Output,
    attribution: Output,
    patching: Output,
    representations: RepresentationSettings,
    max_eval_tokens: int,
    study_seed: int,
) -> None:
    """Capture a model's hidden states; attribute its answers; patch its activations.

    Parameters
    ----------
    states
        the hidden states to write
    attribution
        the table to write of the parts of a prompt that answers are attributed to
    patching
        the table to write of what patched states do
    """
    from factrecall.data.files import FactFiles
    from factrecall.experiments.attribution.attribution import attribute
    from factrecall.experiments.attribution.patching import patch
    from factrecall.experiments.attribution.tables import ATTRIBUTION, PATCHING
    from factrecall.experiments.common.model_facts import ModelFacts
    from factrecall.experiments.representations.capture import capture_states
    from factrecall.models.loading import load_model, load_tokenizer
    from factrecall.runtime.safetensors_writer import write_tensors

    model, tokenizer = load_model(tuned, job.device), load_tokenizer(tuned)
    facts = FactFiles(individuals, bio, qa).read()
    opened = ModelFacts(model, tokenizer, *facts, study_seed, max_eval_tokens)
    write_tensors(states, capture_states(opened, representations), job.provenance)
    job.write(attribution, attribute(opened, representations.attribution), ATTRIBUTION)
    job.write(patching, patch(opened, representations), PATCHING)


@stage(
    "probe",
    settings=lambda study: {
        "probes": study.representations.probes.model_copy(update={"individuals": None}),
    },
    libraries=EXPERIMENTS,
    per=histories,
    device="exact",
)
def probe(
    job: Job, *, states: Input, out: Output, fits: Output, probes: ProbeSettings, study_seed: int
) -> None:
    """Predict attributes from hidden states by linear probes.

    Parameters
    ----------
    states
        the hidden states of one model
    out
        the per-example table to write
    fits
        the table of probes to write
    """
    from factrecall.experiments.representations.probes import probe_tables
    from factrecall.experiments.representations.tables import FITS, PROBE_EXAMPLES
    from factrecall.runtime.safetensors_writer import read_tensors

    tensors, _ = read_tensors(states)
    examples, fitted = probe_tables(tensors, probes, study_seed, job.device)
    job.write(out, examples, PROBE_EXAMPLES)
    job.write(fits, fitted, FITS)


@dataclass(frozen=True)
class ModelTables(Run):
    """The tables of one fine-tuned model."""

    probes: Path
    fits: Path
    gradients: Path


@stage(
    "summarise-representations",
    libraries=TABLES,
)
def summarise_representations(
    job: Job,
    *,
    runs: list[ModelTables],
    probes: Output,
    consistency: Output,
    gradients: Output,
) -> None:
    """Gather the study's tables of representations.

    Parameters
    ----------
    runs
        the tables of one fine-tuned model; give one for each
    probes
        the table of accuracies of probes to write
    consistency
        the table of differences between formats to write, a row a person
    gradients
        the table of gradient similarity to write
    """
    from factrecall.experiments.common.summaries import read_runs
    from factrecall.experiments.gradient_similarity.summary import mean_cosines
    from factrecall.experiments.gradient_similarity.tables import GRADIENT_SUMMARY, GRADIENTS
    from factrecall.experiments.representations.probe_summary import Probed, summarise_probes
    from factrecall.experiments.representations.tables import CONSISTENCY, PROBES

    probed = [Probed(r.model, r.tuning, r.seed, r.probes, r.fits) for r in runs]
    accuracies, differences = summarise_probes(probed)
    job.write(probes, accuracies, PROBES)
    job.write(consistency, differences, CONSISTENCY)
    facts = read_runs(runs, GRADIENTS, "gradients")
    job.write(gradients, mean_cosines(facts), GRADIENT_SUMMARY)
