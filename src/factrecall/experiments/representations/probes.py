"""Linear probes: whether statements and questions represent an attribute in the same way.

A probe is a multinomial logistic regression from the hidden state to the first token of the
attribute, for one layer, relation and format. It is fitted to people in distribution and tested on
the states of all formats, of held-out people in distribution and of people out of distribution
(paper 2505.16178, section 3.2; docs/method.md). Features are standardised by the probe's own
training rows, also those of another format. A control is fitted to the same rows with permuted
labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from factrecall.experiments.representations.limits import NUMBERS
from factrecall.experiments.representations.logistic_regression import (
    PrincipalAxes,
    fit_chosen,
)
from factrecall.experiments.representations.tables import LABELS, PROBED_SPLITS
from factrecall.runtime.errors import FactRecallError
from factrecall.runtime.progress import progress
from factrecall.runtime.seeds import generator
from factrecall.vocabulary import RELATIONS, STATE_FORMATS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from factrecall.experiments.representations.settings import ProbeSettings

_NAMES = np.array(STATE_FORMATS, dtype=object)


@dataclass(frozen=True)
class Roles:
    """The roles of people, as masks of shape (people,); only `train` and `validation` overlap.

    Probes are fitted to `train`, of whom `validation` choose the penalty.
    """

    train: np.ndarray
    validation: np.ndarray
    held: np.ndarray
    out: np.ndarray

    @classmethod
    def draw(cls, inside: np.ndarray, held_out: float, study_seed: int) -> Roles:
        """Draw who is held out and, the same share of those that are left, who validates.

        The draw is the same for every model, tuning and seed of a study; `inside` says who is in
        distribution.

        Raises
        ------
        FactRecallError
            When fewer than two people are in distribution.
        """
        if inside.sum() < 2:
            raise FactRecallError(
                "representations.probes",
                "fewer than two people in distribution are probed: one fits, another tests",
                "raise facts.people or facts.in_distribution; of people of your own "
                "(facts.individuals) mark more with 'in' in their column split, if they have one",
            )
        held = _drawn(inside, held_out, study_seed, "held out")
        train = inside & ~held
        return cls(train, _drawn(train, held_out, study_seed, "validation"), held, ~inside)


def _drawn(people: np.ndarray, share: float, study_seed: int, role: str) -> np.ndarray:
    """Draw a share of people: one at least, but not all."""
    places = np.flatnonzero(people)
    count = min(max(round(share * len(places)), 1), len(places) - 1)
    chosen = np.zeros_like(people)
    chosen[generator(study_seed, "probes", role).choice(places, count, replace=False)] = True
    return chosen


def probe_tables(
    tensors: Mapping[str, torch.Tensor],
    probes: ProbeSettings,
    study_seed: int,
    device: torch.device,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Fit and test all probes of one model, given its hidden states (see `capture_states`).

    Returns
    -------
    examples, fits : DataFrame
        Columns ``PROBE_EXAMPLES`` and ``FITS``.
    """
    relation = tensors["relation"].numpy()
    layers = tensors["layers"].numpy()
    examples: list[pd.DataFrame] = []
    fitted: list[pd.DataFrame] = []
    with progress(len(RELATIONS) * len(layers), "probes", "layer") as watch:
        for number, name in enumerate(RELATIONS):
            facts = np.flatnonzero(relation == number)
            # By person, so that the rows of a person are the same in every relation.
            facts = facts[np.argsort(tensors["individual"].numpy()[facts])]
            roles = Roles.draw(tensors["in"].numpy()[facts], probes.held_out, study_seed)
            task = _Task(
                tensors["first"][facts].to(device),
                tensors["individual"].numpy()[facts],
                roles,
                generator(study_seed, "probes", "shuffled labels", name),
            )
            features = torch.stack([tensors[form][:, facts] for form in STATE_FORMATS], 1)
            done = 0
            for part in task.parts(features):
                here = layers[done : done + len(part)]
                tables = task.probe(part.to(device, torch.float32), probes)
                for found, rows in zip((examples, fitted), tables, strict=True):
                    found.append(rows.assign(layer=here[rows["layer"]], relation=name))
                done += len(part)
                watch(number * len(layers) + done)
    return pd.concat(examples), pd.concat(fitted)


