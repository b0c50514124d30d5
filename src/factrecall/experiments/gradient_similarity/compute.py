"""Gradient similarity: whether the same parameters learn the statement and the question of a fact.

The revised abstract of the paper claims that mixed training makes the gradients of the two formats
of a fact more consistent, and that the consistency sits in the parameters that both formats update
(method, section 10). It does not say how that was measured. Here it is the cosine of the two
gradients over groups of parameters (see `cosines`), at moments of the training.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import torch

from factrecall.data.traced import traced_individuals
from factrecall.experiments.gradient_similarity.cosines import (
    Pairs,
    compared_sets,
    write_gradients,
)
from factrecall.experiments.gradient_similarity.sampled_parameters import SampledParameters
from factrecall.experiments.grafting.grafted_model import looked_at_mask
from factrecall.models.loading import load_model, load_tokenizer
from factrecall.parameters.sets import read_set
from factrecall.parameters.space import ParameterSpace
from factrecall.runtime.progress import progress
from factrecall.runtime.seeds import generator
from factrecall.training.snapshots import load_weights

if TYPE_CHECKING:
    from factrecall.config.training import TraceSettings
    from factrecall.data.files import FactFiles
    from factrecall.experiments.gradient_similarity.settings import GradientSimilaritySettings
    from factrecall.experiments.gradient_similarity.stages import Moment


def gradient_table(
    gradients: GradientSimilaritySettings,
    trace: TraceSettings,
    study_seed: int,
    *,
    moments: Sequence[Moment],
    sets: Path,
    masks: Path,
    outcomes: Path,
    facts: FactFiles,
    device: torch.device,
) -> pd.DataFrame:
    """Compare the gradients of traced people's statements and questions; columns ``GRADIENTS``.

    The first of the `moments` is a model folder, the others follow in order. Memory: weights, their
    gradient and, of every fact of a split, twice the sampled parameters.
    """
    people, bio, qa = facts.read()
    traced = traced_individuals(people, trace, study_seed)
    tokenizer = load_tokenizer(moments[0].weights)
    model = load_model(moments[0].weights, device)
    pairs = {}
    for split in dict.fromkeys(traced.values()):
        chosen = [person for person, side in traced.items() if side == split]
        pairs[split] = Pairs.of(bio, qa, chosen[: gradients.individuals], tokenizer)
    space = ParameterSpace.of(model)
    sampled = SampledParameters(
        compared_sets(
            read_set(sets, "S", space), looked_at_mask(masks, outcomes, space), study_seed
        ),
        gradients.sampled_parameters,
        generator(study_seed, "gradient coordinates"),
        device,
    )
    tables = []
    # Once for all: fresh memory costs about as much as what is done in it.
    most = max(len(found.rows) for found in pairs.values())
    rows = torch.empty(2, most, sampled.count, device=device)
    total = 2 * len(moments) * sum(len(found.rows) for found in pairs.values())
    with progress(total, "gradients", "gradient") as watch:
        done = count(1)
        for moment in moments:
            load_weights(model, moment.weights)
            for split, found in pairs.items():
                statements, questions = rows[:, : len(found.rows)]
                for part, texts in zip(
                    (statements, questions), (found.statements, found.questions), strict=True
                ):
                    for _ in write_gradients(part, model, texts, sampled):
                        watch(next(done))
                products = sampled.products(statements, questions)
                table = found.cosines(products, sampled.groups())
                tables.append(table.assign(phase=moment.phase, share=moment.share, split=split))
    return pd.concat(tables)
