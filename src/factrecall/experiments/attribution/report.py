"""Attribution in the report: what an answer depends on, and what a patched state restores."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from factrecall.experiments.attribution.claims import (
    ANCHORS,
    CLAIMS,
    ROLES,
    Attributions,
    few_replaced,
    few_statements_known,
    start_token,
)
from factrecall.experiments.attribution.tables import (
    ATTRIBUTION_SUMMARY,
    PATCHING_SUMMARY,
    RESTORED,
)
from factrecall.experiments.common.estimates import (
    MINUS,
    TOGETHER,
    cell,
    chosen,
    few_people,
    in_words,
    layer_ticks,
    picked,
    single_seeds,
    together,
)
from factrecall.report.claims import NAMES
from factrecall.report.marks import Bars, Estimates, Reference
from factrecall.report.plots import NOTHING, Axis, Figure, Panel
from factrecall.report.section import Caveats, Section, Text
from factrecall.report.style import TUNING_LABELS
from factrecall.report.tables import MISSING, Column, Table, percent, points
from factrecall.vocabulary import COMPARED

if TYPE_CHECKING:
    import pandas as pd

FORMAT_LABELS = {"bio": "Statements (BIO)", "qa": "Questions (QA)"}
DIRECTIONS = {"bio to qa": "BIO → QA", "short to qa": "short → QA", "qa to bio": "QA → BIO"}
POSITIONS = {
    "subject": "name or pronoun",
    "relation": "end of the wording",
    "last": "last token",
}
SOURCE_FACTS = {"same": "state of the same fact", "other": "of another person's fact"}


def _measures(data: pd.DataFrame, m: Attributions) -> pd.DataFrame:
    """Return a row a measure: shares in per cent, and what the logit loses."""
    import pandas as pd

    seeds, parts = data["seed"] != TOGETHER, []
    for measure, scale in (("share", 100), ("logit_drop", 1)):
        value, low, high = (scale * data[f"{measure}{end}"] for end in ("", "_low", "_high"))
        together = {"value": value.mask(seeds), "low": low.mask(seeds), "high": high.mask(seeds)}
        parts.append(data.assign(measure=measure, single=value.where(seeds), **together))
    return pd.concat(parts, ignore_index=True)


def _seeds_and_gaps(panel: Panel) -> None:
    """Draw single seeds on their bars, and a dash where there is no bar."""
    pairs = list(zip(panel.order("tuning"), panel.colours("tuning"), strict=True))
    for place, role in enumerate(panel.order("role")):
        for number, (tuning, colour) in enumerate(pairs):
            y = place + 0.8 / len(pairs) * (number - (len(pairs) - 1) / 2)
            rows = chosen(panel.rows, role=role, tuning=tuning)
            single = rows["single"].dropna()
            single_seeds(panel, single, [y] * len(single), color=colour, markersize=2)
            if rows["value"].isna().all():
                panel.axes.text(0, y, f" {MISSING}", va="center", fontsize=7)


def _with_direction(data: pd.DataFrame, m: Attributions) -> pd.DataFrame:
    return data.assign(direction=data["source"] + " to " + data["target"])


def _attribution_alt(m: Attributions) -> str:
    rows = m.attributions(format="bio")
    said = []
    for tuning in COMPARED:
        parts = [together(rows, "share", tuning=tuning, role=role) for role in ANCHORS]
        if any(one.known for one in parts):
            shares = " and ".join(percent(one.value) for one in parts)
            said.append(f"{NAMES[tuning]} {shares} %")
    return (
        "Bars of the share of attribution by part of the prompt, and of the logit lost when it is "
        f"replaced. Share of name and wording, statements: {'; '.join(said) or NOTHING}."
    )


def _patching_alt(m: Attributions) -> str:
    rows = m.at_last_token(source_fact=RESTORED, layer=m.middle)
    found = {NAMES[t]: together(rows, "gain", tuning=t) for t in COMPARED}
    return (
        "Accuracy gained by layer, position and direction of the patch. Restored after the middle "
        f"one of the patched layers, at the last token, from BIO to QA: "
        f"{in_words(found, points, ' points')}."
    )


# --- tables -----------------------------------------------------------------------------------


_share = partial(cell, write=percent, interval=False)
"""A share without its interval, in per cent."""


def _signed_share(value: float) -> str:
    return percent(value).replace("-", MINUS)


def _number(value: float) -> str:
    return f"{value:.1f}".replace("-", MINUS)


def _at_middle(m: Attributions) -> pd.DataFrame:
    rows = m.patches(layer=-1 if m.middle is None else m.middle)
    rows = rows.assign(where=rows["position"] + ", " + rows["tuning"])
    return _with_direction(rows, m)


SECTION = Section(
    name="attribution",
    title="What answers depend on",
    read=Attributions,
    tables=("attribution", "patching"),
    claims=CLAIMS,
    body=(
        Text(
            "<p>Integrated gradients share out among the prompt’s tokens what the prompt adds to "
            "the logit of the answer’s first token, compared with mean embeddings. The path "
            "between the two is no text. So parts are also replaced by those of another person, "
            "one at a time: if the answer depends on a part, its logit falls.</p>"
        ),
        Caveats(
            start_token, few_replaced, lambda m: few_people(chosen(m.rows("attribution"),
                                                                   relation="all"))
        ),
        Figure(
            "attribution",
            data=Attributions.drawn,
            schema=picked(
                ATTRIBUTION_SUMMARY,
                "tuning seed format role facts replaced share share_low share_high logit_drop "
                "logit_drop_low logit_drop_high",
            ),
            prepare=_measures,
            row="format",
            col="measure",
            layers=(
                Reference(0, "zero", axis="x"),
                Bars("value", "role", low="low", high="high", write=_number, points=False,
                     interval="95 % interval"),
            ),
            labels={
                "format": FORMAT_LABELS,
                "role": ROLES,
                "measure": {"share": "share of\nattribution (%)",
                            "logit_drop": "logit lost\nwhen replaced"},
            },
            annotate=_seeds_and_gaps,
            share_x="col",
            height=2.4,
            x=Axis(grid=True),
            alt=_attribution_alt,
            caption="<b>What the answer depends on.</b> Facts out; bars are means, thin lines "
            "95&nbsp;% intervals over people, small marks seeds; a dash: nothing to show. Left: "
            "shares of all roles’ attributions, each taken without its sign, so that those below "
            "zero speak against the answer and bars need not add up to 100. Right: what the logit "
            "loses when the part is another person’s. “Of another relation”: the sentence is "
            "worded as one on another relation of the same person, so that the answer "
            "<i>should</i> change. The logits of two models need not have the same scale.",
        ),
        Table(
            "What the answers of facts out depend on, all seeds. Share: of all roles' "
            "attributions to the logit of the answer's first token, each taken without its sign, "
            "in per cent, with 95 % intervals over people; below zero it speaks against the "
            "answer. The rest is with the part replaced by another person's: what the logit "
            "loses, the share of first tokens that were right and still are, and the share that "
            "follow the replaced part, both in per cent.",
            data=Attributions.attributions,
            group="format",
            row="role",
            columns=(
                Column(", share", cell("share", _signed_share)),
                Column(", logit lost", cell("logit_drop", _number, interval=False)),
                Column(", still right", _share("still_right")),
                Column(", follows", _share("source_answer")),
            ),
            last=(Column("share, Mix less Stage", cell("share", tuning="mix - stage")),),
            labels={"format": FORMAT_LABELS, "role": ROLES},
            head="Part",
        ),
        Text(
            "<h4>Patching</h4><p>If a model knows a fact in a statement but not in a question, the "
            "state of the statement may restore the answer. The residual stream after a layer, at "
            "one token, is replaced by that of the same fact in the other format; or, as a "
            "control, by that of another person’s fact of the same relation. Answers count if "
            "they are exactly right.</p>"
        ),
        Caveats(few_statements_known, lambda m: few_people(m.rows("patching"))),
        Figure(
            "patching",
            data=Attributions.gains,
            schema=picked(
                PATCHING_SUMMARY,
                "tuning seed source target layer position source_fact accuracy unpatched gain "
                "gain_low gain_high facts",
            ),
            prepare=_with_direction,
            row="position",
            col="direction",
            layers=(
                Reference(0, "zero"),
                Estimates("layer", "gain", "gain_low", "gain_high", style="source_fact"),
            ),
            labels={"position": POSITIONS, "direction": DIRECTIONS, "source_fact": SOURCE_FACTS},
            height=1.5,
            x=Axis("layer", ticks=layer_ticks),
            y=Axis("gain (points)", percent=("gain", "gain_low", "gain_high"), grid=True),
            alt=_patching_alt,
            caption="<b>What a state restores.</b> Facts out; points of accuracy gained over the "
            "run without a patch, with 95&nbsp;% intervals over people, all seeds together. The "
            "difference between the same fact’s state and another person’s is due to the fact. "
            "<b>At the last token the highest layers prove little</b>: their state already holds "
            "the answer. Claims are judged after the middle one of the patched layers{% if "
            "m.middle is not none %} ({{ m.middle }}){% endif %}. “Name or pronoun” is the last "
            "token of the sentence’s subject: a full name in questions and short sentences, a "
            "pronoun in all but the first sentences of most biographies. In a biography the end "
            "of the wording is mostly the last token. In this project’s questions its last word "
            "comes before the name for four relations, where the state cannot know who is asked "
            "about, and after it for university and employer. So the panels of the wording are "
            "no control.",
        ),
        Table(
            lambda m: "Facts out answered rightly, in per cent, with states patched after the "
            f"middle one of the patched layers{'' if m.middle is None else f' ({m.middle})'}; all "
            "seeds. Restored: points that the fact's own state gives more than that of another "
            "person's fact, with 95 % intervals over people. Follows: with the other person's "
            "state, how often the other's answer comes.",
            data=_at_middle,
            group="direction",
            row="where",
            last=(
                Column("unpatched", _share("unpatched", source_fact="same")),
                Column("same fact", _share("accuracy", source_fact="same")),
                Column("other person", _share("accuracy", source_fact="other")),
                Column("restored", cell("gain", source_fact=RESTORED)),
                Column("follows", _share("source_answer", source_fact="other")),
            ),
            labels={
                "direction": DIRECTIONS,
                "where": {f"{position}, {tuning}": f"{label}, {TUNING_LABELS[tuning]}"
                          for position, label in POSITIONS.items() for tuning in COMPARED},
            },
            head="Where",
        ),
    ),
)  # fmt: skip
