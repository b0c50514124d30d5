"""What the paper says of grafted parameters, and whether masks are what it takes them for."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

from factrecall.experiments.grafting.mask_choice import WHOLE
from factrecall.experiments.grafting.measures import KEYS, Grafting
from factrecall.report.ledger import MOVES, Claim
from factrecall.report.observations import minus, mix_minus_stage, observe, where
from factrecall.report.published import LLAMA, MASK_CHECKS, graft_source, published_graft
from factrecall.report.style import SPLIT_NAMES
from factrecall.runtime.intervals import ratio_observations
from factrecall.vocabulary import COMPARED

if TYPE_CHECKING:
    import pandas as pd

PART = "One hundredth of the mask; a smaller difference would change no conclusion."
PRINTED = "The paper's own number."
ENOUGH = "The share that a mask must recover, for the people it was fitted to, to be chosen."


def needed(m: Grafting, split: str) -> pd.DataFrame:
    """Return the α needed by tuning and seed: all parameters where no mask is enough."""
    masks = where(m.masks, split=split)
    # Where there is nothing to recover, nothing can be said of how many it takes.
    masks = masks[masks["recovery"].notna()]
    return masks.assign(value=masks["alpha"].where(masks["chosen"].astype(bool), 1.0))


def fewer(split: str, m: Grafting) -> pd.DataFrame:
    """Observe how many fewer parameters Mix-tuned models need, of the larger of both numbers."""
    sides = needed(m, split).pivot(index="seed", columns="tuning", values="value")
    sides = sides.reindex(columns=list(COMPARED)).dropna()
    value = (sides["stage"] - sides["mix"]) / sides.max(axis=1)
    return value.rename("value").reset_index()


def too_coarse(split: str, paper: float, m: Grafting) -> str | None:
    """Say where the sizes tried around the masks needed are further apart than the paper's two."""
    tried = where(m.fitted(), split=split).groupby(["tuning", "seed"])["alpha"].agg(set)
    ours = 0.0
    for tuning, seed, alpha in needed(m, split)[["tuning", "seed", "value"]].itertuples(
        index=False, name=None
    ):
        smaller = [a for a in tried[tuning, seed] if a < alpha]
        ours = max(ours, alpha / max(smaller) if smaller else math.inf)
    if ours <= paper:
        return None
    if ours == math.inf:
        step = "already the smallest tried"
    else:
        step = f"{ours:.2f} times the next smaller one tried"
    theirs = f"the paper's two masks differ by a factor of {paper:.2f}"
    return f"the mask needed is {step}; {theirs}"


def none_chosen(split: str, m: Grafting) -> str | None:
    """Say that no mask of one of the tunings recovers enough to be chosen."""
    chosen = set(where(m.chosen, split=split)["tuning"])
    lacking = [f"{t.title()}-tuned" for t in COMPARED if t not in chosen]
    if not lacking:
        return None
    models = " and ".join(lacking)
    return f"no mask tried recovers {100 * m.recovery:g} % of what {models} models recall"


def enriched(split: str, m: Grafting) -> pd.DataFrame:
    """Observe by how much the share of S in masks exceeds that in all that may be grafted.

    All are of one size, no smaller than was chosen in any training.
    """
    size = m.size_of_all(where(m.chosen, split=split)["alpha"].max())
    rows = where(m.fitted(), split=split, alpha=size)
    every = where(m.rows("grafting"), method=WHOLE, with_shared=True).set_index(KEYS)
    rows = rows.set_index(KEYS)
    excess = rows["shared_fraction"] - every["shared_fraction"]
    return mix_minus_stage(excess.rename("value").reset_index(), "value", split=split)


def gain(split: str, tuning: str, m: Grafting) -> pd.DataFrame:
    """Observe what S adds to the accuracy of the chosen mask."""
    return minus(m.right(split, tuning), m.right(split, tuning, with_shared=False))


