"""The configuration described: as JSON Schema, as a page, and value by value for messages.

All three come from the types and docstrings of the sections of `Study`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

from factrecall.config.model import COMMIT, REPOSITORY
from factrecall.config.section import NAME
from factrecall.config.study import Study

Schema = dict[str, Any]

_PATTERNS = {
    NAME: "a name of up to 64 letters, digits, dots, dashes and underscores that begins with a "
    "letter or digit",
    REPOSITORY: "the name of a repository as on the hub, e.g. EleutherAI/pythia-2.8b",
    COMMIT: "the 40 hexadecimal digits of a commit",
}
_TYPES = {
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "null": "null",
}
_BOUNDS = {
    "minimum": "at least",
    "exclusiveMinimum": "above",
    "maximum": "at most",
    "exclusiveMaximum": "below",
}

_INTRODUCTION = """\
# Configuration

A study is one YAML file. `config.yaml` is the default, `workflow/presets/` holds others;
`snakemake --configfile FILE...` takes yours. Of several files, later ones win key by key, and
`--config name=trial` wins over all.

A model's `training` needs only what differs from the recipes of the section `training`:

```yaml
training:
  bio: {updates: 900, batch_size: 48, learning_rate: 3.0e-3}
  ...
models:
  small: {source: scratch, ...}
  large:
    source: hub
    repository: EleutherAI/pythia-2.8b
    training: {bio: {updates: 13981}}   # all else as above
```

All mistakes are reported together before any job starts. Some of YAML's own traps: `1e-4` is
text, write `1.0e-4`; `yes`, `no`, `on` and `off` are true and false; a key given twice is refused.

Changing a value reruns the stages that read it and those behind them, and nothing else.

*This page is made by `python -m factrecall.config.schema`, from the sections in
`src/factrecall/config/` and `src/factrecall/experiments/*/settings.py`.*
"""


def study_schema() -> Schema:
    """Return the JSON Schema of a configuration file.

    It is that of `Study`, but for the training of a model, which a file gives in part only.
    """
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **deepcopy(_raw())}
    definitions = schema["$defs"]
    for name in ("Recipe", "Recipes"):
        partial = deepcopy(definitions[name])
        del partial["required"]
        partial["description"] = f"Any of the keys of {name}."
        for key in partial["properties"].values():
            key.pop("default", None)
            if "$ref" in key:
                key["$ref"] = "#/$defs/PartialRecipe"
        definitions[f"Partial{name}"] = partial
    for name in ("Scratch", "Hub", "Folder", "Gguf"):
        definitions[name]["properties"]["training"]["$ref"] = "#/$defs/PartialRecipes"
        definitions[name]["required"].remove("training")
    return schema


@cache
def _raw() -> Schema:
    def untitled(node: Schema) -> Schema:
        # A title is text that repeats the key; a mapping of that name would be a key of its own.
        return {k: v for k, v in node.items() if not (k == "title" and isinstance(v, str))}

    schema: Schema = json.loads(json.dumps(Study.model_json_schema()), object_hook=untitled)
    return schema


def describe(path: Sequence[str | int], raw: Any) -> Schema:
    """Return the schema at a path of `raw`, the configuration; {} where none is known."""
    return _resolve(*_follow(path, raw))


def union(path: Sequence[str | int], raw: Any) -> tuple[str, frozenset[str]] | None:
    """Return the key that names the kind of the section at `path`, and all kinds.

    None where there is but one kind.
    """
    discriminator = _follow(path, raw)[0].get("discriminator")
    return discriminator and (discriminator["propertyName"], frozenset(discriminator["mapping"]))


def _follow(path: Sequence[str | int], raw: Any) -> tuple[Schema, Any]:
    """Return the schema at `path`, its kind left open, and the value."""
    node: Schema = _raw()
    for part in path:
        node = _resolve(node, raw)
        if isinstance(part, int) and node.get("type") == "array":
            items = node.get("prefixItems") or [node.get("items", {})]
            node = items[min(part, len(items) - 1)]
            raw = raw[part] if isinstance(raw, list) and part < len(raw) else None
        else:
            rest: Schema = next(iter(node.get("patternProperties", {}).values()), {})
            node = node.get("properties", {}).get(part, rest)
            raw = raw.get(part) if isinstance(raw, Mapping) else None
    return node, raw


def _resolve(node: Schema, raw: Any) -> Schema:
    if kinds := node.get("discriminator", {}).get("mapping"):
        key = node["discriminator"]["propertyName"]
        kind = raw.get(key) if isinstance(raw, Mapping) else None
        if isinstance(kind, str) and kind in kinds:
            return _resolve({"$ref": kinds[kind]}, raw)
        either = {"enum": list(kinds), "description": "The kind of the section."}
        return {**node, "properties": {key: either}}
    if isinstance(raw, Mapping):  # of a section that may be null
        for kind in node.get("anyOf", ()):
            if "$ref" in kind:
                return _resolve(kind, raw)
    if reference := node.get("$ref"):
        return {**_raw()["$defs"][_name(reference)], **node}
    return node


def _name(reference: str) -> str:
    return reference.rpartition("/")[2]


def keys(node: Schema | None = None, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the path of every key outside `models`."""
    for key, child in (
        _resolve(_raw() if node is None else node, None).get("properties", {}).items()
    ):
        yield (*path, key)
        yield from keys(child, (*path, key))


