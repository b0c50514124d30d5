"""The report: one HTML file that opens anywhere, with nothing beside it.

Style and figures are inside the file, there is no script, and a content security policy forbids
the browser to fetch anything. All text from the study is escaped by the template engine.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from factrecall.report.deviations import deviations
from factrecall.report.ledger import RULE, Judged, read_claims
from factrecall.report.published import LLAMA, counterpart
from factrecall.report.render import Shown, environment, show_section
from factrecall.report.section import Section
from factrecall.report.tables import View, count, flat, run_view, shape
from factrecall.report.timings import Timing, timing_view
from factrecall.report.words import WORDS
from factrecall.runtime.storage import read_table, write_text

if TYPE_CHECKING:
    from factrecall.config.study import Study


@dataclass(frozen=True)
class Model:
    """One model as the template shows it; its first section begins with the main claim."""

    name: str
    headline: str
    counterpart: str
    claims: list[Judged]
    sections: list[Shown]


def write_page(
    sections: Sequence[Section],
    study: Study,
    *,
    results: Path,
    sizes: Mapping[str, int],
    formats: Mapping[str, str],
    examples: Mapping[str, Any],
    timings: Sequence[Timing],
    provenance: Mapping[str, Any],
    out: Path,
) -> None:
    """Write the report of a study.

    Parameters
    ----------
    sections : sequence of Section
        In the order of the page; one of them has the headline.
    study : Study
        The configuration.
    results : Path
        Its results folder, finished: with figures, and verdicts in ``tables/claims.parquet``.
    sizes : mapping of str to int
        Number of parameters of the models for which it is known.
    formats : mapping of str to str
        How weights were stored, of models that are from GGUF files.
    examples : mapping
        What the template shows of people (see `recall.examples`).
    timings : sequence of Timing
        Benchmarks of the workflow; may be empty.
    provenance : mapping
        Versions, code fingerprint, hash of the lock file; may be nested.
    out : Path
        The HTML file; replaced atomically.

    Raises
    ------
    FactRecallError
        When an input is missing, damaged or does not fit the others.
    """
    from markupsafe import Markup

    plain = study.model_dump(mode="json")
    shapes = {n: shape(model, formats.get(n)) for n, model in plain["models"].items()}
    claims = read_claims(read_table(results / "tables/claims.parquet"))
    context = {
        "study": plain,
        "seeds": _runs(study),
        "first_seed": study.training.seeds[0],
        "models": [_model(sections, study, plain, n, results, claims) for n in study.models],
        "rule": RULE,
        "words": WORDS,
        "shapes": {
            name: f"{sizes[name]:,} parameters, {kind}" if sizes.get(name) else kind
            for name, kind in shapes.items()
        },
        "run": run_view(plain, sizes, shapes),
        "timings": timing_view(timings) if timings else None,
        "configuration": _yaml(plain),
        "provenance": View("What the results were made with.", ["What", "Value"],
                           [(None, flat(provenance))]),
        "deviations": deviations(plain),
        **examples,
    }  # fmt: skip
    # The only text not escaped: our own style sheet.
    style = Markup(Path(__file__).with_name("page.css").read_text(encoding="utf-8"))
    write_text(out, environment().get_template("page.html.j2").render(style=style, **context))


def _model(
    sections: Sequence[Section],
    study: Study,
    plain: Mapping[str, Any],
    name: str,
    results: Path,
    claims: Sequence[Judged],
) -> Model:
    own = [claim for claim in claims if claim.model == name]
    shown, headline = [], ""
    for section in sections:
        with section.explained():
            measures = section.measures(section.request(study, name), results)
            shown.append(show_section(section, measures, own, results, plain))
            headline = headline or (section.headline(measures) if section.headline else "")
    return Model(name, headline, counterpart(plain["models"][name]) or LLAMA, own, shown)


def _runs(study: Study) -> str:
    """Say how often each fine-tuning was run."""
    seeds = count(len(study.training.seeds), "seed")
    if study.replicates == 1:
        return seeds
    each = f", each with {seeds}" if len(study.training.seeds) > 1 else ""
    return f"{count(study.replicates, 'replicate')}{each}"


def _yaml(study: Mapping[str, Any]) -> str:
    import yaml

    # Through JSON: YAML would write a section that is used twice as a reference to the first.
    plain = json.loads(json.dumps(study))
    text: str = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)
    return text
