"""Consistency of gradients: whether a fact is learnt by the same parameters told and asked.

The revised abstract of the paper claims that mixed training makes the gradients of the two formats
of a fact more consistent, and that the consistency sits in the parameters that both formats update
(method, section 10); how it was measured is not known to us. Here: the gradient of the mean loss
over a fact's answer, told after all of the biography before it and asked as a question, and the
cosine of the two over groups of parameters, at moments of the training. Whatever two texts share
makes their gradients alike, so each pair is compared with pairs that share all but the fact: the
same relation of other people, and other relations of the same person. Cosines also
depend on how many parameters a group has of which tensors, so S is compared with as many of each
that are drawn at random; these have no gradients as large as those that S was selected for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from factrecall.data.files import Text, joined
from factrecall.experiments.gradient_similarity.sampled_parameters import Coordinates, Products
from factrecall.experiments.grafting.grafted_model import looked_at_mask
from factrecall.models.forward import encode
from factrecall.models.loading import load_model, load_tokenizer
from factrecall.parameters.sets import ParameterSet, read_set
from factrecall.parameters.space import ParameterSpace
from factrecall.runtime.progress import progress
from factrecall.runtime.seeds import generator
from factrecall.runtime.storage import write_table
from factrecall.training.batches import IGNORED, Example, padded
from factrecall.training.fine_tuning import traced_individuals
from factrecall.training.losses import example_loss
from factrecall.training.snapshots import load_weights

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from factrecall.config.training import TraceSettings
    from factrecall.data.files import FactFiles
    from factrecall.experiments.gradient_similarity.settings import GradientSimilaritySettings

GRADIENTS = {
    "phase": "string",
    "share": "float64",
    "split": "string",
    "individual": "int32",
    "relation": "string",
    "group": "string",
    "kind": "string",
    "cosine": "float64",
}
"""Columns of one training history's table: a row a moment, fact, group of parameters and kind.