def held_out(tuning: str, m: Grafting, objective: str = "gold") -> dict[str, pd.DataFrame]:
    """Observe which share of what fine-tuning added is back for people not fitted to."""
    found = {}
    for split, name in SPLIT_NAMES.items():
        found_back = m.right(split, tuning, fitted=False, objective=objective)
        sides = (found_back, m.whole(split, tuning))
        found[name] = ratio_observations(*(minus(side, m.before(split)) for side in sides))
    return found


def of_mix(rows: pd.DataFrame, value: str = "value") -> dict[str, pd.DataFrame]:
    """Observe a column of Mix-tuned models' masks; of several rows a seed the mean."""
    rows = where(rows, tuning="mix")
    return {name: observe(rows, value, split=split) for split, name in SPLIT_NAMES.items()}


def beyond_random(m: Grafting) -> dict[str, pd.DataFrame]:
    """Observe how much more the mask looked at answers than random ones of its size."""
    drawn = of_mix(where(m.checked(), check="random"))
    return {name: minus(ours, drawn[name]) for name, ours in of_mix(m.masks, "accuracy").items()}


def nested(m: Grafting) -> dict[str, pd.DataFrame]:
    """Observe which share of a mask is in a larger one, of all pairs of sizes the least."""
    return of_mix(where(m.checks, check="inclusion").groupby(KEYS)["value"].min().reset_index())


def _of_split(m: Grafting, split: str, name: str, source: str) -> list[Claim]:
    """Return the claims of the paper's table of masks, and a check, on one split."""
    stage, mix = (published_graft(m.paper, tuning, split) for tuning in COMPARED)
    assert stage is not None and mix is not None
    less, more = sorted((stage.alpha, mix.alpha))
    adds, stage_adds = (row.accuracy - row.without for row in (mix, stage))
    left = mix.recovery_without / 100
    lacks = partial(none_chosen, split)
    return [
        Claim(
            id=f"grafting.mix-needs-fewer-{split}",
            text="Mix-tuned models need fewer grafted parameters than Stage-tuned ones to recover "
            f"{100 * m.recovery:g} % of the fine-tuned accuracy ({name}).",
            observe=partial(fewer, split), bound=0.1, unit="%", compares_tunings=True,
            why="A tenth of the larger number of parameters; those of the paper's two models "
            "differ by a quarter or more.",
            source=source, published=(stage.alpha - mix.alpha) / more,
            unmeasurable=partial(too_coarse, split, more / less),
        ),
        Claim(
            id=f"grafting.mix-mask-in-s-{split}",
            text="A larger share of the chosen mask is in S in Mix-tuned than in Stage-tuned "
            f"models ({name}).",
            observe=lambda m: mix_minus_stage(m.chosen, "shared_fraction", split=split),
            bound=0.01, why=PART, source=source, compares_tunings=True,
            unmeasurable=lacks,
            published=(mix.shared_fraction - stage.shared_fraction) / 100,
        ),
        Claim(
            id=f"grafting.mix-mask-enriched-{split}",
            text="At equal mask size, the share of the mask in S, less that of all graftable "
            f"parameters, is larger in Mix-tuned than in Stage-tuned models ({name}).",
            observe=partial(enriched, split), bound=0.01, why=PART, compares_tunings=True,
            unmeasurable=lacks,
        ),
        Claim(
            id=f"grafting.s-adds-more-in-mix-{split}",
            text="Fitting a mask of the chosen size without S lowers its accuracy more in "
            f"Mix-tuned than in Stage-tuned models ({name}).",
            observe=lambda m: minus(gain(split, "mix", m), gain(split, "stage", m)),
            bound=0.02, why=MOVES, source=source, compares_tunings=True,
            unmeasurable=lacks,
            published=(adds - stage_adds) / 100,
        ),
        Claim(
            id=f"grafting.s-adds-in-mix-{split}",
            text="In Mix-tuned models, the chosen mask answers more questions than a mask of the "
            f"same size fitted without S ({name}).",
            observe=partial(gain, split, "mix"),
            bound=0.02, why=MOVES, source=source, published=adds / 100,
            unmeasurable=lacks,
        ),
        Claim(
            id=f"grafting.little-without-s-{split}",
            text="In Mix-tuned models, a mask of the chosen size fitted without S recovers less "
            f"than {100 * left + 2:.3g} % of the fine-tuned accuracy ({name}).",
            observe=lambda m: ratio_observations(
                m.right(split, "mix", with_shared=False), m.whole(split, "mix")
            ),
            comparison="less", bound=left + 0.02,
            why=f"The paper's own number plus 2 points. {MOVES}",
            source=source, published=left, unmeasurable=lacks,
        ),
    ]  # fmt: skip


