"""Claims on circuits of Mix-tuned models: the paper's, each once, and the checks they need."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from operator import methodcaller
from typing import TYPE_CHECKING, Any

from factrecall.experiments.circuits.tables import (
    ALMOST_ALL,
    EARLY,
    FIRST_COLUMNS,
    MLP,
    WHOLE,
)
from factrecall.report.ledger import SMALLEST, Claim
from factrecall.report.published import COLUMNS, CONTINUITY, CONTINUITY_SOURCE, HEADS, TOP_HEADS
from factrecall.report.style import KIND_LABELS
from factrecall.report.tables import percent

if TYPE_CHECKING:
    from factrecall.experiments.circuits.measures import Circuits

FEW = 10
"""Of fewer nodes, a share of the nodes says what single ones do."""

HIGH = 0.5
"""From which share on something counts as most of it."""

OTHERS = {"grafted": "in order of grafted parameters", "random": "in random order"}


def claims(m: Circuits) -> list[Claim]:
    """Return the claims on the kinds of nodes that were intervened on."""
    heads = _attention(m) if "attention" in m.settings["kinds"] else []
    kind = m.settings["lasting"]
    return [*heads, *_mlp(kind), *_continuity(m)] if kind in MLP else heads


def _claim(
    name: str,
    text: str,
    observed: Callable[[Any], Any],
    source: str = "",
    number: float | None = None,
    **more: Any,
) -> Claim:
    """Return a claim that something is more than the paper's number (in per cent) or than 0."""
    fields: dict[str, Any] = {
        **SMALLEST,
        "quote": "shown in the figure, no number printed" if source else "",
    }
    if number is not None:
        theirs = number / 100
        fields = {"bound": theirs, "published": theirs, "why": "The paper's own number."}
    fields |= {"text": text, "observe": observed, "source": source, **more}
    return Claim(id=f"circuits.{name}", **fields)


def _ahead(
    name: str, text: str, source: str, observed: tuple[Any, ...], others: tuple[str, ...]
) -> list[Claim]:
    """Return that nodes ranked by shared parameters are ahead of those ranked otherwise."""
    return [
        _claim(f"{name}-{o}", f"{text} {OTHERS[o]}.", methodcaller(*observed, against=o), source)
        for o in others
    ]


def high_floor(kind: str, m: Circuits) -> str | None:
    """Say where everything else recalls most of it: so much is reached with any nodes."""
    if m.floor(kind) > HIGH:
        nodes, floor = KIND_LABELS[kind], percent(m.floor(kind))
        return f"completeness is {floor} % with none of the {nodes} grafted"
    return None


def too_few(kind: str, share: float, m: Circuits) -> str | None:
    """Say where a share of the nodes is fewer than `FEW`, or than a step takes."""
    nodes, step = share * m.nodes(kind), m.first_step(kind)
    if nodes < max(FEW, step):
        of = f"{100 * share:.2g} % of {m.nodes(kind):,} {KIND_LABELS[kind]} are {nodes:.1f}"
        return f"{of}, fewer than the {max(FEW, step)} needed to judge"
    return None


def always_right(m: Circuits) -> str | None:
    """Say where most of what lasts was right before any node was grafted."""
    rows = m.lasting()
    always = float((rows["right"] == rows["evaluated"]).mean())
    if always > HIGH:
        facts = f"{percent(always)} % of these facts are right at every step"
        return f"{facts}, even with none of these nodes grafted"
    return None


def _attention(m: Circuits) -> list[Claim]:
    theirs, kind, source = HEADS[m.paper], "attention", HEADS[m.paper].source
    share, top, least = theirs.share / 100, TOP_HEADS / 100, theirs.reached
    at, few = (share, share), partial(too_few, kind, top)
    heads = f"The top {theirs.share:g} % of heads by shared parameters"
    first = f"top {TOP_HEADS} % of heads by shared parameters"
    mean, by = "Averaged over all steps, heads", "in order of shared parameters"
    return [
        _claim("heads-enough", f"{heads} reach more than {least:g} % completeness.",
               methodcaller("completeness", kind, at), source, least,
               lenient=partial(high_floor, kind)),
        _claim("heads-enough-of-added",
               f"{heads} recover more than {least:g} % of the accuracy that all heads add to the "
               "rest of the grafted model.",
               methodcaller("added", kind, at),
               bound=least / 100, why="The paper's number for completeness."),
        _claim("heads-sooner-grafted",
               f"{heads} reach higher completeness than the top {theirs.share:g} % by grafted "
               "parameters.",
               methodcaller("completeness", kind, at, against="grafted"), source,
               published=(least - theirs.grafted) / 100),
        *_ahead("heads-sooner", f"{mean} grafted {by} reach higher completeness than", source,
                ("completeness", kind, WHOLE), ("random",)),
        *_ahead("heads-cost", f"{mean} reset {by} lower completeness more than", source,
                ("lost", kind, WHOLE), ("grafted", "random")),
        _claim("random-worst",
               f"{mean} in order of grafted parameters raise completeness more when grafted, and "
               "lower it more when reset, than in random order.",
               lambda m: {
                   "grafted": m.completeness(kind, WHOLE, "grafted", "random"),
                   "reset": m.lost(kind, WHOLE, "grafted", "random"),
               }, source),
        _claim("heads-hold", f"{heads} hold more than {theirs.held:g} % of S in attention.",
               methodcaller("held", kind, share), source, theirs.held),
        _claim("top-heads-hold",
               f"The {first} hold more than {theirs.top_held:g} % of S in attention.",
               methodcaller("held", kind, top), source, theirs.top_held, unmeasurable=few),
        _claim("top-heads-cost",
               f"Resetting the {first} lowers completeness by more than {theirs.top_lost:g} "
               "points.",
               methodcaller("lost", kind, (top, top)), source, theirs.top_lost,
               unmeasurable=lambda m: few(m) or high_floor(kind, m)),
    ]  # fmt: skip


