"""Gradient similarity: whether the same parameters learn the statement and the question of a fact.

The revised abstract of the paper claims that mixed training makes the gradients of the two formats
of a fact more consistent, and that the consistency sits in the parameters that both formats update
(docs/method.md). It does not say how that was measured. Here it is the cosine of the two
gradients over groups of parameters, at moments of the training.

The gradient is that of the mean loss over a fact's answer: stated after all of the biography before
it, or asked for. What two texts share makes their gradients alike, so that a fact's statement is
compared with its own question and with controls, which share all but the fact: questions on the
same relation of other people, and on other relations of the same person. A cosine also depends on
the size of a group and on its tensors, so that S is compared with as many random parameters of each
tensor; these lack the large gradients that S was selected for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from factrecall.data.files import Text, joined
from factrecall.data.traced import traced_individuals
from factrecall.experiments.gradient_similarity.sampled_parameters import (
    Products,
    SampledParameters,
    ratio,
)
from factrecall.experiments.gradient_similarity.tables import KINDS, MOST
from factrecall.experiments.grafting.grafted_model import mask_of_circuits
from factrecall.models.forward import encode
from factrecall.models.loading import load_model, load_tokenizer
from factrecall.parameters.sets import ParameterSet, read_set
from factrecall.parameters.space import ParameterSpace
from factrecall.runtime.progress import progress
from factrecall.runtime.seeds import generator
from factrecall.training.batches import IGNORED, Example, example_loss, padded
from factrecall.training.snapshots import load_weights

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from factrecall.config.training import TraceSettings
    from factrecall.data.files import FactFiles
    from factrecall.experiments.gradient_similarity.runs import Moment
    from factrecall.experiments.gradient_similarity.settings import GradientSimilaritySettings


@dataclass(frozen=True)
class Pairs:
    """The statements and questions of some people, and their answers, in the order of `rows`.

    These have the columns individual and relation, a row a fact.
    """

    rows: pd.DataFrame
    attributes: np.ndarray
    statements: list[Example]
    questions: list[Example]

    @classmethod
    def of(
        cls,
        bio: pd.DataFrame,
        qa: pd.DataFrame,
        individuals: Iterable[int],
        tokenizer: PreTrainedTokenizerBase,
    ) -> Pairs:
        """Tokenise the facts of some people, of several biographies those of the first."""
        stated = bio[bio["individual"].isin(individuals) & (bio["biography"] == 0)]
        rows = stated[["individual", "relation"]].reset_index(drop=True)
        qa = qa.set_index(["individual", "relation"]).loc[pd.MultiIndex.from_frame(rows)]
        spans = qa[["attribute_start", "terminator_end"]].itertuples(index=False, name=None)
        questions = zip(rows["individual"], qa["text"], ([span] for span in spans), strict=True)
        cuts = qa[["text", "attribute_start", "attribute_end"]].itertuples(index=False)
        return cls(
            rows,
            np.array([text[start:end] for text, start, end in cuts], dtype=object),
            _examples(joined(stated), "bio", tokenizer),
            _examples(questions, "qa", tokenizer),
        )

    def cosines(self, products: Products, groups: Mapping[str, np.ndarray]) -> pd.DataFrame:
        """Return the mean cosines by fact, group and kind; columns of `rows` and these three."""
        columns = (self.rows["individual"].to_numpy(), self.rows["relation"].to_numpy())
        person, relation, attribute = (np.equal.outer(v, v) for v in (*columns, self.attributes))
        others = relation & ~person & ~attribute
        among = dict(zip(KINDS, (person & relation, others, person & ~relation), strict=True))
        parts = []
        for group, cells in groups.items():
            cosines = products.cosines(cells)
            parts += [
                self.rows.assign(group=group, kind=kind, cosine=_means(cosines, which))
                for kind, which in among.items()
            ]
        return pd.concat(parts)


def _examples(
    texts: Iterable[Text], kind: str, tokenizer: PreTrainedTokenizerBase
) -> list[Example]:
    """Make an example of each answer: the text up to its end, with a loss on the answer only."""
    people, words, spans = zip(*texts, strict=True)
    examples = []
    for person, text in zip(people, encode(tokenizer, words, spans), strict=True):
        for start, end in text.answers:
            targets = np.full(end - 1, IGNORED, dtype=np.int64)
            targets[start - 1 :] = text.tokens[start:end]
            examples.append(Example(text.tokens[: end - 1], targets, kind, int(person)))
    return examples


def compared_sets(
    shared: ParameterSet, grafted: ParameterSet, study_seed: int
) -> dict[str, ParameterSet]:
    """Return the groups that are sets: S, γ, random parameters, and those in neither S nor γ."""
    rng = generator(study_seed, "gradients at random")
    everything = ~ParameterSet.empty(shared.space)
    return {
        "S": shared,
        "gamma": grafted,
        "random": everything.sample_by_tensor(shared.counts(), rng),
        "rest": ~(shared | grafted),
    }


def write_gradients(
    rows: torch.Tensor,
    model: PreTrainedModel,
    examples: Sequence[Example],
    sampled: SampledParameters,
) -> Iterator[None]:
    """Write the gradient of each example's loss into a row, one a step."""
    parameters = list(model.parameters())
    for row, example in zip(rows, examples, strict=True):
        loss = example_loss(model, padded([example]).to(rows.device))
        sampled.take(
            torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True), row
        )
        yield