`phase` and `share` say when: in which tuning, and which part of it is over. `group` is "all", "S",
"gamma" (the mask that is looked at), "random" (as many of each tensor as S has, from anywhere),
"rest" (in neither S nor γ), "layer 0" and so on, or "embeddings" (all outside the layers). `kind`
says whose question the fact told is compared with: "matched" its own; "person" those on the same
relation of the other people of its split whose attribute is another, "relation" those on the other
relations of its person (means). NaN stands where a gradient is zero or nobody is left.
"""

KINDS = ("matched", "person", "relation")


@dataclass(frozen=True)
class Moment:
    """A moment of a training history.

    Attributes
    ----------
    phase : str
        The tuning: "bio", "stage" or "mix".
    share : float
        Which part of it is over: 0 at its start, 1 at its end.
    path : Path
        The weights: a model folder or a snapshot.
    """

    phase: str
    share: float
    path: Path


@dataclass(frozen=True)
class Pairs:
    """The facts of one split in both formats.

    Attributes
    ----------
    rows : DataFrame
        A row a fact: ``individual`` and ``relation``.
    attributes : ndarray of object
        What is asked for, in the order of `rows`.
    told, asked : list of Example
        In the order of `rows`.
    """

    rows: pd.DataFrame
    attributes: np.ndarray
    told: list[Example]
    asked: list[Example]

    @classmethod
    def of(
        cls,
        bio: pd.DataFrame,
        qa: pd.DataFrame,
        individuals: Iterable[int],
        tokenizer: PreTrainedTokenizerBase,
    ) -> Pairs:
        """Tokenise the facts of some people; of several biographies the first is taken."""
        told = bio[bio["individual"].isin(individuals) & (bio["biography"] == 0)]
        rows = told[["individual", "relation"]].reset_index(drop=True)
        questions = qa.set_index(["individual", "relation"]).loc[pd.MultiIndex.from_frame(rows)]
        spans = questions[["attribute_start", "terminator_end"]].itertuples(index=False, name=None)
        asked = zip(rows["individual"], questions["text"], ([span] for span in spans), strict=True)
        named = questions[["text", "attribute_start", "attribute_end"]].itertuples(index=False)
        attributes = [text[start:end] for text, start, end in named]
        return cls(
            rows,
            np.array(attributes, dtype=object),
            _examples(joined(told), "bio", tokenizer),
            _examples(asked, "qa", tokenizer),
        )


def _examples(
    texts: Iterable[Text], kind: str, tokenizer: PreTrainedTokenizerBase
) -> list[Example]:
    """Make an example of each answer: the text up to its end, of which only the answer counts."""
    people, words, spans = zip(*texts, strict=True)
    examples = []
    for person, text in zip(people, encode(tokenizer, words, spans), strict=True):
        for start, end in text.answers:
            targets = np.full(end - 1, IGNORED, dtype=np.int64)
            targets[start - 1 :] = text.tokens[start:end]
            examples.append(Example(text.tokens[: end - 1], targets, kind, int(person)))
    return examples


def compare_gradients(
    gradients: GradientSimilaritySettings,
    trace: TraceSettings,
    study_seed: int,
    *,
    moments: Sequence[Moment],
    sets: Path,
    masks: Path,
    outcomes: Path,
    facts: FactFiles,
    out: Path,
    device: torch.device,
    provenance: Mapping[str, Any],
) -> None:
    """Compare the gradients of traced people's facts told and asked; columns ``GRADIENTS``.

    Memory: weights, their gradient and, of every fact of a split, twice its coordinates.

    Parameters
    ----------
    gradients, trace, study_seed
        What the configuration says.
    moments : sequence of Moment
        Of one training history, in order; the first is a model folder.
    sets : Path
        The shared sets of this history.
    masks, outcomes : Path
        The masks of its end fitted to QA out, and what they recover.
    facts : FactFiles
        The tables of facts.
    out : Path
        The table to write.
    device : torch.device
        Where to run.
    provenance : mapping
        Kept in the table's metadata.

    Raises
    ------
    FactRecallError
        When a file cannot be used or is of another model.
    """
    people, bio, qa = facts.read()
    traced = traced_individuals(people, trace, study_seed)
    tokenizer = load_tokenizer(moments[0].path)
    model = load_model(moments[0].path, device)
    pairs = {}
    for split in dict.fromkeys(traced.values()):
        chosen = [person for person, side in traced.items() if side == split]
        pairs[split] = Pairs.of(bio, qa, chosen[: gradients.individuals], tokenizer)
    space = ParameterSpace.of(model)
    coordinates = Coordinates(
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
    rows = torch.empty(2, most, coordinates.count, device=device)
    done, total = 0, 2 * len(moments) * sum(len(found.rows) for found in pairs.values())
    with progress(total, "gradients", "gradient") as watch:

        def count() -> None:
            nonlocal done
            done += 1
            watch(done)

        for moment in moments:
            load_weights(model, moment.path)
            for split, found in pairs.items():
                told, asked = rows[:, : len(found.rows)]
                _fill(told, model, found.told, coordinates, count)
                _fill(asked, model, found.asked, coordinates, count)
                products = coordinates.products(told, asked)
                table = _table(found, products, coordinates.groups())
                tables.append(table.assign(phase=moment.phase, share=moment.share, split=split))
    write_table(out, pd.concat(tables), GRADIENTS, provenance)


def compared_sets(
    shared: ParameterSet, grafted: ParameterSet, study_seed: int
) -> dict[str, ParameterSet]:
    """Return the sets that are groups of ``GRADIENTS``, of S and γ."""
    rng = generator(study_seed, "gradients at random")
    everything = ~ParameterSet.empty(shared.space)
    return {
        "S": shared,
        "gamma": grafted,
        "random": everything.sample_by_tensor(shared.counts(), rng),
        "rest": ~(shared | grafted),
    }


def _fill(
    rows: torch.Tensor,
    model: PreTrainedModel,
    examples: Sequence[Example],
    coordinates: Coordinates,
    count: Callable[[], None],
) -> None:
    """Write the gradient of each example's loss into a row."""
    parameters = list(model.parameters())
    for row, example in zip(rows, examples, strict=True):
        loss = example_loss(model, padded([example]).to(rows.device))
        coordinates.take(
            torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True), row
        )
        count()


def _table(pairs: Pairs, products: Products, groups: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """Return the cosines of a moment and split; columns ``GRADIENTS`` but for those."""
    rows = pairs.rows
    person, relation, attribute = (
        np.equal.outer(values, values)
        for values in (rows["individual"].to_numpy(), rows["relation"].to_numpy(), pairs.attributes)
    )
    others = relation & ~person & ~attribute
    among = dict(zip(KINDS, (person & relation, others, person & ~relation), strict=True))
    parts = []
    for group, cells in groups.items():
        cosines = products.cosines(cells)
        parts += [
            rows.assign(group=group, kind=kind, cosine=_means(cosines, which))
            for kind, which in among.items()
        ]
    return pd.concat(parts)


def _means(values: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Return of each row the mean of some values, NaN left out; NaN where there are none."""
    told = among & ~np.isnan(values)
    sums, counts = np.where(told, values, 0.0).sum(1), told.sum(1)
    means = np.full(len(sums), np.nan)
    np.divide(sums, counts, out=means, where=counts > 0)
    return means
