"""Tables of attribution and of activation patching of one model."""

from __future__ import annotations

OTHER_RELATION = "another relation"
"""The wording of the sentence to complete replaced by that of another relation, same person."""

SOURCE_FACTS = ("same", "other")
"""Whose state is patched: that of the same fact, or of another person's of the same relation."""

ATTRIBUTION = {
    "split": "string",
    "individual": "int32",
    **dict.fromkeys(("relation", "format", "role"), "string"),
    "tokens": "int32",
    **dict.fromkeys(("attribution", "total", "gap", "logit", "log_probability"), "float64"),
    "right": "bool",
    **dict.fromkeys(("replaced_logit", "replaced_log_probability"), "float64"),
    **dict.fromkeys(("replaced_right", "source_answer"), "bool"),
}
"""Columns of one model's table: a row a fact, format and role (`ROLES` and ``OTHER_RELATION``).

- `attribution`: the sum over the role's `tokens`. Those of all roles add up to `total`, the logit
  of the answer's first token minus that at the beginning of the path, plus `gap`, the error of
  integration.
- `logit`, `log_probability`, `right`: of the answer's first token with the prompt as it is; right
  means that it is the likeliest.
- `replaced_…`: the same with the role replaced (see `counterfactual_prompts`).
- `source_answer`: whether the likeliest first token is then that of the answer to the replaced
  prompt, and not the fact's.

Where a role cannot be replaced, numbers are missing, `replaced_right` is `right` and
`source_answer` false: there is no such part, the prompt has no such tokens, the source's are the
same, or the text would not fit the model. ``OTHER_RELATION`` has no attribution, since its tokens
are those of the role relation.
"""

_PATCH = {
    **dict.fromkeys(("source", "target"), "string"),
    "layer": "int32",
    **dict.fromkeys(("position", "source_fact"), "string"),
}

PATCHING = {
    "split": "string",
    "individual": "int32",
    "relation": "string",
    **_PATCH,
    **dict.fromkeys(("right", "unpatched"), "bool"),
    **dict.fromkeys(("log_probability", "unpatched_log_probability"), "float64"),
    "source_answer": "bool",
}
"""Columns of one model's table: a row a fact, source and target format, layer, position and source.

- `right`: whether all of the answer is; `log_probability`: of its first token
- `unpatched`, `unpatched_log_probability`: the same without a patch
- `source_answer`: whether the likeliest first token is that of the other person's answer, and not
  the fact's; where the state is that of the same fact, how often that happens anyway

A fact has no rows of source "other" where that person's answer has the same first token: its state
is then no control.
"""
