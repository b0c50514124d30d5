"""Grafting in the report: how few parameters bring recall back, and whether masks recur.

The module is long because a section is declared in one place: its figures, tables, claims and
captions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from factrecall.experiments.grafting.caveats import masks_learn_answers, smallest_was_enough
from factrecall.experiments.grafting.claims import claims
from factrecall.experiments.grafting.measures import KEYS, Grafting
from factrecall.report.marks import Bars, Heat, Lines, Points, Reference
from factrecall.report.plots import Axis, Figure, Panel
from factrecall.report.published import MASK_CHECKS, Grafted, graft_source, published_graft
from factrecall.report.section import Caveats, Section, Text
from factrecall.report.style import SMALL, SPLIT_NAMES, TUNING_LABELS
from factrecall.report.tables import MISSING, NO_BREAK, Table, View, mean_sd, percent, points
from factrecall.vocabulary import COMPARED

if TYPE_CHECKING:
    import pandas as pd

_FLOOR = 0.01
"""A logarithm has no zero: less than a hundredth of the recall is drawn as this."""

_TICKS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000)
_MATRICES = {
    "inclusion": "Of a smaller mask (row),\nin a larger one (%)",
    "seeds": "Of a mask (row), in that\nof another seed (%)",
}
LINES = {
    "with": "fitted, S may be in it",
    "without": "fitted, without S",
    "movement": "moved most, not fitted",
    "others": "fitted: other people",
}

# --- tables -----------------------------------------------------------------------------------


def grafting_view(m: Grafting) -> View:
    """Return the chosen masks as the paper's tables 1 and 3 do, its numbers beside."""
    groups: list[tuple[str | None, list[list[str]]]] = []
    for split, name in SPLIT_NAMES.items():
        rows: list[list[str]] = []
        for tuning in COMPARED:
            own, whole = (_of(table, split, tuning) for table in (m.masks, m.known(0)))
            rows += _mask_rows(own, whole["whole"], tuning, published_graft(m.paper, tuning, split))
        groups.append((name, rows))
    head = ["α", "accuracy", "in S", "recovery"]
    return View(
        "Chosen masks, in per cent: α is the share of parameters grafted, in S the share of the "
        "mask that is in S, and in brackets what S adds to accuracy, in points. Mean ± s.d. over "
        f"seeds. Paper: {m.paper}.",
        ["Model", *(f"{h}, {side}" for h in head for side in ("here", "paper"))],
        groups,
    )


def _of(rows: pd.DataFrame, split: str, tuning: str) -> pd.DataFrame:
    return rows[(rows["split"] == split) & (rows["tuning"] == tuning)]


def _mask_rows(
    own: pd.DataFrame, whole: pd.Series, tuning: str, theirs: Grafted | None
) -> list[list[str]]:
    chosen = own[own["chosen"].astype(bool)]
    gain = chosen["gain"].dropna()
    some = f" ({len(chosen)} of {len(own)} seeds)" if 0 < len(chosen) < len(own) else ""
    label = f"grafted{some}" if len(chosen) else "grafted: none enough"
    accuracy, paper = mean_sd(chosen["accuracy"]), [MISSING] * 7
    if len(gain):
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
        [TUNING_LABELS[tuning], MISSING, MISSING, mean_sd(whole), paper[0], MISSING, MISSING,
         "100.0", "100.0"],
        [f"{NO_BREAK}{NO_BREAK}{label}", alpha, paper[1], accuracy, paper[2],
         mean_sd(chosen["shared_fraction"]), paper[3], mean_sd(chosen["recovery"]), paper[4]],
        [f"{NO_BREAK}{NO_BREAK}without S", alpha, paper[1], mean_sd(chosen["accuracy_without"]),
         paper[5], "0.0", "0.0", mean_sd(chosen["recovery_without"]), paper[6]],
    ]  # fmt: skip


def _check(name: str) -> Callable[[Grafting], pd.DataFrame]:
    return lambda m: m.checked(name)


