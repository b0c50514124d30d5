"""Why the configuration does not allow a value, and what to write in its place."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

import yaml

from factrecall.config.renamed import new_key, new_value
from factrecall.config.schema import Schema, describe, expected, keys, to_yaml
from factrecall.config.yamlfile import KeyPath, dotted

_BOUNDS = {
    "greater_than_equal": ("ge", "must be at least"),
    "greater_than": ("gt", "must be above"),
    "less_than_equal": ("le", "must be at most"),
    "less_than": ("lt", "must be below"),
    "too_short": ("min_length", "has too few entries, at least"),
    "too_long": ("max_length", "has too many entries, at most"),
}
_KINDS = {
    int: "a whole number",
    float: "a number with a decimal point",
    str: "text",
    list: "a list",
    dict: "a section",
}
_BOOLEANS = {"yes": True, "on": True, "true": True, "no": False, "off": False, "false": False}
_EXPONENT = re.compile(r"([-+]?)(\d*)\.?(\d*)[eE]([-+]?)(\d+)")
_BELOW = "put its keys on the lines below, indented, each as `key: value`"
_BOOLEAN_WORDS = "YAML reads yes, no, on and off as true and false, unless they are in quotes"


def explain(
    path: KeyPath, kind: str, value: object, context: Mapping[str, Any], raw: object
) -> tuple[str, str]:
    """Return why the value at a path of `raw`, the configuration, is wrong, and the remedy.

    Parameters
    ----------
    kind, context : str, mapping
        Type of pydantic's error, or "mistake" for a `ConfigIssue`, and what it adds to it.
    value : object
        The value; of a missing key, its section.
    """
    node = describe(path, raw)
    if kind == "mistake":
        return context["why"], context["remedy"]
    if kind == "missing":
        return _missing(path, node)
    if kind in ("extra_forbidden", "invalid_key"):
        return _unknown(path, raw)
    if value is None:
        return "it has no value", _fill(node)
    if kind in _BOUNDS:
        return _out_of_bounds(kind, context, value, node)
    if kind == "finite_number":
        return "it is not finite", _give(node)
    if kind == "string_pattern_mismatch":
        return f"it is not {expected(node)}", "choose a value of that form"
    if kind == "literal_error":
        return _no_choice(path, value, node)
    if isinstance(value, str) and _takes(node, "integer", "number"):
        return _text_for_number(value, node)
    return f"it is {_kind(value)}, but takes {expected(node)}", _convert(value, node)


def explain_name(value: object) -> tuple[str, str]:
    """Return why the name of a model is wrong, and the remedy."""
    if not isinstance(value, str):
        return f"the name is {_kind(value)}, not text", "put it in quotes"
    return (
        "the name cannot be that of a folder",
        "use up to 64 letters, digits, dots, dashes and underscores, first a letter or digit",
    )


def _missing(path: KeyPath, node: Schema) -> tuple[str, str]:
    if isinstance(path[-1], int):
        return "the list is too short", f"add an entry: {expected(node)}"
    meaning = f" ({node['description'].rstrip('.')})" if "description" in node else ""
    takes = f"; it takes {expected(node)}"
    if needed := node.get("required"):
        takes = f", a section with at least the keys {', '.join(needed)}"
    return f"the key is missing{meaning}", f"add it{takes}"


def _unknown(path: KeyPath, raw: object) -> tuple[str, str]:
    if name := new_key(path):
        return f"the key was renamed to {name}", f"write {dotted((*path[:-1], name))}"
    key = str(path[-1])
    known = list(describe(path[:-1], raw).get("properties", {}))
    near = get_close_matches(key, known, n=1)
    elsewhere = [dotted(other) for other in keys() if other[-1] == key]
    remedy = f"remove it; the keys here are {', '.join(known)}"
    if suggestions := [*near, *elsewhere]:
        remedy = f"did you mean {' or '.join(suggestions)}?"
    return "there is no such key", remedy


def _fill(node: Schema) -> str:
    if _takes(node, "object"):
        return f"{_BELOW}; {{}} stands for none"
    return _give(node, ", or remove the key for {}")


def _give(node: Schema, otherwise: str = " (default: {})") -> str:
    default = otherwise.format(to_yaml(node["default"])) if "default" in node else ""
    return f"give {expected(node)}{default}"


def _takes(node: Schema, *types: str) -> bool:
    return any(kind.get("type") in types for kind in node.get("anyOf", [node]))


def _out_of_bounds(
    kind: str, context: Mapping[str, Any], value: object, node: Schema
) -> tuple[str, str]:
    name, words = _BOUNDS[kind]
    why = f"{words} {context[name]:g}"
    if isinstance(value, float) and value > 1 and "anyOf" in node and _takes(node, "integer"):
        why += ": with a decimal point it is a fraction of all parameters"
        return why, f"write a count without one: {round(value)}"
    return why, _give(node)


def _no_choice(path: KeyPath, value: object, node: Schema) -> tuple[str, str]:
    if name := new_value(path, value):
        return f"the value was renamed to {name}", f"write {name}"
    if isinstance(value, bool):
        return f"it is {to_yaml(value)}: {_BOOLEAN_WORDS}", _give(node)
    choices = [str(choice) for choice in node["enum"]]
    near = get_close_matches(str(value), choices, n=1)
    remedy = f"did you mean {near[0]}?" if near else _give(node)
    return f"it is none of {', '.join(choices)}", remedy


def _text_for_number(text: str, node: Schema) -> tuple[str, str]:
    try:
        number = float(re.sub("[ ,_']", "", text))
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        return f"it is text, but takes {expected(node)}", _give(node)
    try:
        quoted = isinstance(yaml.safe_load(text), int | float)
    except yaml.YAMLError:
        quoted = False
    if quoted:
        return "it is a number in quotes, which is text", f"remove the quotes: {text}"
    why = f"YAML reads {text} as text"
    better = str(int(number)) if number.is_integer() else str(number)
    if match := _EXPONENT.fullmatch(text):
        why += ": it knows exponents only after a decimal point, and with a sign"
        if not (_takes(node, "integer") and number.is_integer()):
            sign, left, right, exponent_sign, exponent = match.groups()
            better = f"{sign}{left or 0}.{right or 0}e{exponent_sign or '+'}{exponent}"
    return why, f"write {better}"


def _convert(value: object, node: Schema) -> str:
    if _takes(node, "object") or "discriminator" in node:
        return _BELOW
    if isinstance(value, dict):
        return f"put the value after the colon, in place of a section: {expected(node)}"
    if _takes(node, "array"):
        return f"write a list: [{to_yaml(value)}]"
    if isinstance(value, list):
        return "give a single value, without brackets and dashes"
    if isinstance(value, bool):
        return f"{_BOOLEAN_WORDS}; {_give(node)}"
    if _takes(node, "boolean"):
        meant = _BOOLEANS.get(str(value).lower(), "true or false")
        return f"write {to_yaml(meant)}, without quotes"
    if _takes(node, "string"):
        return f'put it in quotes: "{value}"'
    if isinstance(value, float) and math.isfinite(value):
        choices = dict.fromkeys((math.floor(value), math.ceil(value)))
        return f"write {' or '.join(map(str, choices))}"
    return _give(node)


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return to_yaml(value)
    return _KINDS.get(type(value), f"a {type(value).__name__}")
