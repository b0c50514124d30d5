"""The report: one HTML file that opens anywhere, with nothing beside it.

Style and figures are inside the file, there is no script, and a content security policy forbids
the browser to fetch anything. All text from the study is escaped by the template engine.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from factrecall.experiments.recall.examples import choose_people
from factrecall.experiments.recall.loss_figure import POINTS
from factrecall.experiments.recall.verdict import RULE
from factrecall.experiments.shared_parameters.top_tensors import TOP
from factrecall.report import tables
from factrecall.report.claim import RULE as CLAIMS_RULE
from factrecall.report.deviations import deviations
from factrecall.report.measures import TableFiles
from factrecall.report.render import environment
from factrecall.report.sections import PARTIALS
from factrecall.report.shown import ModelFiles, count, show, traced_table
from factrecall.report.style import TUNING_LABELS
from factrecall.runtime.statistics import DRAWS
from factrecall.runtime.storage import write_text
from factrecall.vocabulary import TUNINGS

if TYPE_CHECKING:
    from factrecall.data.files import FactFiles
    from factrecall.report.timings import Timing


def write_report(
    *,
    study: Mapping[str, Any],
    provenance: Mapping[str, Any],
    models: Sequence[ModelFiles],
    table_files: TableFiles,
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
    table_files : TableFiles
        The study's tables.
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
        size, traced = traced_table(files, first_seed, study["shared"]["influence"])
        if size is not None:
            sizes[files.name] = size
        shown.append(show(files, study, table_files, traced))
    context = {
        "study": study,
        "seeds": count(len(study["training"]["seeds"]), "seed"),
        "first_seed": first_seed,
        "models": shown,
        "rule": RULE,
        "claims_rule": CLAIMS_RULE,
        "partials": {name.partition(".")[0]: name for name in PARTIALS},
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
    from markupsafe import Markup

    # The only text not escaped: our own style sheet.
    style = Markup(Path(__file__).with_name("page.css").read_text(encoding="utf-8"))
    return environment().get_template("page.html.j2").render(style=style, **context)


def _examples(
    models: Sequence[ModelFiles], study: Mapping[str, Any], facts: FactFiles, seed: int
) -> dict[str, Any]:
    from factrecall.config.training import TraceSettings
    from factrecall.training.fine_tuning import traced_individuals

    individuals, bio, qa = facts.read()
    traced = traced_individuals(
        individuals, TraceSettings.model_validate(study["trace"]), study["seed"]
    )
    answers = {
        (f"{m.name}: " if len(models) > 1 else "") + TUNING_LABELS[tuning]: path
        for m in models
        for tuning in TUNINGS
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