def _value(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    return rows.assign(value=rows[column])


def _least_inclusion(m: Grafting) -> pd.DataFrame:
    rows = m.checks[m.checks["check"] == "inclusion"]
    return rows.groupby(KEYS, sort=False)["value"].min().reset_index()


def _by_seed(rows: pd.DataFrame) -> str:
    return mean_sd(rows.groupby("seed")["value"].mean())


CHECKS: tuple[tuple[str, Callable[[Grafting], pd.DataFrame], str], ...] = (
    ("Recovery, people fitted to", lambda m: _value(m.masks, "recovery"),
     "100: as the fine-tuned model"),
    ("Recovery, other people", lambda m: _value(m.others_of_masks(), "recovery"),
     "the row above, if recall was found"),
    ("Recovery, other people, nothing grafted", lambda m: _value(m.others_of_masks(), "nothing"),
     "the row above, if nothing was found"),
    ("Retained: right of what the model has right", _check("kept"), "100"),
    ("Newly correct: right of what it has wrong", _check("gained"),
     "the random mask below, if recall was found"),
    ("Answers exchanged, fitted: right of them", _check("shuffled"),
     "majority vote, if masks could not learn answers"),
    ("Random mask of the size: accuracy", _check("random"), "the row below"),
    ("Nothing grafted: accuracy", lambda m: _value(m.known(0), "before"),
     "guessing, if all recall is fine-tuned"),
    ("Overlap, another order of questions", _check("overlap_runs"),
     f"paper at least {MASK_CHECKS['overlap_runs']:.1f} (α 1 %); chance: about α"),
    ("Overlap, another fine-tuning seed", _check("overlap_seeds"), "chance: about α"),
    ("Least inclusion, all pairs of α", _least_inclusion,
     f"paper at least {MASK_CHECKS['inclusion']:.1f}; chance: about the larger α"),
)  # fmt: skip
"""What else is known of the masks, how it is read, and what it is to be held against."""


def checks_view(m: Grafting) -> View:
    """Return the checks of the masks."""
    found = [(label, read(m), compare) for label, read, compare in CHECKS]
    groups: list[tuple[str | None, list[list[str]]]] = [
        (
            name,
            [
                [
                    label,
                    *(
                        mean_sd(_of(rows, split, t).groupby("seed")["value"].mean())
                        for t in COMPARED
                    ),
                    compare,
                ]
                for label, rows, compare in found
            ],
        )
        for split, name in SPLIT_NAMES.items()
    ]
    return View(
        "Whether the masks can be trusted, in per cent: mean ± s.d. over seeds, a single number "
        "where only the first seed was checked. Masks are the chosen ones or, where none was "
        "enough, those that recovered most; inclusion is the least over all pairs of sizes tried, "
        "chosen or not.",
        ["Check", *(TUNING_LABELS[t] for t in COMPARED), "to be held against"],
        groups,
    )


# --- figures ----------------------------------------------------------------------------------


def _above_floor(data: pd.DataFrame, m: Grafting) -> pd.DataFrame:
    return data.assign(recovery=data["recovery"].clip(lower=_FLOOR))


def _ticks(rows: pd.DataFrame) -> list[float]:
    low, high = rows["recovery"].min(), max(rows["recovery"].max(), 100)
    return [tick for tick in _TICKS if low <= tick <= high]


def _nothing(panel: Panel) -> float:
    return 100 * max(float(panel.measures.nothing(**panel.key)), _FLOOR)


def _note(rows: pd.DataFrame, panel: Panel) -> str:
    """Say a mask's share of all parameters, and what a reader of its size must know."""
    m, least = panel.measures, panel.measures.fitted()["alpha"].min()
    seeds = len(_of(m.masks, rows["split"].iloc[0], rows["tuning"].iloc[0]))
    said = [f"{100 * rows['alpha'].mean():.3g} %"]
    said += ["smallest tried"] if (rows["alpha"] <= least).all() else []
    said += [f"{seeds - len(rows)} of {seeds}: none"] if len(rows) < seeds else []
    # Two lines where one would run out of the figure.
    return ", ".join(said[:2]) + "".join(f",\n{more}" for more in said[2:])


def _not_chosen(panel: Panel) -> None:
    """Say so where no mask was chosen, which is no size of nought."""
    splits, tunings = panel.order("split"), panel.order("tuning")
    for row, split in enumerate(splits):
        for number, tuning in enumerate(tunings):
            if _of(panel.rows, split, tuning).empty:
                seeds = len(_of(panel.measures.masks, split, tuning))
                text = f" none chosen ({seeds} of {seeds} seeds)" if seeds else " not measured"
                y = row + 0.8 / len(tunings) * (number - (len(tunings) - 1) / 2)
                panel.axes.text(0, y, text, va="center", fontsize=SMALL - 1)
    panel.axes.set_xlim(0, 1.8 * panel.axes.dataLim.xmax)


def _thousands(value: float) -> str:
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:g}{name}"
    return f"{value:g}"


def _by_matrix(data: pd.DataFrame, m: Grafting) -> pd.DataFrame:
    return data.assign(panel=data["matrix"] + " " + data["split"]).sort_values("panel")


def _size_or_seed(value: float, panel: Panel) -> str:
    sizes = panel.key["panel"].startswith("inclusion")
    return f"{100 * value:g} %" if sizes else f"seed {value:g}"


def _matrix_title(key: dict[str, Any], m: Grafting) -> str:
    matrix, split = key["panel"].split()
    tuning = key["tuning"]
    if tuning == COMPARED[0] and split == "in":
        return f"{_MATRICES[matrix]}\n{SPLIT_NAMES[split]}, {TUNING_LABELS[tuning]}"
    return f"{SPLIT_NAMES[split]}, {TUNING_LABELS[tuning]}"


def _recovery_alt(m: Grafting) -> str:
    fitted = m.fitted()
    means = fitted[fitted["with_shared"].astype(bool)].groupby(
        ["split", "tuning", "alpha"], sort=False
    )
    said: dict[tuple[str, str], list[str]] = {}
    for (split, tuning, alpha), recovery in means["recovery"].mean().items():
        value = f"{100 * alpha:g} %: {percent(recovery)}"
        said.setdefault((SPLIT_NAMES[split], TUNING_LABELS[tuning]), []).append(value)
    lines = (f"{name}, {tuning}: {', '.join(v)}" for (name, tuning), v in said.items())
    return f"Recovery of fitted masks in per cent by share grafted. {'. '.join(lines)}."