def _means(values: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Return the mean of some values of each row, NaN left out; NaN where there are none."""
    known = among & ~np.isnan(values)
    return ratio(np.where(known, values, 0.0).sum(1), known.sum(1))


def compared_people(
    people: pd.DataFrame,
    gradients: GradientSimilaritySettings,
    trace: TraceSettings,
    study_seed: int,
) -> Iterator[tuple[str, bool, list[int]]]:
    """Yield the people whose facts are compared: their split, whether they were traced, and who.

    Each group of people has at most `MOST`.
    """
    traced = traced_individuals(people, trace, study_seed)
    for split in dict.fromkeys(traced.values()):
        own = [person for person, side in traced.items() if side == split]
        others = people.loc[people["split"] == split, "individual"]
        others = others[~others.isin(own)].to_numpy()
        drawn = generator(study_seed, "gradients of people not traced", split).choice(
            others, min(len(others), gradients.untraced), replace=False
        )
        for is_traced, chosen in ((True, own[: gradients.individuals]), (False, drawn.tolist())):
            for group in np.array_split(np.sort(chosen), -(-len(chosen) // MOST) or 1):
                if len(group):
                    yield split, is_traced, group.tolist()


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
    """Compare the gradients of people's statements and questions; columns ``GRADIENTS``.

    The first of the `moments` is a model folder, the others follow in order; at the last one,
    people who were not traced are compared as well. Memory: weights, their gradient and, of every
    fact of `MOST` people, twice the sampled parameters.
    """
    people, bio, qa = facts.read()
    tokenizer = load_tokenizer(moments[0].weights)
    model = load_model(moments[0].weights, device)
    pairs = [
        (split, traced, Pairs.of(bio, qa, chosen, tokenizer))
        for split, traced, chosen in compared_people(people, gradients, trace, study_seed)
    ]
    space = ParameterSpace.of(model)
    sampled = SampledParameters(
        compared_sets(
            read_set(sets, "S", space), mask_of_circuits(masks, outcomes, space), study_seed
        ),
        gradients.sampled_parameters,
        generator(study_seed, "gradient coordinates"),
        device,
    )
    tables = []
    # Once for all: fresh memory costs about as much as what is done in it.
    most = max(len(found.rows) for _, _, found in pairs)
    rows = torch.empty(2, most, sampled.count, device=device)
    asked = [
        (moment, [pair for pair in pairs if pair[1] or moment is moments[-1]]) for moment in moments
    ]
    total = 2 * sum(len(found.rows) for _, part in asked for _, _, found in part)
    with progress(total, "gradients", "gradient") as watch:
        done = count(1)
        for moment, part in asked:
            load_weights(model, moment.weights)
            for split, traced, found in part:
                sides = rows[:, : len(found.rows)]
                for side, texts in zip(sides, (found.statements, found.questions), strict=True):
                    for _ in write_gradients(side, model, texts, sampled):
                        watch(next(done))
                table = found.cosines(sampled.products(*sides), sampled.groups())
                labels = {"phase": moment.phase, "share": moment.share, "split": split}
                tables.append(table.assign(**labels, traced=traced))
    return pd.concat(tables)