def expected(node: Schema) -> str:
    """Say in words which values a schema allows."""
    if "const" in node:
        return str(node["const"])
    if "enum" in node:
        return "one of " + ", ".join(map(str, node["enum"]))
    if "anyOf" in node:
        return ", or ".join(expected(kind) for kind in node["anyOf"])
    if "discriminator" in node:
        key = node["discriminator"]["propertyName"]
        return f"a section with {key}: " + ", ".join(node["discriminator"]["mapping"])
    kind = node.get("type")
    if kind in _TYPES:
        return _TYPES[kind] + _bounds(node)
    if kind == "array":
        items = node.get("prefixItems") or [node["items"]]
        count = f"{len(items)}" if "prefixItems" in node else "one or more"
        return f"a list of {count}, each {expected(items[0])}"
    if kind == "string":
        path = "a path" if node.get("format") == "path" else "text"
        return _PATTERNS.get(node.get("pattern", ""), path)
    return "a section" + (" of named models" if "patternProperties" in node else "")


def _bounds(node: Schema) -> str:
    if "minimum" in node and "maximum" in node:
        return f" from {node['minimum']:g} to {node['maximum']:g}"
    bounds = [f"{word} {node[key]:g}" for key, word in _BOUNDS.items() if key in node]
    return " " + " and ".join(bounds) if bounds else ""


def configuration_page() -> str:
    """Return the text of docs/configuration.md: a table of keys for each section."""
    places: dict[str, list[str]] = {}
    for name, place in _sections(_raw(), ""):
        places.setdefault(name, []).append(place)
    parts = [_INTRODUCTION, *_table("The study", _raw())]
    for name, where in places.items():
        parts += _table(", ".join(where), _raw()["$defs"][name])
    return "".join(parts)


def _sections(node: Schema, path: str) -> Iterator[tuple[str, str]]:
    """Yield name and heading of every section below a node; recipes of a model are those above."""
    for key, child in node["properties"].items():
        place = f"{path}{key}"
        if "patternProperties" in child:
            child, place = child["patternProperties"][NAME], f"{place}.<name>"
        kinds = child.get("discriminator", {})
        found = [
            (f" with `{kinds['propertyName']}: {kind}`", reference)
            for kind, reference in kinds.get("mapping", {}).items()
        ] or [("", c["$ref"]) for c in child.get("anyOf", [child]) if "$ref" in c]
        for kind, reference in found:
            name = _name(reference)
            if name != "Recipes":
                yield name, f"`{place}`{kind}"
                yield from _sections(_raw()["$defs"][name], f"{place}.")


def _table(heading: str, node: Schema) -> Iterator[str]:
    yield f"\n## {heading}\n\n{node['description']}\n\n"
    yield "| key | value | default | meaning |\n|---|---|---|---|\n"
    for key, child in node["properties"].items():
        child = _resolve(child, None)
        default = "as shared" if key == "training" and "source" in node["properties"] else "—"
        if key not in node.get("required", ()):
            default = "see below" if "properties" in child else f"`{to_yaml(child['default'])}`"
        cells = (f"`{key}`", expected(child), default, child["description"])
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def to_yaml(value: object) -> str:
    """Write a plain value as YAML would read it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(to_yaml, value)) + "]"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value).replace("nan", ".nan").replace("inf", ".inf")
    return str(value)


if __name__ == "__main__":  # from the root of the repository
    text = json.dumps(study_schema(), indent=2, ensure_ascii=False) + "\n"
    Path("workflow/schema/study.schema.json").write_text(text, encoding="utf-8")
    Path("docs/configuration.md").write_text(configuration_page(), encoding="utf-8")
