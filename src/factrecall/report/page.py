"""The report: one HTML file that opens anywhere, with nothing beside it.

Style and figures are inside the file, there is no script, and a content security policy forbids
the browser to fetch anything. All text from the study is escaped by the template engine.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from factrecall.errors import FactRecallError
from factrecall.report import tables
from factrecall.report.cautions import cautions
from factrecall.report.deviations import deviations
from factrecall.report.examples import choose_people
from factrecall.report.influences import TOP, Gathering, read_gatherings
from factrecall.report.loss_figure import LOSS_DATA, POINTS
from factrecall.report.published import LLAMA, PUBLISHED, counterpart
from factrecall.report.recall_figures import RELATION_DATA
from factrecall.report.style import RELATION_LABELS, TUNING_LABELS
from factrecall.report.summaries import by_seed, read_recall, spread
from factrecall.report.verdict import RULE, Verdict, judge
from factrecall.seeds import generator
from factrecall.statistics import DRAWS
from factrecall.storage import read_table, write_text

if TYPE_CHECKING:
    from factrecall.facts.forms import FactFiles
    from factrecall.report.timings import Timing

FINE_TUNED = ("bio", "stage", "mix")

_COUNTS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


@dataclass(frozen=True)
class ModelFiles:
    """What the report shows of one model.

    Attributes
    ----------
    name : str
        Its name in the study.
    figures : Path
        Folder that `figures.draw_figures` filled.
    per_example : mapping of (tuning, seed) to Path
        Recall per example; Stage-tuned and Mix-tuned of the same seeds are compared.
    traces : mapping of (tuning, seed) to Path
        Gradient traces; may be empty.
    """

    name: str
    figures: Path
    per_example: Mapping[tuple[str, int], Path]
    traces: Mapping[tuple[str, int], Path]


@dataclass(frozen=True)
class Shown:
    """One model as the template shows it."""

    name: str
    headline: str
    verdict: Verdict
    evidence: str
    cautions: list[str]
    recall: tables.Table
    counterpart: str
    comparison: tables.Table
    sources: list[str]
    images: dict[str, tuple[str, str]]
    traced: tables.Table | None


def write_report(
    *,
    study: Mapping[str, Any],
    provenance: Mapping[str, Any],
    models: Sequence[ModelFiles],
    recall: Path,
    facts: FactFiles,
    timings: Sequence[Timing],
    out: Path,
) -> None:
    """Write the report of a study.

    Parameters
    ----------
    study : mapping
        The resolved configuration, plain values only (pydantic: ``model_dump(mode="json")``).
    provenance : mapping
        Versions, code fingerprint, hash of the lock file; may be nested.
    models : sequence of ModelFiles
        In the order in which they are shown.
    recall : Path
        The study's table of recall.
    facts : FactFiles
        Its facts.
    timings : sequence of Timing
        Benchmarks of the workflow; may be empty.
    out : Path
        The HTML file; replaced atomically.

    Raises
    ------
    FactRecallError
        When an input is missing, damaged or does not fit the others.
    """
    first_seed = study["training"]["seeds"][0]
    sizes: dict[str, int] = {}
    shown = []
    for files in models:
        size, traced = _traced(files, first_seed, study["shared"]["influence"])
        if size is not None:
            sizes[files.name] = size
        shown.append(_show(files, study, recall, traced))
    context = {
        "study": study,
        "seeds": _count(len(study["training"]["seeds"]), "seed"),
        "first_seed": first_seed,
        "models": shown,
        "rule": RULE,
        "draws": DRAWS,
        "top": TOP,
        "points": POINTS,
        "run": tables.run_table(study, sizes),
        "timings": tables.timing_table(timings) if timings else None,
        "configuration": _yaml(study),
        "provenance": tables.flat(provenance),
        "deviations": deviations(study),
        **_examples(models, study, facts, first_seed),
    }
    write_text(out, _render(context))


def _render(context: Mapping[str, Any]) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    folder = Path(__file__).parent
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # The only text not escaped: our own style sheet.
    style = Markup((folder / "page.css").read_text(encoding="utf-8"))
    return environment.get_template("page.html.j2").render(style=style, **context)


def _show(
    files: ModelFiles, study: Mapping[str, Any], recall: Path, traced: tables.Table | None
) -> Shown:
    table = read_recall(recall, files.name)
    verdict = judge(files.per_example, generator(study["seed"], "report", "people", files.name))
    paper = counterpart(study["models"][files.name]) or LLAMA
    return Shown(
        name=files.name,
        headline=_headline(verdict, table),
        verdict=verdict,
        evidence=_evidence(verdict),
        cautions=cautions(table),
        recall=tables.recall_table(table),
        counterpart=paper,
        comparison=tables.comparison_table(table, paper),
        sources=sorted(
            {row.source for row in PUBLISHED if row.model == paper and not row.relation}
        ),
        images=_images(files.figures),
        traced=traced,
    )


def _headline(verdict: Verdict, recall: pd.DataFrame) -> str:
    summary = spread(by_seed(recall)).set_index(["tuning", "split"])["mean"]
    chance = summary.get(("majority", "qa_out"))
    guess = "" if chance is None else f"; the most frequent answer gives {_sign(chance)}"
    return (
        f"Mix-tuned models recall {_sign(verdict.mix)} of the facts whose question "
        f"they never saw, Stage-tuned ones {_sign(verdict.stage)} "
        f"({_count(len(verdict.differences), 'seed')}{guess})."
    )


def _sign(share: float) -> str:
    return f"{tables.percent(share)}{tables.NO_BREAK}%"


def _evidence(verdict: Verdict) -> str:
    by_seed = ", ".join(tables.points(d) for d in verdict.differences.values())
    return (
        f"Difference {tables.points(verdict.mix - verdict.stage)} points, 95 % interval "
        f"{tables.points(verdict.low)} to {tables.points(verdict.high)} "
        f"over {verdict.people:,} people; by seed {by_seed}."
    )


def _count(number: int, noun: str) -> str:
    word = _COUNTS[number] if number < len(_COUNTS) else str(number)
    return f"{word} {noun}{'' if number == 1 else 's'}"


def _images(folder: Path) -> dict[str, tuple[str, str]]:
    """Return each figure as a data URI with the text that stands for it."""
    stands_for = {
        "recall": "Bars of accuracy by split and tuning; the table below holds the numbers.",
        "recall_by_relation": _relation_text(folder / "recall_by_relation.parquet"),
        "loss": _loss_text(folder / "loss.parquet"),
    }
    return {name: (_data_uri(folder / f"{name}.svg"), text) for name, text in stands_for.items()}


def _data_uri(path: Path) -> str:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise FactRecallError(
            str(path), "there is no such figure", "run the workflow again; it will be drawn anew"
        ) from None
    return f"data:image/svg+xml;base64,{base64.b64encode(content).decode('ascii')}"


def _relation_text(path: Path) -> str:
    table = read_table(path, RELATION_DATA)
    lines = []
    for (source, tuning), rows in table.groupby(["source", "tuning"], sort=False):
        values = ", ".join(
            f"{RELATION_LABELS.get(r.relation, r.relation)} {tables.percent(r.accuracy)}"
            for r in rows.itertuples()
        )
        where = "the paper" if source == "paper" else "this study"
        lines.append(f"{TUNING_LABELS[tuning]} ({where}): {values}")
    return f"Heat map of QA out in per cent. {'. '.join(lines)}."


def _loss_text(path: Path) -> str:
    last = read_table(path, LOSS_DATA).groupby(["tuning", "kind", "seed"], sort=False).last()
    final = last.groupby(["tuning", "kind"], sort=False)["loss"].mean()
    names = {"bio": "biographies", "qa": "questions"}
    values = (f"{TUNING_LABELS[t]}, {names[k]}: {loss:.3g}" for (t, k), loss in final.items())
    return f"Loss curves. Mean loss at the end of training: {'; '.join(values)}."


def _traced(files: ModelFiles, seed: int, influence: str) -> tuple[int | None, tables.Table | None]:
    size = None
    gatherings: dict[str, list[Gathering]] = {}
    for tuning in FINE_TUNED:
        if (path := files.traces.get((tuning, seed))) is not None:
            size, gatherings[tuning] = read_gatherings(path, influence)
    return size, tables.gathering_table(gatherings) if gatherings else None


def _examples(
    models: Sequence[ModelFiles], study: Mapping[str, Any], facts: FactFiles, seed: int
) -> dict[str, Any]:
    from factrecall.config import Trace
    from factrecall.training.finetune import traced_individuals

    individuals, bio, qa = facts.read()
    traced = traced_individuals(individuals, Trace.model_validate(study["trace"]), study["seed"])
    answers = {
        (f"{m.name}: " if len(models) > 1 else "") + TUNING_LABELS[tuning]: path
        for m in models
        for tuning in FINE_TUNED
        if (path := m.per_example.get((tuning, seed))) is not None
    }
    counts = individuals["split"].value_counts()
    return {
        "people": choose_people(individuals, bio, qa, traced, answers),
        "answer_heads": list(answers),
        "people_in": int(counts.get("in", 0)),
        "people_out": int(counts.get("out", 0)),
    }


def _yaml(study: Mapping[str, Any]) -> str:
    import yaml

    # Through JSON: YAML would write a section that is used twice as a reference to the first.
    plain = json.loads(json.dumps(study))
    text: str = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)
    return text
