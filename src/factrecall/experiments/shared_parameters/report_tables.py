"""The tables on shared parameters, ablation and grafting, with the paper's numbers beside."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from factrecall.experiments.shared_parameters.compute import SETS
from factrecall.experiments.shared_parameters.figures import INFLUENCE_LABELS
from factrecall.report.measures import SPLIT_NAMES, Measures
from factrecall.report.published import (
    MASK_CHECKS,
    RATIOS,
    Grafted,
    published_graft,
)
from factrecall.report.style import TUNING_LABELS
from factrecall.report.tables import MISSING, NO_BREAK, View, mean_sd, percent, points
from factrecall.vocabulary import COMPARED

Groups = list[tuple[str | None, list[list[str]]]]

SET_LABELS = {"S_I": "S I: BIO in, QA in", "S_II": "S II: BIO out, QA in", "S": "S: either"}


def shared_table(measures: Measures, paper: str) -> View:
    """Return |S|/k at shared.k by influence and set, with what chance would give."""
    at_k = measures.at_k()
    groups: Groups = []
    for influence, label in INFLUENCE_LABELS.items():
        rows = []
        for name in SETS:
            found = at_k[(at_k["influence"] == influence) & (at_k["set"] == name)]
            cells = [SET_LABELS[name]]
            for tuning in COMPARED:
                own = found[found["tuning"] == tuning]
                cells += [mean_sd(own["ratio"]), percent(float(own["null"].mean()))]
            rows.append([*cells, percent(float(found["chance"].mean())), _ratio(found)])
        used = " (used here)" if influence == measures.influence else ""
        groups.append((label + used, rows))
    said = f"; the paper: {RATIOS[paper]:g} for {paper}" if paper in RATIOS else ""
    names = [TUNING_LABELS[t].removesuffix("-tuned") for t in COMPARED]
    head = [f"{name}{side}" for name in names for side in ("", ", permuted")]
    return View(
        f"Shared parameters in per cent of k = {measures.k:,}: mean ± s.d. over seeds. Permuted: "
        "the same for rankings permuted within each tensor. Chance: for random rankings. "
        f"Mix / Stage: ratio of the means{said}.",
        ["Set", *head, "chance", "Mix / Stage"],
        groups,
    )


def _ratio(rows: pd.DataFrame) -> str:
    means = rows.groupby("tuning")["ratio"].mean()
    if not set(COMPARED) <= set(means.index) or not means["stage"]:
        return MISSING
    return f"{means['mix'] / means['stage']:.2f}"


def grafting_table(measures: Measures, paper: str) -> View:
    """Return the chosen masks as the paper's tables 1 and 3 do, its numbers beside."""
    masks, known = measures.masks(), measures.known(0)
    groups: Groups = []
    for split, name in SPLIT_NAMES.items():
        rows: list[list[str]] = []
        for tuning in COMPARED:
            own = masks[(masks["split"] == split) & (masks["tuning"] == tuning)]
            whole = known[(known["split"] == split) & (known["tuning"] == tuning)]["whole"]
            rows += _mask_rows(own, whole, tuning, published_graft(paper, tuning, split))
        groups.append((name, rows))
    head = ["α", "accuracy", "in S", "recovery"]
    return View(
        "Chosen masks, in per cent: α is the share of parameters grafted, in S the share of the "
        "mask that is in S, and in brackets what S adds to accuracy, in points. Mean ± s.d. over "
        f"seeds. Paper: {paper}.",
        ["Model", *(f"{h}, {side}" for h in head for side in ("here", "paper"))],
        groups,
    )


