"""Claims on ablation: what resetting S costs, and whether it costs more than other parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from factrecall.experiments.ablation.measures import (
    AS_MANY,
    CONTROLS,
    LIKE_S,
    MOSTLY,
    OUT,
    READINGS,
    Ablation,
)
from factrecall.report.ledger import SMALLEST, Claim
from factrecall.report.observations import minus, mix_minus_stage, observe, scaled
from factrecall.report.published import published, published_ablation
from factrecall.report.style import SPLIT_LABELS, TUNING_LABELS
from factrecall.report.tables import percent
from factrecall.vocabulary import COMPARED

if TYPE_CHECKING:
    import pandas as pd


def _each(*names: str) -> Callable[[Any], Any]:
    """Observe how much more S costs Mix-tuned models than each of several sets."""
    return lambda m: {
        CONTROLS[name]: minus(m.lost("shared", "mix"), m.lost(name, "mix")) for name in names
    }


def _gained(one: str, other: str, tuning: str) -> Callable[[Any], Any]:
    """Observe how much more a model answers after one ablation than after another."""
    return lambda m: minus(m.lost(other, tuning), m.lost(one, tuning))


def too_small(*names: str) -> Callable[[Ablation], str | None]:
    """Return what says where clearly fewer are reset than S has: too few are left outside S."""

    def said(m: Ablation) -> str | None:
        sizes = {CONTROLS[name]: m.size(name) for name in names if m.size(name) < AS_MANY}
        each = ", ".join(f"{name} {percent(share)}" for name, share in sizes.items())
        few = "controls are smaller than S, because too few parameters are left outside it"
        return f"{few} (in % of |S|: {each})" if each else None

    return said


def costs_nothing(m: Ablation) -> str | None:
    """Say where S itself may cost nothing, so that no part of it can be told from all."""
    from factrecall.runtime.intervals import estimate

    low = estimate(m.lost("shared", "mix")).low
    return None if low > SMALLEST["bound"] else "S itself may cost Mix-tuned models next to nothing"


def _random_costs(m: Ablation) -> dict[str, pd.DataFrame]:
    return {
        f"{TUNING_LABELS[tuning]}, {split}, {way}": scaled(
            m.lost("random", tuning, split=split, draw=0), sign
        )
        for tuning in COMPARED
        for split in SPLIT_LABELS
        for way, sign in (("lost", 1), ("gained", -1))
    }


def _share_lost(m: Ablation) -> pd.DataFrame:
    from factrecall.runtime.intervals import ratio_observations

    rows = m.people(ablated="shared")
    return minus(
        *(
            ratio_observations(*(observe(rows, c, tuning=t) for c in ("drop", "before")))
            for t in ("mix", "stage")
        )
    )


def _published(one: tuple[str, str], other: tuple[str, str]) -> Callable[[Any], float | None]:
    """Return how much more one ablation of the paper costs than another (tuning and what)."""

    def found(m: Ablation) -> float | None:
        costs = []
        for tuning, ablated in (one, other):
            after = published_ablation(m.paper, tuning, ablated, OUT)
            before = published(m.paper, tuning, OUT)
            if before is None or after is None:
                return None
            costs.append((before - after) / 100)
        return costs[0] - costs[1]

    return found


_FIGURES = "v1, section 3.1 and figures 8 and 9"
COSTS = "In Mix-tuned models, resetting S costs more accuracy on unseen questions than resetting"

CLAIMS = (
    Claim(
        id="ablation.mix-loses-more",
        text="Resetting S lowers accuracy on unseen questions more in Mix-tuned than in "
        "Stage-tuned models, for each of three influences: absolute, magnitude and signed.",
        source=_FIGURES,
        observe=lambda m: {
            i: mix_minus_stage(m.people(ablated="shared", influence=i, draw=0), "drop")
            for i in READINGS
        },
        published=_published(("mix", "shared"), ("stage", "shared")),
        compares_tunings=True,
        **SMALLEST,
    ),
    Claim(
        id="ablation.more-than-random",
        text="In Mix-tuned models, resetting S lowers accuracy on unseen questions more than "
        "resetting as many random parameters outside S, for each of three influences.",
        source=_FIGURES,
        observe=lambda m: {
            i: minus(*(m.lost(a, "mix", influence=i) for a in ("shared", "random")))
            for i in READINGS
        },
        published=_published(("mix", "shared"), ("mix", "random")),
        **SMALLEST,
    ),
    Claim(
        id="ablation.random-costs-nothing",
        text="Resetting as many random parameters outside S as S has changes accuracy by less than "
        "2 points, on BIO, QA in and QA out, in Stage-tuned and Mix-tuned models.",
        source="v1, figure 9",
        observe=_random_costs,
        comparison="less",
        quote="0.3 points at most",
        **SMALLEST,
    ),
    Claim(
        id="ablation.adam",
        text="With adam influence, resetting S costs Mix-tuned models more accuracy on unseen "
        "questions than Stage-tuned ones, and more than resetting as many random parameters does.",
        observe=lambda m: {
            "Mix-tuned against Stage-tuned": minus(
                *(m.lost("shared", t, influence="adam") for t in ("mix", "stage"))
            ),
            "S against random": minus(
                *(m.lost(a, "mix", influence="adam") for a in ("shared", "random"))
            ),
        },
        **SMALLEST,
    ),
    Claim(
        id="ablation.share-lost",
        text="Resetting S costs Mix-tuned models a larger share of their accuracy on unseen "
        "questions than it costs Stage-tuned models.",
        observe=_share_lost,
        compares_tunings=True,
        **SMALLEST,
    ),
    Claim(
        id="ablation.not-just-tensors",
        text=f"{COSTS} each of three random controls: as many parameters outside S, of the same "
        "tensors, rows or columns.",
        observe=_each(*LIKE_S),
        lenient=too_small(*LIKE_S),
        **SMALLEST,
    ),
    Claim(
        id="ablation.more-than-isolate",
        text=f"{COSTS} BIO-isolate parameters, and more than resetting QA-isolate ones.",
        observe=_each("bio_only", "qa_only"),
        lenient=too_small("bio_only", "qa_only"),
        **SMALLEST,
    ),
    Claim(
        id="ablation.more-than-one-task",
        text=f"{COSTS} as many top-ranked parameters of biographies, and more than as many of "
        "questions.",
        observe=_each("bio_top", "qa_top"),
        **SMALLEST,
    ),
    Claim(
        id="ablation.more-than-moved",
        text=f"{COSTS} as many of the parameters that fine-tuning changed most.",
        observe=_each("most_moved"),
        **SMALLEST,
    ),
    Claim(
        id="ablation.not-one-tensor",
        text="Resetting S outside the tensor with most of S still costs Mix-tuned models at least "
        "half the accuracy on unseen questions that resetting all of S costs.",
        observe=lambda m: minus(
            m.lost(f"shared_without:{m.top_tensor()}", "mix"),
            scaled(m.lost("shared", "mix"), MOSTLY),
        ),
        bound=0.0,
        why="Zero, because half of what resetting S costs is already subtracted.",
        unmeasurable=costs_nothing,
    ),
    Claim(
        id="ablation.sufficient",
        text="θpre with the Mix-tuned values of S alone answers more unseen questions than θpre "
        "with those of as many random parameters.",
        observe=_gained("only_shared", "only_random", "mix"),
        **SMALLEST,
    ),
    Claim(
        id="ablation.transplanted",
        text="A Stage-tuned model given the Mix-tuned values of S answers more unseen questions "
        "than one given the Mix-tuned values of as many random parameters.",
        observe=_gained("mix_into_stage", "mix_into_stage_random", "stage"),
        **SMALLEST,
    ),
)  # fmt: skip
