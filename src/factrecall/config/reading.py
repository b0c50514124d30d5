"""Reading a study: files are merged and checked, and mistakes are explained in the user's terms.

A message names file and line, the dotted key, its value, the reason and the remedy. All mistakes
are reported together, so that a configuration is mended in one go.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from factrecall.config.explain import explain, explain_name
from factrecall.config.schema import to_yaml, union
from factrecall.config.study import Study
from factrecall.config.yamlfile import Document, KeyPath, dotted, merge, read_yaml
from factrecall.runtime.errors import FactRecallError

_TAGS = frozenset({"count", "fraction", "[key]"})
"""Parts of the place of an error that are no keys; the kind of a model is another."""

_ABSENT = object()


class StudyError(FactRecallError):
    """All mistakes of a configuration; where, why and remedy are those of the first."""

    def __init__(self, mistakes: Sequence[FactRecallError]) -> None:
        self.mistakes = tuple(mistakes)
        first = self.mistakes[0]
        super().__init__(first.where, first.why, first.remedy)
        self.args = ("\n".join(map(str, self.mistakes)),)


def read_study(*paths: Path | str) -> Study:
    """Read a study from YAML files, of which later ones win over earlier ones key by key.

    Raises
    ------
    StudyError
        With all mistakes found; a file that cannot be read hides those in the values.
    """
    documents = _read([Path(path) for path in paths])
    raw: dict[Any, Any] = {}
    for document in documents:
        raw = merge(raw, document.values)
    return _parse(raw, ", ".join(map(str, paths)), documents)


def parse_study(raw: Mapping[str, Any], source: str, files: Sequence[Path] = ()) -> Study:
    """Check a configuration that was merged elsewhere, for instance by Snakemake.

    Parameters
    ----------
    raw : mapping
        The configuration, as plain values.
    source : str
        Its name in messages, for values that none of the files has.
    files : sequence of Path
        Its files in the order of merging, read again for what merging loses: keys given twice, and
        the lines of mistakes.

    Raises
    ------
    StudyError
        With all mistakes found.
    """
    return _parse(raw, source, _read(files))


def _read(paths: Iterable[Path]) -> list[Document]:
    documents, mistakes = [], []
    for path in paths:
        try:
            documents.append(read_yaml(Path(path)))
        except FactRecallError as error:
            mistakes.append(error)
    if mistakes:
        raise StudyError(mistakes)
    return documents


def _parse(raw: Mapping[str, Any], source: str, documents: Sequence[Document]) -> Study:
    mistakes = [mistake for document in documents for mistake in document.mistakes]
    try:
        study = Study.model_validate(raw)
    except ValidationError as error:
        found = [(_path(e, raw), e) for e in error.errors(include_url=False)]
        places = {path for path, _ in found}
        mistakes += [
            FactRecallError(_where(path, e, raw, source, documents), *_why(path, e, raw))
            for path, e in found
            if not _inherited(path, raw, places)
        ]
        raise StudyError(mistakes) from error
    if mistakes:
        raise StudyError(mistakes)
    return study


def _path(error: ErrorDetails, raw: Any) -> KeyPath:
    path: list[str | int] = []
    below, named = raw, -1
    for part in error["loc"]:
        # Pydantic names the kind of a section, once, before the section's key.
        if named < len(path) and (kinds := union(path, raw)) and part in kinds[1]:
            named = len(path)
            continue
        if part not in _TAGS or _get(below, (part,)) is not _ABSENT:
            path.append(part)
            below = _get(below, (part,))
    if error["type"].startswith("union_tag") and (kinds := union(path, raw)):
        path.append(kinds[0])
    return tuple(path)


def _inherited(path: KeyPath, raw: Any, places: set[KeyPath]) -> bool:
    """Whether a model's mistake is that of the shared recipes, which is reported there, once."""
    if path[:1] != ("models",) or path[2:3] != ("training",) or _get(raw, path) is not _ABSENT:
        return False
    return any(path[2:end] in places for end in range(3, len(path) + 1))


def _why(path: KeyPath, error: ErrorDetails, raw: Any) -> tuple[str, str]:
    kind, value = error["type"], error["input"]
    if error["loc"][-1:] == ("[key]",):
        return explain_name(value)
    if kind.startswith("union_tag"):
        value = _get(raw, path)
        kind = "missing" if value is _ABSENT else "literal_error"
    return explain(path, kind, value, error.get("ctx", {}), raw)


def _get(raw: Any, path: KeyPath) -> Any:
    for part in path:
        if isinstance(raw, Mapping):
            raw = raw.get(part, _ABSENT)
        elif isinstance(raw, list) and isinstance(part, int) and part < len(raw):
            raw = raw[part]
        else:
            return _ABSENT
    return raw


def _where(
    path: KeyPath, error: ErrorDetails, raw: Any, source: str, documents: Sequence[Document]
) -> str:
    value, key = _get(raw, path), dotted(path)
    if value is not _ABSENT or error["type"] == "mistake":
        key += f" = {_show(error['input'] if value is _ABSENT else value)}"
    # The file that has this value, or, for a key that is not there, the section it should be in.
    best, place = -1, source
    for document in documents:
        there = _get(document.values, path)
        depth = max(end for end in range(len(path) + 1) if not end or path[:end] in document.lines)
        if (there is value or there == value) and depth >= best:
            line = document.lines.get(path[:depth])
            best, place = depth, f"{document.name}:{line}" if line else document.name
    return f"{place}: {key}" if key else place


def _show(value: object) -> str:
    if isinstance(value, Mapping):
        return "{...}" if value else "{}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_show, value[:10])) + (", ...]" if len(value) > 10 else "]")
    try:
        text = repr(value) if isinstance(value, str) else to_yaml(value)
    except ValueError:  # Python refuses to write out integers of thousands of digits
        return "a number of thousands of digits"
    return text if len(text) <= 80 else text[:77] + "..."
