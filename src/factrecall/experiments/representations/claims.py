"""The short paper's claims on probes, and what a run's own numbers say against them.

The paper does not say on whom it tested its probes, so that each claim is judged for facts out and
for held-out people in distribution.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from typing import TYPE_CHECKING

from factrecall.experiments.common.estimates import (
    SPLIT,
    TOGETHER,
    absolute,
    chosen,
    rough,
    single,
    together,
)
from factrecall.experiments.representations.measures import BIO_LABELS, DELTAS, WHOM
from factrecall.report.claims import NAMES, Claim, Quantity, listed, minus, with_sign
from factrecall.report.published import DELTA_BOUNDS, LLAMA
from factrecall.report.tables import NO_BREAK, points
from factrecall.vocabulary import COMPARED

if TYPE_CHECKING:
    from factrecall.experiments.representations.measures import Probes

NEAR = 0.05
"""Accuracies closer than this to chance, or to all, leave differences no room."""


def _is_larger(measure: str, split: str, m: Probes) -> Quantity:
    """Compare a Δ of Stage-tuned and Mix-tuned models, as the mean over layers."""
    rows = m.deltas(relation="all", bio="bio_long", measure=measure, layer=TOGETHER, split=split)
    sides = {tuning: single(rows, "value", tuning=tuning) for tuning in COMPARED}
    found = minus(sides["stage"], sides["mix"])
    if not found:
        return Quantity()
    means = {t: sum(sides[t][seed] for seed in found) / len(found) for t in COMPARED}
    said = ", ".join(f"{NAMES[t]} {100 * mean:.1f}{NO_BREAK}points" for t, mean in means.items())
    interval = together(rows, "value", tuning="stage - mix")
    signs = (f"{NAMES[t]} {points(together(rows, 'signed', tuning=t).value)}" for t in COMPARED)
    return Quantity(
        found,
        f"{said}; Stage minus Mix by seed {listed(found, points)} points.{interval.sentence()} "
        f"With their signs: {', '.join(signs)}.",
        interval.interval,
    )


def _is_small(measure: str, bio: str, bound: float, split: str, m: Probes) -> Quantity:
    """Compare the largest Δ of both tunings and all layers with a bound."""
    rows = chosen(m.drawn(), split=split, measure=measure, bio=bio)
    rows = rows.dropna(subset=["value", "signed"])
    largest = {
        int(str(seed)): float(part["value"].max())
        for seed, part in rows[rows["seed"] >= 0].groupby("seed")
        if set(part["tuning"]) == set(COMPARED)
    }
    cells = [together(part, "signed") for _, part in rows.groupby(["tuning", "layer"], sort=False)]
    sizes = [absolute(cell) for cell in cells if cell.known]
    interval = None
    if sizes and largest:
        # Where it is largest decides: by how much it may be larger, and by how much it must be.
        interval = (bound - max(high for _, high in sizes), bound - max(low for low, _ in sizes))
    each = []
    for tuning in COMPARED:
        own, said = chosen(rows, tuning=tuning, seed=TOGETHER), ": not measured"
        if len(own):
            row = own.loc[[own["signed"].abs().idxmax()]]
            said = f", all seeds, layer {row['layer'].iloc[0]}: signed "
            said += together(row, "signed").write()
        each.append(NAMES[tuning] + said)
    return Quantity(
        {seed: bound - size for seed, size in largest.items()},
        f"Largest of all layers and both models by seed "
        f"{listed(largest, lambda size: f'{100 * size:.1f}')} points. {'; '.join(each)}.",
        interval,
    )


def _claims(split: str) -> Iterator[Claim]:
    """Yield the claims on one side; Llama's numbers are named where the model is another."""

    def claim(quantity: Callable[[Probes], Quantity], text: str, said: str) -> Claim:
        there = f"{said} (of {LLAMA})"
        paper: Callable[[Probes], str] = lambda m: said if m.paper == LLAMA else there  # noqa: E731
        return Claim(f"{text} ({WHOM[split]}).", quantity, paper)

    def larger(measure: str, text: str, said: str) -> Claim:
        return claim(partial(_is_larger, measure, split), f"With BIO long, {text}", said)

    def small(measure: str, bio: str, said: str) -> Claim:
        bound = DELTA_BOUNDS[f"{measure}_{bio.removeprefix('bio_')}"]
        what = "Features" if measure == "rep" else "The mechanisms that decode an attribute"
        return claim(
            partial(_is_small, measure, bio, bound / 100, split),
            f"{what} differ little with {BIO_LABELS[bio]}: {DELTAS[measure]} is below {bound:g} "
            "points at every layer of both models",
            said,
        )

    yield larger(
        "rep",
        "features differ more between the formats in Stage-tuned models: Δrep, the mean over "
        "layers, is larger than in Mix-tuned ones",
        "so in the short paper's figure 3, for jobs; no number",
    )
    yield small("rep", "bio_short", "below 10 %")
    yield larger(
        "mech_bio",
        "the mechanism that decodes an attribute from the features differs more, too: Δmech of "
        "BIO states, the mean over layers, is larger in Stage-tuned models",
        "so of h^BIO at layer 24, where it is about 20 %, for jobs",
    )
    yield small(
        "mech",
        "bio_long",
        "“relatively small”; the bound of 20 is our reading: the paper gives 20 % for that of BIO "
        "states, at layer 24 of the Stage-tuned model",
    )
    yield small("mech", "bio_short", "“nearly zero”; the bound is our reading")


CLAIMS = tuple(claim for split in WHOM for claim in _claims(split))

# --- caveats ----------------------------------------------------------------------------------


def no_room(m: Probes) -> list[str]:
    """Say where QA probes of QA states, which both Δ start from, are at chance or near all."""
    said = []
    for tuning in COMPARED:
        accuracy, chance = m.own(tuning, "qa")
        if accuracy - chance < NEAR:
            said.append(
                f"{NAMES[tuning]}: the states of a question hold little of facts out. Probes "
                f"fitted to them decode {with_sign(accuracy)}, where the most frequent answer "
                f"gives {with_sign(chance)}. Δrep and Δmech start from this number: their size is "
                "then decided by how little is recalled, and a small one is no sign of like "
                "representations."
            )
        elif accuracy > 1 - NEAR:
            said.append(
                f"{NAMES[tuning]}: QA probes decode {with_sign(accuracy)} of the facts out from QA "
                "states. So near to all, differences in how facts are represented hardly show."
            )
    return said


def nothing_decoded(m: Probes) -> list[str]:
    """Say of each tuning for which format first its own probes decode nothing from its states."""
    said: dict[str, str] = {}
    for tuning, (bio, name) in product(COMPARED, BIO_LABELS.items()):
        accuracy, chance = m.own(tuning, bio)
        if accuracy - chance < NEAR:
            said.setdefault(
                tuning,
                f"{NAMES[tuning]}: even {name} probes decode only {with_sign(accuracy)} from "
                f"{name} states of facts out (chance {with_sign(chance)}). That other probes "
                "decode nothing from them is then no difference between formats.",
            )
    return list(said.values())


def few_probed(m: Probes) -> str | None:
    """Say that few people were probed."""
    people = m.deltas(relation="all", split=SPLIT)["people"]
    return rough(int(people.max())) if len(people) else None


def chosen_layers(m: Probes) -> str | None:
    """Say that only some layers were probed."""
    if m.settings["layers"] is None:
        return None
    named = ", ".join(map(str, m.settings["layers"]))
    return f"Only the layers that the configuration names were probed and patched: {named}."
