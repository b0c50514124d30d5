"""Whose questions masks are fitted to, and whose test them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from factrecall.runtime.seeds import generator

if TYPE_CHECKING:
    import pandas as pd

    from factrecall.experiments.grafting.settings import GraftingSettings


class GraftedPeople(NamedTuple):
    """Questions by whose they are.

    `fitted` and `held_out` are of one side; no mask is fitted to questions of held-out people.
    `distilled` are those of both sides but of held-out people.
    """

    fitted: pd.DataFrame
    held_out: pd.DataFrame
    distilled: pd.DataFrame

    @classmethod
    def of(
        cls, qa: pd.DataFrame, settings: GraftingSettings, study_seed: int, split: str
    ) -> GraftedPeople:
        """Divide the questions of a study for the masks of one side."""
        parts: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        asked = qa[qa["split"] != "pretrain"]
        for side in asked["split"].unique():
            rows = asked[asked["split"] == side]
            fitted = fitted_people(rows, settings.fit_individuals, study_seed, side)
            held_out = _held_out(rows, fitted, settings.held_out_individuals, study_seed, side)
            parts[side] = fitted, held_out
        nobody = np.concatenate([held_out for _, held_out in parts.values()])
        own = asked[asked["split"] == split]
        who = own["individual"]
        return cls(
            fitted=own[who.isin(parts[split][0])],
            held_out=own[who.isin(parts[split][1])],
            distilled=asked[~asked["individual"].isin(nobody)],
        )


def fitted_people(
    asked: pd.DataFrame, individuals: int | None, study_seed: int, split: str
) -> np.ndarray:
    """Draw the people whose questions masks are fitted to, in the order they are drawn in.

    `asked` are the questions of one split; `individuals` None, or more than there are, takes all.
    """
    people = np.sort(asked["individual"].unique())
    count = min(len(people), individuals or len(people))
    drawn = generator(study_seed, "grafted people", split).choice(people, count, replace=False)
    return np.asarray(drawn)


def _held_out(
    asked: pd.DataFrame, fitted: np.ndarray, individuals: int | None, study_seed: int, split: str
) -> np.ndarray:
    """Draw the people of one split who test masks, from those they are not fitted to."""
    others = np.setdiff1d(asked["individual"].unique(), fitted)
    count = min(len(others), individuals or len(others))
    drawn = generator(study_seed, "held-out people", split).choice(others, count, replace=False)
    return np.asarray(drawn)
