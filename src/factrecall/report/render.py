"""From a declared section and one model's measures to what the page shows."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from factrecall.report.plots import Figure
from factrecall.report.section import Caveats, Section, Text
from factrecall.runtime.errors import FactRecallError

if TYPE_CHECKING:
    from jinja2 import Environment


class Shown(NamedTuple):
    """A section as the template shows it; `parts` are pairs of a kind and what is shown."""

    name: str
    title: str
    parts: list[tuple[str, Any]]


@cache
def environment() -> Environment:
    """Return the template engine: it escapes all values, and none may be missing."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def show_section(section: Section, measures: Any, figures: Path, study: Mapping[str, Any]) -> Shown:
    """Fill in a section's templates, and put its drawn figures and its tables in place.

    Parameters
    ----------
    section : Section
        As declared.
    measures : Any
        Of one model.
    figures : Path
        The folder that the model's figures were drawn into.
    study : mapping
        The resolved configuration.
    """
    from markupsafe import Markup

    def fill(text: str, scope: Mapping[str, Any]) -> Markup:
        names = {"m": measures, "study": study, **scope}
        return Markup(environment().from_string(text).render(**names))

    parts: list[tuple[str, Any]] = []
    for part in section.body:
        if isinstance(part, Text):
            if part.when(measures):
                parts.append(("text", fill(part.html, part.scope)))
        elif isinstance(part, Caveats):
            parts.append(("caveats", part.said(measures)))
        elif isinstance(part, Figure):
            if not part.when(measures):
                continue
            alt = part.alt(measures) if callable(part.alt) else part.alt
            image = (data_uri(figures / f"{part.name}.svg"), alt)
            parts.append(("figure", {"image": image, "caption": fill(part.caption, part.scope)}))
        else:
            view = part.view(measures)
            if any(rows for _, rows in view.groups):
                parts.append(("table", {"view": view, "wide": part.wide}))
    return Shown(section.name, section.title, parts)


def data_uri(path: Path) -> str:
    """Return a figure as an address that holds it.

    Raises
    ------
    FactRecallError
        When there is no such figure.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise FactRecallError(
            str(path), "there is no such figure", "run the workflow again; it will be drawn anew"
        ) from None
    return f"data:image/svg+xml;base64,{base64.b64encode(content).decode('ascii')}"
