"""What is reset: one table of ablations, by name. To add a control, add a line.

All random controls are drawn outside S. Where fewer are left than S has, all of them are taken,
and the table of sets says how many these are. A set that is "all but S" leaves S alone on θpre.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from factrecall.vocabulary import INFLUENCES

if TYPE_CHECKING:
    from factrecall.experiments.shared_parameters.compute import Rankings
    from factrecall.parameters.patched_weights import PatchedWeights
    from factrecall.parameters.sets import ParameterSet

NONE = "none"

LARGE = 0.01
"""From this share of S on, a tensor is ablated by itself."""

REACH = 3
"""How many times k parameters of a ranking are candidates for controls of like rank."""


@dataclass(frozen=True)
class Context:
    """What an ablation is chosen from.

    Attributes
    ----------
    rankings : Rankings
        Of the training history.
    k : int
        How many parameters of each ranking are its top.
    influence : str
        By which parameters are ranked.
    weights : PatchedWeights
        The model, inside its block.
    """

    rankings: Rankings
    k: int
    influence: str
    weights: PatchedWeights

    @cached_property
    def shared(self) -> ParameterSet:
        """S."""
        from factrecall.experiments.shared_parameters.compute import shared_sets

        return shared_sets(self.rankings, self.influence, self.k)["S"]

    @cached_property
    def counts(self) -> dict[str, int]:
        """How many members of S each tensor has."""
        return self.shared.counts()

    def tensors(self, names: list[str]) -> ParameterSet:
        """Return all parameters of some tensors."""
        return type(self.shared).tensors(self.rankings.space, names)

    def ranked(self, *tasks: str) -> np.ndarray:
        """Return parameters by the best of their ranks in some tasks, up to `REACH` times k."""
        tops = [self.rankings.index[task, self.influence][: REACH * self.k] for task in tasks]
        both = np.concatenate(tops)
        both = both[
            np.argsort(np.concatenate([np.arange(len(top)) for top in tops]), kind="stable")
        ]
        return both[np.sort(np.unique(both, return_index=True)[1])]

    def top(self, *tasks: str) -> ParameterSet:
        """Return what is in the top k of one of the tasks."""
        tops = [self.rankings.index[task, self.influence][: self.k] for task in tasks]
        return type(self.shared).of(self.rankings.space, np.concatenate(tops))


Members = Callable[[Context, np.random.Generator], "ParameterSet"]


class Reset(NamedTuple):
    """An ablation.

    Attributes
    ----------
    members : callable
        What is reset, given the context and a generator.
    drawn : bool
        Whether it is random, so that several draws are made.
    every : bool
        Whether it (its first draw) is made for S by every influence, or by the study's alone.
    everything : bool
        Whether its first draw is evaluated on all facts.
    """

    members: Members
    drawn: bool = False
    every: bool = False
    everything: bool = False


def _random(c: Context, rng: np.random.Generator) -> ParameterSet:
    return (~c.shared).sample(min(len(c.shared), len(~c.shared)), rng)


def _random_by_tensor(c: Context, rng: np.random.Generator) -> ParameterSet:
    left = (~c.shared).counts()
    return (~c.shared).sample_by_tensor({t: min(n, left[t]) for t, n in c.counts.items()}, rng)


def _tensors(names: list[str], c: Context, _: object) -> ParameterSet:
    return c.tensors(names)


def _shared_in(names: list[str], c: Context, _: object) -> ParameterSet:
    return c.shared & c.tensors(names)


def _shared_without(names: list[str], c: Context, _: object) -> ParameterSet:
    return c.shared - c.tensors(names)


def _random_in(names: list[str], c: Context, rng: np.random.Generator) -> ParameterSet:
    left = c.tensors(names) - c.shared
    return left.sample(min(sum(c.counts[name] for name in names), len(left)), rng)


def _random_same_lines(rows: bool, c: Context, rng: np.random.Generator) -> ParameterSet:
    """Draw, of every row or column, as many parameters as S has there; a vector is one row."""
    from factrecall.parameters.sorted_sets import sample_sorted, skip

    space, drawn = c.rankings.space, [np.empty(0, dtype=np.int64)]
    for (name, local), (_, start) in zip(c.shared.by_tensor(), space.offsets(), strict=True):
        if not len(local):
            continue
        width = (1, *space.shape_of[name])[-1]
        line, place = np.divmod(local.astype(np.int64), width)
        length = width
        if not rows:  # the same, with places and lines exchanged
            order = np.argsort(place, kind="stable")
            line, place, length = place[order], line[order], space.size_of[name] // width
        first = np.flatnonzero(np.diff(line, prepend=-1))
        for one, own in zip(line[first], np.split(place, first[1:]), strict=True):
            left = length - len(own)
            found = skip(sample_sorted(left, min(len(own), left), rng), own)
            drawn.append(start + (one * width + found if rows else found * width + one))
    return type(c.shared).of(space, np.concatenate(drawn))


def _first(
    tasks: tuple[str, ...], others: tuple[str, ...], by_tensor: bool, c: Context, _: object
) -> ParameterSet:
    """Take the highest-ranked in some tasks that are not in the top k of others; as many as S."""
    from factrecall.parameters.sorted_sets import is_member

    space, ranked = c.rankings.space, c.ranked(*tasks)
    if others:
        ranked = ranked[~is_member(ranked, c.top(*others).index)]
    if not by_tensor:
        return type(c.shared).of(space, ranked[: len(c.shared)])
    tensor = np.searchsorted(np.cumsum(space.sizes), ranked.astype(np.int64), side="right")
    parts = [ranked[tensor == i][: c.counts[name]] for i, name in enumerate(space.names)]
    return type(c.shared).of(space, np.concatenate(parts))


_BIO, _QA = ("BIO_in", "BIO_out"), ("QA_in",)

RESETS: dict[str, Reset] = {
    NONE: Reset(lambda c, _: c.shared - c.shared, everything=True),
    "shared": Reset(lambda c, _: c.shared, every=True, everything=True),
    "random": Reset(_random, drawn=True, every=True, everything=True),
    "random_by_tensor": Reset(_random_by_tensor, drawn=True, every=True, everything=True),
    "most_moved": Reset(
        lambda c, _: c.weights.largest_change(len(c.shared)), every=True, everything=True
    ),
    "random_same_rows": Reset(partial(_random_same_lines, True), drawn=True),
    "random_same_columns": Reset(partial(_random_same_lines, False), drawn=True),
    "bio_only": Reset(partial(_first, _BIO, _QA, False)),
    "qa_only": Reset(partial(_first, _QA, _BIO, False)),
    "bio_only_by_tensor": Reset(partial(_first, _BIO, _QA, True)),
    "qa_only_by_tensor": Reset(partial(_first, _QA, _BIO, True)),
    "bio_top": Reset(partial(_first, _BIO, (), False)),
    "qa_top": Reset(partial(_first, _QA, (), False)),
    "only_shared": Reset(lambda c, _: ~c.shared),
    "only_random": Reset(lambda c, rng: ~_random(c, rng), drawn=True),
}
"""Every ablation but those of `parts`, which depend on the model."""


def parts(c: Context) -> dict[str, Reset]:
    """Return the ablations of single tensors and of single layers (-1: outside the layers)."""
    found: dict[str, Reset] = {}
    for name, count in c.counts.items():
        if count and count >= LARGE * len(c.shared):
            found[f"tensor:{name}"] = Reset(partial(_tensors, [name]))
            found[f"shared_in:{name}"] = Reset(partial(_shared_in, [name]))
            found[f"shared_without:{name}"] = Reset(partial(_shared_without, [name]))
    layers: dict[int, list[str]] = {}
    for name in c.counts:
        layers.setdefault(c.rankings.space.place(name)[0], []).append(name)
    for layer, names in layers.items():
        found[f"layer:{layer}"] = Reset(partial(_shared_in, names))
        found[f"layer_random:{layer}"] = Reset(partial(_random_in, names))
    return found


class Ablation(NamedTuple):
    """One ablation of a model, before its members are chosen."""

    ablated: str
    influence: str
    draw: int
    everything: bool
    context: Context
    members: Members


def planned(context: Context, draws: int) -> Iterator[Ablation]:
    """Yield all ablations of a model: those by the influence of `context`, then by the others."""
    for influence in (context.influence, *(i for i in INFLUENCES if i != context.influence)):
        own = influence == context.influence
        here = context if own else replace(context, influence=influence)
        table = RESETS | parts(here) if own else {n: r for n, r in RESETS.items() if r.every}
        for name, draw, reset in each_draw(table, draws if own else 1):
            everything = reset.everything and own and not draw
            of = "" if name == NONE else influence
            yield Ablation(name, of, draw, everything, here, reset.members)


def transplanted(context: Context, name: str, draws: int) -> Iterator[Ablation]:
    """Yield what is taken from another model, whose S is that of `context`."""
    table = {name: Reset(lambda c, _: c.shared), f"{name}_random": Reset(_random, drawn=True)}
    for one, draw, reset in each_draw(table, draws):
        yield Ablation(one, context.influence, draw, False, context, reset.members)


def each_draw(table: Mapping[str, Reset], draws: int) -> Iterator[tuple[str, int, Reset]]:
    """Yield every ablation of a table as often as it is drawn."""
    for name, reset in table.items():
        yield from ((name, draw, reset) for draw in range(draws if reset.drawn else 1))
