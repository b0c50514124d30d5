"""``snakemake --report`` of a finished study."""

from __future__ import annotations

import base64
import json
import re
from html import unescape
from pathlib import Path

from factrecall.config.study import Study
from factrecall.experiments.sections import SECTIONS
from tests.workflow.running import PRESET, snakemake

PAGE = "results/ci/report.html"


def words(html: str) -> str:
    """Return the text of a piece of HTML."""
    return " ".join(unescape(re.sub("<[^>]*>", "", html)).split())


def test_it_has_every_figure_with_caption_category_and_labels(
    checkout: Path, results: Path, study: Study
) -> None:
    done = snakemake(checkout, "--configfile", PRESET, "--report", "snakemake.html")
    assert done.returncode == 0, done.stdout[-4000:]
    html = (checkout / "snakemake.html").read_text(encoding="utf-8")
    shown, categories = (
        json.loads(re.findall(rf'<script id="{name}">\s*var {name} = (.*);\n', html)[0])
        for name in ("results", "categories")
    )
    page = words((checkout / PAGE).read_text(encoding="utf-8"))
    assert shown.pop(PAGE)["mime_type"] == "text/html"
    assert categories.pop("Report") == {"Other": [PAGE]}
    for section in SECTIONS:
        for model in study.models:
            measures = section.measures(section.request(study, model), results)
            for figure in section.figures:
                path = f"results/ci/figures/{model}/{figure.name}.svg"
                categories[section.title][model].remove(path)
                found = shown.pop(path)
                assert found["labels"] == {"figure": figure.name.replace("_", " "), "model": model}
                assert found["job_properties"]["rule"] == "draw_figures"
                caption = words(found["caption"])
                if figure.when(measures):
                    assert caption and caption in page
                else:
                    assert caption == figure.empty
                image = base64.b64decode(found["data_uri"].split(",")[1])
                assert image == (checkout / path).read_bytes()
    # There is nothing else.
    assert not shown
    assert not [path for of in categories.values() for paths in of.values() for path in paths]
