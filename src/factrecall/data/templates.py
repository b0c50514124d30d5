"""Templates: the sentences and questions of facts, read from YAML and checked.

A template is one sentence with placeholders. It ends with the attribute and a full stop, so that
the text before the attribute is a prompt for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from string import Formatter
from typing import Any

import yaml

from factrecall.runtime.errors import FactRecallError
from factrecall.vocabulary import RELATIONS

FIRST_MENTIONS = frozenset({"subject", "possessive"})
LATER_MENTIONS = frozenset({"they", "them", "their"})
PLACEHOLDERS = FIRST_MENTIONS | LATER_MENTIONS | {"a", "attribute"}

_FORM = "see the packaged src/factrecall/data/templates.yaml for the form"


@dataclass(frozen=True)
class Templates:
    """The sentence templates and the one question of each relation."""

    sentences: Mapping[str, tuple[str, ...]]
    questions: Mapping[str, str]


@cache
def pieces(template: str) -> tuple[tuple[str, str | None], ...]:
    """Split a template into (text, placeholder) pairs; the last placeholder may be None.

    Raises
    ------
    ValueError
        When a brace has no partner or a placeholder is not a plain name.
    """
    split = []
    for literal, field, form, conversion in Formatter().parse(template):
        if form or conversion:
            raise ValueError(f"the placeholder {{{field}}} must be a plain name")
        split.append((literal, field))
    return tuple(split)


def load_templates(path: Path | None = None) -> Templates:
    """Return the templates of `path`, or the packaged ones."""
    if path is not None:
        return read_templates(path)
    packaged = resources.files("factrecall.data") / "templates.yaml"
    return _parse(packaged.read_text(encoding="utf-8"), "data/templates.yaml")


def read_templates(path: Path) -> Templates:
    """Read and check own templates.

    Parameters
    ----------
    path : Path
        A YAML file with the keys `questions` (relation: text with ``{name}``) and `sentences`
        (relation: list of templates), in the form of the packaged file.

    Raises
    ------
    FactRecallError
        Naming the file, the relation and the number of the template that is wrong.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FactRecallError(
            f"facts.templates: {path}",
            f"the file cannot be read ({error})",
            "give the path of a readable UTF-8 YAML file",
        ) from error
    return _parse(text, str(path))


def _parse(text: str, source: str) -> Templates:
    where = f"facts.templates: {source}"
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise FactRecallError(where, f"the file is no valid YAML ({error})", _FORM) from error
    if not isinstance(content, dict) or set(content) != {"questions", "sentences"}:
        raise FactRecallError(where, "the keys must be exactly questions and sentences", _FORM)
    questions = _section(content, "questions", where)
    sentences = _section(content, "sentences", where)
    for relation in RELATIONS:
        _check_question(questions[relation], f"{where}, question of {relation}")
        _check_sentences(sentences[relation], f"{where}, {relation}")
    return Templates(
        {relation: tuple(sentences[relation]) for relation in RELATIONS},
        {relation: questions[relation] for relation in RELATIONS},
    )


def _section(content: dict[str, Any], name: str, where: str) -> dict[str, Any]:
    section = content[name]
    if not isinstance(section, dict) or set(section) != set(RELATIONS):
        found = ", ".join(map(str, section)) if isinstance(section, dict) else "no mapping"
        raise FactRecallError(
            f"{where}, {name}",
            f"it must hold exactly the relations {', '.join(RELATIONS)}; found: {found}",
            _FORM,
        )
    return section


def _check_question(question: Any, where: str) -> None:
    _check_text(question, where)
    if [field for _, field in _split(question, where) if field is not None] != ["name"]:
        raise FactRecallError(
            where, "it must hold {name} once and no other placeholder", f"mend {question!r}"
        )


def _check_sentences(templates: Any, where: str) -> None:
    if not isinstance(templates, list) or not templates:
        raise FactRecallError(where, "it must be a list of at least one template", _FORM)
    for number, template in enumerate(templates, start=1):
        place = f"{where}, template {number}"
        _check_text(template, place)
        fields = [field for _, field in _split(template, place) if field is not None]
        remedy = f"mend {template!r}"
        unknown = sorted(set(fields) - PLACEHOLDERS)
        if unknown:
            known = ", ".join(f"{{{field}}}" for field in sorted(PLACEHOLDERS))
            raise FactRecallError(
                place, f"unknown placeholder {{{unknown[0]}}}; known are {known}", remedy
            )
        if not template.endswith("{attribute}.") or fields.count("attribute") != 1:
            raise FactRecallError(
                place, "{attribute} must occur once, and end it as '{attribute}.'", remedy
            )
        mentions = [field for field in fields if field in FIRST_MENTIONS | LATER_MENTIONS]
        if sum(field in FIRST_MENTIONS for field in mentions) != 1:
            raise FactRecallError(
                place, "exactly one of {subject} and {possessive} must occur, once", remedy
            )
        if mentions[0] not in FIRST_MENTIONS:
            raise FactRecallError(
                place, f"{{{mentions[0]}}} must come after the first mention", remedy
            )
        if template in templates[: number - 1]:
            raise FactRecallError(place, "it repeats an earlier template", "leave one out")


def _check_text(text: Any, where: str) -> None:
    if not isinstance(text, str):
        raise FactRecallError(where, f"it must be text, not {text!r}", "put it in double quotes")
    if text != " ".join(text.split()) or not text.isprintable():
        raise FactRecallError(
            where,
            "it must be one line without outer or double spaces and control characters",
            f"mend {text!r}",
        )


def _split(text: str, where: str) -> tuple[tuple[str, str | None], ...]:
    try:
        return pieces(text)
    except ValueError as error:
        raise FactRecallError(where, f"bad braces ({error})", f"mend {text!r}") from error
