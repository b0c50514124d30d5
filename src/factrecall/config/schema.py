"""The configuration described: as JSON Schema, as a page, and value by value for messages.

All three come from the types and texts in `factrecall.config`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from functools import cache
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

*This page is made from `src/factrecall/config/` by `python -m factrecall.config.schema`.*
"""

_SECTIONS = (
    ("The study", "Study"),
    ("`facts`", "Facts"),
    ("`facts.pools`", "PoolSizes"),
    ("`training`", "TrainingSettings"),
    ("`training.mode`", "ExecutionSettings"),
    ("`training.bio`, `training.stage`, `training.mix`, `models.<name>.pretrain`", "Recipe"),
    ("`models.<name>` with `source: scratch`", "Scratch"),
    ("`models.<name>` with `source: hub`", "Hub"),
    ("`models.<name>` with `source: folder`", "Folder"),
    ("`trace`", "TraceSettings"),
    ("`shared`", "SharedSettings"),
    ("`grafting`", "GraftingSettings"),
    ("`grafting.optimiser` with `method: dual_averaging`", "DualAveraging"),
    ("`grafting.optimiser` with `method: sigmoid_sgd`", "SigmoidSGD"),
    ("`circuits`", "CircuitSettings"),
    ("`circuits.attention`, `circuits.column`, `circuits.unit`", "NodesPerStep"),
    ("`circuits.steps` with `method: all`", "AllSteps"),
    ("`circuits.steps` with `method: adaptive`", "AdaptiveSteps"),
    ("`circuits.case`", "CaseStudySettings"),
    ("`representations`", "RepresentationSettings"),
    ("`representations.probes`", "ProbeSettings"),
    ("`representations.gradient_similarity`", "GradientSimilaritySettings"),
    ("`representations.attribution`", "AttributionSettings"),
    ("`representations.patching`", "PatchingSettings"),
    ("`recall`", "RecallSettings"),
    ("`compute`", "ComputeSettings"),
)


def study_schema() -> Schema:
    """Return the JSON Schema of a configuration file.

    It is that of `Study`, but for the training of a model, which a file gives in part only.
    """
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **_untitled(_raw())}
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
    for name in ("Scratch", "Hub", "Folder"):
        definitions[name]["properties"]["training"]["$ref"] = "#/$defs/PartialRecipes"
        definitions[name]["required"].remove("training")
    return schema


@cache
def _raw() -> Schema:
    return Study.model_json_schema()


def _untitled(node: Any) -> Any:
    """Copy a schema without the titles, which only repeat the keys."""
    if isinstance(node, list):
        return [_untitled(item) for item in node]
    if not isinstance(node, dict):
        return node
    # A title is text; a mapping of that name would be a key of the configuration.
    return {
        key: _untitled(value)
        for key, value in node.items()
        if not (key == "title" and isinstance(value, str))
    }


def describe(path: Sequence[str | int], raw: Any) -> Schema:
    """Return the schema of the value at `path`, {} where none is known.

    Parameters
    ----------
    path : sequence of str and int
        Keys and positions, from the top.
    raw : object
        The configuration; says of which kind a section is.
    """
    return _resolve(*_follow(path, raw))


def union(path: Sequence[str | int], raw: Any) -> tuple[str, frozenset[str]] | None:
    """Return the key that tells of which kind the section at `path` is, and all kinds.

    None where there is but one kind.
    """
    node, _ = _follow(path, raw)
    if discriminator := node.get("discriminator"):
        return discriminator["propertyName"], frozenset(discriminator["mapping"])
    return None


def _follow(path: Sequence[str | int], raw: Any) -> tuple[Schema, Any]:
    """Return the schema at `path`, of which kind it is left open, and the value."""
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
        chosen = kinds.get(kind) if isinstance(kind, str) else None
        if chosen:
            return _resolve({"$ref": chosen}, raw)
        either = {"enum": list(kinds), "description": "Of which kind it is."}
        return {**node, "properties": {key: either}}
    if isinstance(raw, Mapping):  # of a section that may be null
        for kind in node.get("anyOf", ()):
            if "$ref" in kind:
                return _resolve(kind, raw)
    if reference := node.get("$ref"):
        return {**_raw()["$defs"][reference.rpartition("/")[2]], **node}
    return node


def keys() -> Iterator[tuple[str, ...]]:
    """Yield the path of every key outside `models`."""
    yield from _keys(_raw(), ())


def _keys(node: Schema, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for key, child in _resolve(node, None).get("properties", {}).items():
        yield (*path, key)
        yield from _keys(child, (*path, key))


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
    match node.get("type"):
        case "integer":
            return "a whole number" + _bounds(node)
        case "number":
            return "a number" + _bounds(node)
        case "boolean":
            return "true or false"
        case "null":
            return "null"
        case "array":
            items = node.get("prefixItems") or [node["items"]]
            count = f"{len(items)}" if "prefixItems" in node else "one or more"
            return f"a list of {count}, each {expected(items[0])}"
        case "string":
            path = "a path" if node.get("format") == "path" else "text"
            return _PATTERNS.get(node.get("pattern", ""), path)
    return "a section" + (" of named models" if "patternProperties" in node else "")


def _bounds(node: Schema) -> str:
    if "minimum" in node and "maximum" in node:
        return f" from {node['minimum']:g} to {node['maximum']:g}"
    words = {
        "minimum": "at least",
        "exclusiveMinimum": "above",
        "maximum": "at most",
        "exclusiveMaximum": "below",
    }
    bounds = [f"{word} {node[key]:g}" for key, word in words.items() if key in node]
    return " " + " and ".join(bounds) if bounds else ""


def configuration_page() -> str:
    """Return the text of docs/configuration.md: a table of keys for each section."""
    parts = [_INTRODUCTION]
    for heading, name in _SECTIONS:
        node = _raw() if name == "Study" else _raw()["$defs"][name]
        parts.append(f"\n## {heading}\n\n{node['description']}\n\n")
        parts.append("| key | value | default | meaning |\n|---|---|---|---|\n")
        parts.extend(_rows(node))
    return "".join(parts)


def _rows(node: Schema) -> Iterator[str]:
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


def main() -> None:
    """Write the schema and the page; run it from the root of the repository."""
    import json
    from pathlib import Path

    text = json.dumps(study_schema(), indent=2, ensure_ascii=False) + "\n"
    Path("workflow/schema/study.schema.json").write_text(text, encoding="utf-8")
    Path("docs/configuration.md").write_text(configuration_page(), encoding="utf-8")


if __name__ == "__main__":
    main()