SECTION = Section(
    name="grafting",
    title="Grafting",
    read=Grafting,
    tables=("grafting", "grafting_checks"),
    settings=lambda study, model: {"recovery": study.grafting.target_recovery},
    body=(
        Text(
            "<p>A mask of few parameters is grafted: they are as after fine-tuning, all others as "
            "before. It is fitted to some people’s questions, so that the grafted model answers "
            "them. The chosen size is the smallest that recovers "
            "{{ '{:g}'.format(100 * m.recovery) }}\N{NO-BREAK SPACE}% of what the fine-tuned model "
            "has right of these people. The same is done with S reset beforehand; what is lost "
            "then is what S adds.</p>"
        ),
        Caveats(masks_learn_answers, smallest_was_enough),
        Figure(
            "grafting",
            data=Grafting.lines,
            schema={"tuning": "string", "split": "string", "seed": "int32", "line": "string",
                    "alpha": "float64", "recovery": "float64", "chosen": "bool"},
            prepare=_above_floor,
            row="split",
            col="tuning",
            layers=(
                Lines("alpha", "recovery", style="line", units="seed", markers=True),
                Points("alpha", "recovery", "chosen size, a ring a seed",
                       rows=lambda rows: rows[rows["chosen"].astype(bool)].query("line == 'with'"),
                       look={"s": 60, "facecolor": "none", "edgecolor": "#000000", "linewidth": 1}),
                Reference(100, "whole", "as the fine-tuned model"),
                Reference(lambda panel: 100 * panel.measures.recovery, "enough",
                          lambda panel: f"enough: {100 * panel.measures.recovery:g} %"),
                Reference(_nothing, "nothing", "nothing grafted"),
            ),
            labels={"line": LINES, "split": SPLIT_NAMES},
            height=2.1,
            x=Axis("α: grafted (%, log)", percent=("alpha",), scale="log",
                   ticks=lambda rows: sorted(rows["alpha"].unique())),
            y=Axis("recovery (%, log)", percent=("recovery",), scale="log", ticks=_ticks,
                   grid=True),
            alt=_recovery_alt,
            caption="<b>How few parameters recover recall.</b> Recovery is accuracy over that of "
            "the fine-tuned model; thick lines are means over seeds, thin ones seeds, both axes "
            "logarithmic. A mask that found where recall is would bring other people’s recall back "
            "as well: the line with crosses would follow the one with dots. A mask that only "
            "learnt answers leaves it at the dotted grey line: what the same other people recover "
            "with nothing grafted (those fitted to, where there are no others). Above 100&nbsp;% a "
            "mask answers what the fine-tuned model cannot.",
        ),
        Table("", data=grafting_view),
        Text(
            '<p class="small">Paper: {{ source(m.paper) }} ({{ m.paper }}). A dash: not published, '
            "or not measured.</p>",
            scope={"source": graft_source},
        ),
        Figure(
            "grafting_size",
            data=lambda m: m.chosen,
            schema={"tuning": "string", "split": "string", "seed": "int32", "alpha": "float64",
                    "size": "int64"},
            layers=(Bars("size", "split", note=_note),),
            labels={"split": SPLIT_NAMES},
            height=1.5,
            x=Axis("parameters in the chosen mask", write=_thousands, grid=True),
            annotate=_not_chosen,
            empty="none chosen, or not measured",
            alt="Bars of the number of parameters in the chosen masks; the table below holds their "
            "shares of all parameters.",
            caption="<b>How many parameters that is.</b> The chosen masks, mean over seeds, with "
            "their share of all parameters; points are seeds. Sizes are those that were tried, not "
            "values in between. The models do not have the same to recover: where a Stage-tuned "
            "model knows little, little is enough.",
        ),
        Table("", data=checks_view, wide=True),
        Figure(
            "grafting_overlap",
            data=Grafting.overlaps,
            schema={"tuning": "string", "split": "string", "matrix": "string", "row": "float64",
                    "column": "float64", "alpha": "float64", "value": "float64"},
            prepare=_by_matrix,
            row="panel",
            col="tuning",
            layers=(Heat("value", "row", "column", names=_size_or_seed),),
            titles=_matrix_title,
            height=1.4,
            x=Axis(percent=("value",)),
            share_x=False,
            share_y=False,
            alt="Matrices of how much of one mask is inside another; the table of checks above "
            "holds their means.",
            caption="<b>Whether masks recur.</b> Above: how much of a smaller mask (row) is in a "
            "larger one (column), mean over seeds; chance would give about the α of the larger."
            "{% if study.grafting.optimiser.method == 'dual_averaging' %} Smaller masks are fitted "
            "from the scores of larger ones, which favours inclusion.{% endif %} Below, of several "
            "seeds: how much of one seed’s mask is in another’s, at the largest size chosen for "
            "any; chance would give about that α. The nearer to 100, the more the masks depend on "
            "the data and the less on the run.",
        ),
    ),
    claims=claims,
)  # fmt: skip