class _Task:
    """The facts of one relation and their probes.

    `first` are the first tokens of the attributes of `individuals`; `rng` permutes labels.
    """

    def __init__(
        self,
        first: torch.Tensor,
        individuals: np.ndarray,
        roles: Roles,
        rng: np.random.Generator,
    ) -> None:
        device = first.device
        self._individuals = individuals
        self._train, self._test, self._validation = (
            torch.from_numpy(mask).to(device)
            for mask in (roles.train, ~roles.train, roles.validation[roles.train])
        )
        self._split = np.where(roles.out, "out", "held")[~roles.train]
        self._classes, self._labels = first[self._train].unique(return_inverse=True)
        self._truth = first[self._test]
        self._order = torch.from_numpy(rng.permutation(len(self._labels))).to(device)

    def parts(self, features: torch.Tensor) -> Iterator[torch.Tensor]:
        """Split features of shape (layers, formats, people, width) by layers that fit together."""
        widest = max(features.shape[3], len(self._classes))
        numbers = features.shape[1] * len(self._labels) * widest
        return iter(features.split(max(1, NUMBERS[self._truth.device.type] // numbers)))

    def probe(self, h: torch.Tensor, probes: ProbeSettings) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Fit and test the probes of some layers, counted from 0.

        From states of shape (layers, formats, people, width) to rows of ``PROBE_EXAMPLES`` and of
        ``FITS``, without `relation`.
        """
        layers, formats = h.shape[:2]
        axes = PrincipalAxes.of(h[:, :, self._train].flatten(0, 1))
        x = axes(h[:, :, self._train].flatten(0, 1))
        # Each probe sees the test rows of all formats of its layer: (layers × trained, tested, …).
        others = h[:, None, :, self._test].expand(-1, formats, -1, -1, -1)
        tested = axes(others.flatten(2, 3).flatten(0, 1))
        examples, fits = [], []
        for labels in LABELS:
            y = self._labels if labels == "true" else self._labels[self._order]
            weights, penalty = fit_chosen(x, y, probes.penalties, self._validation)
            predicted = self._classes[(tested @ weights).argmax(-1)]
            right = predicted.view(layers, formats, formats, -1) == self._truth
            examples.append(self._examples(right.cpu().numpy(), labels))
            fits.append(self._fits(penalty.view(layers, formats).cpu().numpy(), labels))
        return pd.concat(examples), pd.concat(fits)

    def _examples(self, right: np.ndarray, labels: str) -> pd.DataFrame:
        """Return verdicts of shape (layers, trained, tested, test people) as rows."""
        layer, trained, tested, person = (i.ravel() for i in np.indices(right.shape))
        shown = np.ones_like(layer, bool) if labels == "true" else trained == tested
        table = pd.DataFrame(
            {
                "layer": layer,
                "trained": _NAMES[trained],
                "tested": _NAMES[tested],
                "labels": labels,
                "individual": self._individuals[self._test.cpu().numpy()][person],
                "split": self._split[person],
                "right": right.ravel(),
            }
        )
        return table[shown].reset_index(drop=True)

    def _fits(self, penalty: np.ndarray, labels: str) -> pd.DataFrame:
        layer, trained = (i.ravel() for i in np.indices(penalty.shape))
        usual = self._classes[torch.bincount(self._labels).argmax()]
        right = (self._truth == usual).cpu().numpy()
        table = pd.DataFrame(
            {
                "layer": layer,
                "trained": _NAMES[trained],
                "labels": labels,
                "penalty": penalty.ravel(),
                "rows": len(self._labels),
                "classes": len(self._classes),
            }
        )
        for split in PROBED_SPLITS:
            part = right[self._split == split]
            table[f"chance_{split}"] = part.mean() if len(part) else np.nan
        return table
