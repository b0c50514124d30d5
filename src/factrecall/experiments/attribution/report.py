"""Attribution in the report: what an answer depends on, and what a patched state restores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from factrecall.experiments.attribution.claims import (
    CLAIMS,
    ROLES,
    Attributions,
    few_statements_known,
    start_token,
)
from factrecall.report.marks import Bars, Estimates, Reference
from factrecall.report.observations import TOGETHER, where
from factrecall.report.plots import Axis, Figure, layer_ticks
from factrecall.report.section import Section
from factrecall.report.tables import Column, Table, percent
from factrecall.runs import histories

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

    from factrecall.config.study import Study

FORMAT_LABELS = {"bio": "Statements (BIO)", "qa": "Questions (QA)"}
DIRECTIONS = {"bio to qa": "BIO → QA", "short to qa": "short → QA", "qa to bio": "QA → BIO"}
POSITIONS = {
    "subject": "name or pronoun",
    "relation": "end of the wording",
    "last": "last token",
}
SOURCE_FACTS = {"same": "state of the same fact", "other": "of another person's fact"}


def _files(study: Study, model: str) -> dict[str, str]:
    runs = [run for run in histories(study) if run["model"] == model]
    return {
        f"{kind}/{run['tuning']}/{run['seed']}": (
            f"representations/{model}/{run['tuning']}/seed{run['seed']}.{kind}.parquet"
        )
        for kind in ("attribution", "patching")
        for run in runs
    }


def _measures(data: pd.DataFrame, m: Attributions) -> pd.DataFrame:
    """Return a row a measure, all seeds together: shares in per cent, and what the logit loses."""
    import pandas as pd

    data, parts = where(data, seed=TOGETHER), []
    for measure, scale in (("share", 100), ("logit_drop", 1)):
        names = {"value": measure, "low": f"{measure}_low", "high": f"{measure}_high"}
        shown = {name: scale * data[column] for name, column in names.items()}
        parts.append(data.assign(measure=measure, **shown))
    return pd.concat(parts, ignore_index=True)


def _with_direction(data: pd.DataFrame, m: Attributions) -> pd.DataFrame:
    together = where(data, seed=TOGETHER)
    return together.assign(direction=together["source"] + " to " + together["target"])


def _mean(column: str) -> Callable[[pd.DataFrame, Any, dict[str, Any]], str]:
    return lambda rows, m, key: percent(float(rows[column].mean()))


SECTION = Section(
    name="attribution",
    title="What answers depend on",
    question="Which parts of a prompt does an answer depend on, and does the state of a statement "
    "restore the answer to a question?",
    read=Attributions,
    files=_files,
    claims=CLAIMS,
    trust=(start_token, few_statements_known),
    figures=(
        Figure(
            "attribution",
            data=Attributions.by_role,
            schema={
                **dict.fromkeys(("tuning", "format", "role"), "string"),
                **dict.fromkeys(("seed", "facts", "replaced"), "int32"),
                **{f"{name}{end}": "float64" for name in ("share", "logit_drop")
                   for end in ("", "_low", "_high")},
            },
            prepare=_measures,
            row="format",
            col="measure",
            layers=(
                Reference(0, "zero", axis="x"),
                Bars("value", "role", low="low", high="high", points=False,
                     write=lambda value: f"{value:.1f}".replace("-", "−"),
                     interval="95 % interval"),
            ),
            labels={
                "format": FORMAT_LABELS,
                "role": ROLES,
                "measure": {"share": "share of\nattribution (%)",
                            "logit_drop": "logit lost\nwhen replaced"},
            },
            share_x="col",
            height=2.4,
            x=Axis(grid=True),
            caption="<b>What the answer depends on</b>, facts out. Left: shares of the "
            "attribution; below zero a part speaks against the answer. Right: what the logit loses "
            "when the part is another person’s (of “another relation”: of the same person’s "
            "sentence on another relation).",
        ),
        Figure(
            "patching",
            data=Attributions.gains,
            schema={
                **dict.fromkeys(("tuning", "source", "target", "position", "source_fact"),
                                "string"),
                **dict.fromkeys(("seed", "layer"), "int32"),
                **dict.fromkeys(("gain", "gain_low", "gain_high"), "float64"),
            },
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
            caption="<b>What a state restores</b>: points of accuracy gained over the run without "
            "a patch, all facts out. What the fact’s own state gains more than another person’s is "
            "due to the fact. At the last token the highest layers prove little: their state "
            "already holds the answer.",
        ),
    ),
    tables=(
        Table(
            "Questions on facts out that the model answers wrongly: how many are answered rightly, "
            "in per cent, with the state of a statement patched at the last token after each layer "
            "(the fact's own, and another person's); all seeds.",
            data=Attributions.restored,
            row="layer",
            columns=(
                Column(", own", _mean("own")),
                Column(", another's", _mean("another")),
                Column(", questions", lambda rows, m, key: str(len(rows))),
            ),
            head="Layer",
        ),
    ),
    method="""
<p>Integrated gradients share out among the prompt's tokens what the prompt adds to the logit of
the answer's first token, against mean embeddings. Shares are of the sum of all roles' absolute
attributions; claims add up roles fact by fact. The path between prompt and mean is no text, so
parts are also replaced by those of another person, one at a time.</p>
<p>Patching replaces the residual stream after a layer, at one token, by that of the same fact in
the other format or, as a control, by that of another person's fact of the same relation. Answers
count if they are exactly right. Claims are judged on questions answered wrongly without a patch,
at the last token, after the middle one of the patched layers{% if m.middle is not none %}
({{ m.middle }}){% endif %}.</p>
<p>“Name or pronoun” is the last token of the sentence's subject. “End of the wording” is no
control: in four relations' questions it comes before the name, so that the state cannot know who
is asked about.</p>""",
)  # fmt: skip
