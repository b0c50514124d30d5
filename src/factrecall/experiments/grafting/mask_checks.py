"""Checks of masks: what else they recall, and whether another fit finds them again.

The paper reports overlaps across runs, inclusion across sizes and random masks (appendix A.5.2).
Added here, because recovery alone cannot tell finding from memorising: whether the facts recalled
are those that θtask recalls, whether held-out people's facts are recalled, and how well a mask of
the same size fits answers that were never trained on.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from factrecall.experiments.grafting.grafter import overlap
from factrecall.experiments.grafting.mask_choice import UNFITTED, looked_at
from factrecall.parameters.sets import ParameterSet
from factrecall.runs import RUN

if TYPE_CHECKING:
    from factrecall.experiments.grafting.grafter import Grafter, Masks, Sweep

CHECK = {
    "check": "string",
    "objective": "string",
    "alpha": "float64",
    "other": "float64",
    "value": "float64",
}
"""Columns of one model's checks: what of which mask was checked, and against which other.

- ``fine_tuned``, ``pre_trained``: accuracy of θtask and θpre (other: 0 on the people that gold
  masks are fitted to, 1 on held-out people; α is missing)
- ``held_out_people``: accuracy of θ(γ) on the people it was not fitted to
- ``retained``, ``newly_correct``: share right of the answers that θtask has right, and of those
  that it has wrong
- ``inclusion``: |γ(α) ∩ γ(other α)|/|γ(α)|, α below the other
- ``random``: accuracy of a random mask (other: number of the draw)
- ``overlap_runs``: overlap with the mask of another order of questions
- ``overlap_seeds``: overlap with the mask of another fine-tuning seed (other)
- ``shuffled``: share right of answers exchanged between people, for a mask fitted to them
"""

CHECKS = {**RUN, "split": "string", **CHECK}
"""Columns of ``tables/grafting_checks.parquet``."""

DRAWS = 3
"""Random masks."""

Row = tuple[str, str, float, float, float]


def check_masks(grafter: Grafter, sweep: Sweep, *, thorough: bool) -> pd.DataFrame:
    """Check the masks of one model; columns ``CHECK``.

    Random, repeated and shuffled masks are those of the gold mask that is looked at. `sweep` is
    with S, its outcomes with ``chosen``; `thorough` fits again for ``overlap_runs`` and
    ``shuffled``.
    """
    masks = sweep.masks
    alpha = float(looked_at(sweep.outcomes, [])["alpha"].iloc[0])
    rows = [*_answers(grafter, sweep.answers), *_inclusions(grafter, masks)]
    rows += _at_one_size(grafter, masks, alpha, thorough)
    return pd.DataFrame(rows, columns=list(CHECK))


def _answers(grafter: Grafter, found: pd.DataFrame) -> Iterator[Row]:
    nothing = ParameterSet.empty(grafter.weights.space)
    known = np.empty(0, dtype=bool)
    for other, qa in enumerate(grafter.people[:2]):
        if not len(qa):
            continue
        evaluator = grafter.evaluator(qa)
        for name, mask in (("pre_trained", nothing), ("fine_tuned", ~nothing)):
            right = grafter.right(mask, evaluator)
            yield name, "", np.nan, other, float(right.mean())
        known = right if other == 0 else known
    fitted = found[~found["method"].isin(UNFITTED)]
    keys = ["objective", "alpha", "fitted"]
    for (objective, alpha, inside), rows in fitted.groupby(keys, sort=False):
        right = rows["correct"].to_numpy()
        if not inside:
            yield "held_out_people", objective, float(alpha), np.nan, float(right.mean())
            continue
        for name, part in (("retained", right[known]), ("newly_correct", right[~known])):
            if len(part):
                yield name, objective, float(alpha), np.nan, float(part.mean())


def _inclusions(grafter: Grafter, masks: Masks) -> Iterator[Row]:
    settings, method = grafter.settings, grafter.settings.optimiser.method
    for objective in settings.objectives:
        for small, large in combinations(settings.alphas, 2):
            share = overlap(masks[small, method, objective], masks[large, method, objective])
            yield "inclusion", objective, small, large, share


def _at_one_size(grafter: Grafter, masks: Masks, alpha: float, thorough: bool) -> Iterator[Row]:
    settings = grafter.settings
    excluded = grafter.excluded()
    chosen = masks[alpha, settings.optimiser.method, "gold"]
    fitted = grafter.people.fitted
    evaluator = grafter.evaluator(fitted)
    rng = grafter.rng("random masks")
    for draw in range(DRAWS):
        mask = (~excluded).sample(len(chosen), rng)
        yield "random", "gold", alpha, draw, float(grafter.right(mask, evaluator).mean())
    if not thorough:
        return
    # Dual averaging comes to a size from the larger ones, as it did before.
    follows = settings.optimiser.method == "dual_averaging"
    alphas = [a for a in settings.sizes() if a == alpha or (follows and a > alpha)]
    name = "grafting again"
    again = grafter.fit(name, alphas, excluded, grafter.gold(fitted), grafter.rng(name))[0]
    yield "overlap_runs", "gold", alpha, np.nan, overlap(chosen, again)
    rng = grafter.rng("shuffled answers")
    exchanged = shuffled(fitted, rng)
    texts = grafter.gold(exchanged)
    mask = grafter.fit("grafting shuffled answers", alphas, excluded, texts, rng)[0]
    right = grafter.right(mask, grafter.evaluator(exchanged))
    wrong = exchanged["text"].to_numpy() != fitted["text"].to_numpy()
    if wrong.any():
        yield "shuffled", "gold", alpha, np.nan, float(right[wrong].mean())


def shuffled(qa: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Exchange the answers of each relation between people; spans follow."""
    spans = zip(qa["text"], qa["attribute_start"], qa["attribute_end"], strict=True)
    answers = np.array([text[start:end] for text, start, end in spans], dtype=object)
    for relation in qa["relation"].unique():
        where = np.flatnonzero(qa["relation"] == relation)
        answers[where] = answers[rng.permutation(where)]
    parts = zip(qa["text"], qa["attribute_start"], qa["attribute_end"], answers, strict=True)
    texts = [text[:start] + answer + text[end:] for text, start, end, answer in parts]
    ends = qa["attribute_start"].to_numpy() + np.array([len(answer) for answer in answers])
    tail = (qa["terminator_end"] - qa["attribute_end"]).to_numpy()
    return qa.assign(text=texts, attribute_end=ends, terminator_end=ends + tail)