def _mask_rows(
    own: pd.DataFrame, whole: pd.Series, tuning: str, theirs: Grafted | None
) -> list[list[str]]:
    chosen = own[own["chosen"].astype(bool)]
    name = TUNING_LABELS[tuning]
    gain = chosen["accuracy"] - chosen["accuracy_without"]
    some = f" ({len(chosen)} of {len(own)} seeds)" if 0 < len(chosen) < len(own) else ""
    label = f"grafted{some}" if len(chosen) else "grafted: none enough"
    accuracy, paper = mean_sd(chosen["accuracy"]), [MISSING] * 7
    if len(gain.dropna()):
        accuracy += f" ({points(float(gain.mean()))})"
    if theirs is not None:
        paper = [
            f"{theirs.whole:.1f}", f"{theirs.alpha:g}",
            f"{theirs.accuracy:.1f} ({points((theirs.accuracy - theirs.without) / 100)})",
            f"{theirs.shared_fraction:.1f}", f"{theirs.recovery:.1f}",
            f"{theirs.without:.1f}", f"{theirs.recovery_without:.1f}",
        ]  # fmt: skip
    alpha = mean_sd(chosen["alpha"], lambda share: f"{100 * share:#.3g}".rstrip("."))
    return [
        [name, MISSING, MISSING, mean_sd(whole), paper[0], MISSING, MISSING, "100.0", "100.0"],
        [f"{NO_BREAK}{NO_BREAK}{label}", alpha, paper[1], accuracy, paper[2],
         mean_sd(chosen["shared_fraction"]), paper[3], mean_sd(chosen["recovery"]), paper[4]],
        [f"{NO_BREAK}{NO_BREAK}without S", alpha, paper[1], mean_sd(chosen["accuracy_without"]),
         paper[5], "0.0", "0.0", mean_sd(chosen["recovery_without"]), paper[6]],
    ]  # fmt: skip


def checks_table(measures: Measures) -> View:
    """Return what else is known of the chosen masks, and what each number is to be held against."""
    groups: Groups = []
    for split, name in SPLIT_NAMES.items():
        rows = []
        for label, read, compare in _CHECKS:
            cells = [label]
            for tuning in COMPARED:
                found = read(measures)
                own = found[(found["split"] == split) & (found["tuning"] == tuning)]
                cells.append(mean_sd(own.groupby("seed")["value"].mean()))
            rows.append([*cells, compare])
        groups.append((name, rows))
    return View(
        "Whether the masks can be trusted, in per cent: mean ± s.d. over seeds, a single number "
        "where only the first seed was checked. Masks are the chosen ones or, where none was "
        "enough, those that recovered most; inclusion is the least over all pairs of sizes tried, "
        "chosen or not.",
        ["Check", *(TUNING_LABELS[t] for t in COMPARED), "to be held against"],
        groups,
    )


Read = Callable[[Measures], pd.DataFrame]


def _check(name: str) -> Read:
    return lambda measures: measures.checked(name)


def _recovery(measures: Measures) -> pd.DataFrame:
    return measures.masks().assign(value=lambda m: m["recovery"])


def _others(measures: Measures) -> pd.DataFrame:
    return measures.others_of_masks().assign(value=lambda m: m["recovery"])


def _nothing(measures: Measures) -> pd.DataFrame:
    return measures.others_of_masks().assign(value=lambda m: m["nothing"])


def _before(measures: Measures) -> pd.DataFrame:
    return measures.known(0).assign(value=lambda m: m["before"])


def _least_inclusion(measures: Measures) -> pd.DataFrame:
    rows = measures.checks[measures.checks["check"] == "inclusion"]
    keys = ["tuning", "seed", "split"]
    return rows.groupby(keys, sort=False)["value"].min().reset_index()


_CHECKS: tuple[tuple[str, Read, str], ...] = (
    ("Recovery, people fitted to", _recovery, "100: as the fine-tuned model"),
    ("Recovery, other people", _others, "the row above, if recall was found"),
    ("Recovery, other people, nothing grafted", _nothing, "the row above, if nothing was found"),
    ("Kept: right of what the model has right", _check("kept"), "100"),
    ("Gained: right of what it has wrong", _check("gained"),
     "the random mask below, if recall was found"),
    ("Answers exchanged, fitted: right of them", _check("shuffled"),
     "majority vote, if masks could not learn answers"),
    ("Random mask of the size: accuracy", _check("random"), "the row below"),
    ("Nothing grafted: accuracy", _before, "guessing, if all recall is fine-tuned"),
    ("Overlap, another order of questions", _check("overlap_runs"),
     f"paper at least {MASK_CHECKS['overlap_runs']:.1f} (α 1 %); chance: about α"),
    ("Overlap, another fine-tuning seed", _check("overlap_seeds"), "chance: about α"),
    ("Least inclusion, all pairs of α", _least_inclusion,
     f"paper at least {MASK_CHECKS['inclusion']:.1f}; chance: about the larger α"),
)  # fmt: skip