def _mlp(kind: str) -> list[Claim]:
    nodes, source, most = KIND_LABELS[kind], COLUMNS.source, 100 * ALMOST_ALL
    first = f"top {100 * FIRST_COLUMNS:.2g} % of {nodes} by shared parameters"
    first += f" (in the paper {COLUMNS.nodes} of {COLUMNS.of:,})"
    by = "in order of shared parameters"
    found = [
        _claim("mlp-almost-all",
               f"The top {most:g} % of {nodes} by shared parameters reach less than {most:g} % "
               "completeness, so that almost all are needed.",
               methodcaller("completeness", kind, (ALMOST_ALL, ALMOST_ALL)), source,
               bound=ALMOST_ALL, comparison="less",
               why="What they would reach if all contributed equally.",
               quote="almost all neurons, no number printed"),
        *_ahead("mlp-sooner",
                f"Averaged over the first {100 * EARLY:.0f} % of the nodes (the paper's steps 1 to "
                "20 of 49), "
                f"{nodes} grafted {by} reach higher completeness than",
                source, ("completeness", kind, (0.0, EARLY)), tuple(OTHERS)),
        *_ahead("mlp-cost",
                f"Averaged over all steps, {nodes} reset {by} lower completeness more than",
                source, ("lost", kind, WHOLE), ("grafted",)),
        _claim("mlp-holds-all",
               f"The top 10 % of {nodes} by shared parameters hold all of S in the MLP.",
               methodcaller("held", kind, COLUMNS.all_held / COLUMNS.of), source,
               bound=0.99, why="All (100 %), less 1 point.", published=1.0, quote=""),
    ]  # fmt: skip
    few = partial(too_few, kind, FIRST_COLUMNS)
    columns = [
        _claim("first-columns-hold",
               f"The {first} hold more than {COLUMNS.held:g} % of S in the MLP.",
               methodcaller("held", kind, FIRST_COLUMNS), source, COLUMNS.held, unmeasurable=few),
        _claim("first-columns-cost",
               f"Resetting the {first} lowers completeness by more than {COLUMNS.lost:g} "
               "points.",
               methodcaller("lost", kind, (FIRST_COLUMNS, FIRST_COLUMNS)), source, COLUMNS.lost,
               unmeasurable=lambda m: few(m) or high_floor(kind, m)),
    ]  # fmt: skip
    return found + columns if kind == "column" else found


def _continuity(m: Circuits) -> list[Claim]:
    texts = {
        "overall": "facts are right at {} % or more of the steps from their first to their last "
        "right one, on average.",
        "longest": "a fact’s longest run of right steps is at least {} % of those from its first "
        "to its last right one, on average.",
        "retained": "at least {} % of the facts that are right at any step are right at the last.",
    }
    nodes = KIND_LABELS[m.settings["lasting"]]
    least = [min(column) for column in zip(*CONTINUITY.values(), strict=True)]
    return [
        *(
            _claim(f"continuity-{ratio}", f"While {nodes} are grafted, {text.format(number)}",
                   methodcaller("continuity", ratio), CONTINUITY_SOURCE, number,
                   published=theirs / 100, lenient=always_right)
            for (ratio, text), number, theirs in zip(
                texts.items(), least, CONTINUITY[m.paper], strict=True
            )
        ),
        _claim("continuity-beyond-chance",
               f"Among facts that are wrong before any of the {nodes} is grafted, continuity is "
               "higher than if outcomes are exchanged between people at every step.",
               lambda m: {ratio: m.beyond_chance(ratio) for ratio in texts}),
    ]  # fmt: skip