def claims(m: Grafting) -> list[Claim]:
    """Return the claims on grafting."""
    limit, least = (0.005, 0.927) if m.paper == LLAMA else (0.007, 0.932)
    tried = [alpha for alpha in m.sizes if alpha <= limit]
    at = f" (judged at {100 * max(tried):g} %, the largest such size tried)" if tried else ""
    runs, inside = (MASK_CHECKS[check] / 100 for check in ("overlap_runs", "inclusion"))
    source = f"v1, section 3.2 and {graft_source(m.paper).removeprefix('v1, ')}"
    return [
        Claim(
            id="grafting.few-recover",
            text=f"Masks of {100 * limit:g} % of the parameters{at} recover {100 * least:g} % of "
            "the fine-tuned accuracy, in Stage-tuned and Mix-tuned models, on QA in and QA out.",
            observe=lambda m: {
                f"{tuning.title()}-tuned, {name}": ratio_observations(
                    m.right(split, tuning, alpha=max(tried)), m.whole(split, tuning)
                )
                for tuning in COMPARED for split, name in SPLIT_NAMES.items()
            },
            bound=least, why=PRINTED, source=source, published=least,
            unmeasurable=lambda m: None if tried else "no mask as small was tried",
        ),
        *(c for split, name in SPLIT_NAMES.items() for c in _of_split(m, split, name, source)),
        Claim(
            id="grafting.better-than-random",
            text="With the fitted mask, a grafted Mix-tuned model answers more questions than with "
            "random masks of the same size.",
            observe=beyond_random, bound=0.02, why=MOVES,
            quote="shown in figure 12 (c), no number printed",
            source="v1, appendix A.5.2, figure 12",
        ),
        Claim(
            id="grafting.masks-recur",
            text=f"In Mix-tuned models, more than {100 * runs:g} % of a mask is in the mask fitted "
            "again with another order of questions.",
            observe=lambda m: of_mix(where(m.checked(), check="overlap_runs")),
            bound=runs, why=PRINTED, published=runs,
            source="v1, appendix A.5.2, figure 11",
        ),
        Claim(
            id="grafting.masks-nest",
            text=f"In Mix-tuned models, for every two sizes tried, more than {100 * inside:g} % of "
            "the smaller mask is in the larger one.",
            observe=nested, bound=inside, why=PRINTED, published=inside,
            source="v1, appendix A.5.2, figure 12",
        ),
        *(
            Claim(
                id=f"grafting.finds-recall-{tuning}",
                text=f"For held-out people, the chosen mask of a {tuning.title()}-tuned model "
                f"recovers over {100 * m.recovery:g} % of the accuracy that fine-tuning added.",
                observe=partial(held_out, tuning), bound=m.recovery,
                why=ENOUGH,
            )
            for tuning in COMPARED
        ),
        *([_distilled(m)] if "distilled" in m.settings["objectives"] else []),
    ]  # fmt: skip


def _distilled(m: Grafting) -> Claim:
    """Return the claim that masks fitted to θtask's own answers recover held-out people."""
    return Claim(
        id="grafting.distilled-finds-recall",
        text="For held-out people, masks fitted to the fine-tuned model’s own answers recover more "
        f"than {100 * m.recovery:g} % of the accuracy that fine-tuning added.",
        observe=lambda m: {
            f"{tuning.title()}-tuned, {name}": rows
            for tuning in COMPARED
            for name, rows in held_out(tuning, m, "distilled").items()
        },
        bound=m.recovery,
        why=ENOUGH,
        unmeasurable=lambda m: (
            None
            if m.fitted(objective="distilled")["held_out_recovery"].notna().any()
            else "nobody was held out"
        ),
    )
