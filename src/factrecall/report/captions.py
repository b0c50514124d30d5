"""The captions of figures for ``snakemake --report``, as Snakemake wants them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from factrecall.report.render import environment
from factrecall.report.section import Section
from factrecall.runtime.storage import write_text

if TYPE_CHECKING:
    from factrecall.config.study import Study

_OF_A_MODEL = """\
{{% if snakemake.wildcards.model == {model!r} %}}
.. raw:: html

   <p>{caption}</p>
{{% endif %}}
"""


def write_captions(sections: Sequence[Section], study: Study, *, results: Path, out: Path) -> None:
    """Write ``<figure>.rst`` for each figure: the caption that the page has, of every model.

    Snakemake takes one file for all models, a template that knows the wildcards of the figure.

    Parameters
    ----------
    sections : sequence of Section
        Whose figures were drawn.
    study : Study
        The configuration.
    results : Path
        Its results folder, finished.
    out : Path
        The folder to write to.
    """
    plain = study.model_dump(mode="json")
    texts: defaultdict[str, str] = defaultdict(str)
    for model in study.models:
        for section in sections:
            measures = section.measures(section.request(study, model), results)
            for figure in section.figures:
                template = figure.caption if figure.when(measures) else figure.empty
                names = {"m": measures, "study": plain, **figure.scope}
                html = environment().from_string(template).render(names)
                # On one line, and no template any more.
                caption = " ".join(html.split()).replace("{", "&#123;")
                texts[figure.name] += _OF_A_MODEL.format(model=model, caption=caption)
    for name, text in texts.items():
        write_text(out / f"{name}.rst", text)
