"""Captions for ``snakemake --report``, filled in as Snakemake does it."""

from __future__ import annotations

from html import unescape
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import jinja2
from docutils.core import publish_parts
from hypothesis import given
from hypothesis import strategies as st

from factrecall.config.study import Study
from factrecall.report.captions import write_captions
from factrecall.report.section import Section

MODELS = ("tiny", "tiny-2")
TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1)


def section(value: str, *, shown: bool = True) -> Section:
    """Declare a figure whose caption holds a value of the model's measures."""
    figure = SimpleNamespace(
        name="sizes",
        caption="<b>|S(k)|</b> of\n*{{ m.model }}*_\n\n- {{ study.name }}: {{ m.value }}",
        scope={},
        when=lambda m: shown,
        empty="nothing was measured",
    )

    def read(request: str, results: Path) -> SimpleNamespace:
        return SimpleNamespace(model=request, value=value)

    found: Any = SimpleNamespace(
        request=lambda study, model: model, measures=read, figures=(figure,)
    )
    return cast(Section, found)


def captions(folder: Path, part: Section) -> list[str]:
    """Return the caption of every model, as HTML."""
    study: Any = SimpleNamespace(models=MODELS, model_dump=lambda mode: {"name": "a_study"})
    write_captions([part], cast(Study, study), results=folder, out=folder)
    template = jinja2.Environment(trim_blocks=True, lstrip_blocks=True).from_string(
        (folder / "sizes.rst").read_text(encoding="utf-8")
    )
    wildcards = [SimpleNamespace(wildcards=SimpleNamespace(model=model)) for model in MODELS]
    settings = {"halt_level": 2}  # a warning is an error
    return [
        publish_parts(template.render(snakemake=one), writer="html", settings_overrides=settings)[
            "body"
        ].strip()
        for one in wildcards
    ]


@given(value=TEXT)
def test_each_model_has_its_caption_whatever_it_holds(tmp_path_factory: Any, value: str) -> None:
    found = captions(tmp_path_factory.mktemp("captions"), section(value))
    for model, caption in zip(MODELS, found, strict=True):
        assert caption.startswith("<p><b>|S(k)|</b> of *") and caption.endswith("</p>")
        said = unescape(caption).removeprefix("<p><b>|S(k)|</b> of ").removesuffix("</p>")
        assert said.split() == f"*{model}*_ - a_study: {value}".split()


def test_a_figure_that_the_page_leaves_out_says_so(tmp_path: Path) -> None:
    assert captions(tmp_path, section("", shown=False)) == ["<p>nothing was measured</p>"] * 2
