"""What the figures of the case study have besides their layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from factrecall.experiments.case_study.tables import FORMATS
from factrecall.report.plots import Panel
from factrecall.report.style import GREY, ROLE_COLOURS, SMALL, TUNING_LABELS, plain
from factrecall.report.tables import percent

if TYPE_CHECKING:
    import pandas as pd

    from factrecall.experiments.case_study.measures import CaseStudy

ROLE_LABELS = {
    "subject": "name, pronouns",
    "relation": "relation",
    "attribute": "attributes\nstated before",
    "start": "start token",
    "other": "everything else",
}
MARKED = ("subject", "relation", "attribute")
"""Roles with a colour of their own."""

LONGEST = 12
"""Characters of a token."""


def mark_tokens(panel: Panel) -> None:
    """Name the queries, and mark queries and keys by the colour of their role."""
    from matplotlib.patches import Patch

    labels = panel.measures.places(panel.key["format"])
    colours = [ROLE_COLOURS[role] for role in labels["role"]]
    places, axes = range(len(labels)), panel.axes
    texts = [_label(row) for row in labels.to_dict("records")]
    axes.set_yticks([place + 0.5 for place in places], texts, fontsize=6.3, parse_math=False)
    # Only the left panel of a row has visible labels.
    for text, colour in zip(axes.get_yticklabels(), colours, strict=False):
        text.set_color(colour)
    shown = range(0, len(labels), max(1, -(-len(labels) // 7)))
    first = labels["first"].tolist()
    axes.set_xticks([i + 0.5 for i in shown], [str(first[i]) for i in shown], fontsize=6.5)
    ends = [place + 1 for place in places]
    axes.hlines([0] * len(labels), places, ends, colours, linewidth=3, clip_on=False)
    for role in MARKED:
        label = ROLE_LABELS[role].replace("\n", " ")
        panel.legend[label] = Patch(color=ROLE_COLOURS[role])


def _label(row: Mapping[str, Any]) -> str:
    if row["role"] == "between":
        return f"… {row['tokens']} tokens …"
    text = "start" if row["role"] == "start" else plain(row["text"], LONGEST) or "blank"
    return f"{text} ({row['first']})"


def with_tokens(data: pd.DataFrame, m: CaseStudy) -> pd.DataFrame:
    """Leave out means of roles that no token of a prompt has."""
    there = data.groupby(["format", "role"])["mean"].transform("max") > 0
    return data.assign(mean=data["mean"].where(there))


def mark_case(panel: Panel) -> None:
    """Mark the case beside the means of all facts; say where a prompt has no such token."""
    from matplotlib.lines import Line2D
    from matplotlib.text import Annotation

    roles, tunings = panel.order("role"), panel.order("tuning")
    look: dict[str, Any] = {"marker": "D", "markersize": 3.6, "markeredgecolor": "white",
                            "markeredgewidth": 0.4, "linestyle": "", "zorder": 4}  # fmt: skip
    for role, rows in panel.rows.groupby("role"):
        if rows["mean"].isna().all():
            panel.axes.text(1.5, roles.index(role), "no such token", va="center", fontsize=SMALL)
            continue
        for tuning, colour in zip(tunings, panel.colours("tuning"), strict=True):
            case = rows.loc[rows["tuning"] == tuning, "case"]
            step = 0.8 / len(tunings) * (tunings.index(tuning) - (len(tunings) - 1) / 2)
            place = roles.index(role) + step
            panel.axes.plot(case, [place] * len(case), color=colour, clip_on=False, **look)
            for text in panel.axes.texts:  # the number of the bar stands behind the diamond
                if isinstance(text, Annotation) and abs(text.xy[1] - place) < 0.1:
                    text.xy = (max(text.xy[0], *case), place)
    panel.legend["the case above"] = Line2D([], [], color=GREY, **look)


def means_text(m: CaseStudy) -> str:
    """Return the means of the figure by role in words."""
    said = (
        f"{TUNING_LABELS[row.tuning]}, {FORMATS[row.format]}, {row.role} {percent(row.mean)}"
        for row in m.by_role().itertuples()
    )
    return f"Bars of the last token’s attention by role, in per cent. {'; '.join(said)}."
