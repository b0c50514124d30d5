"""The tables of a model's attention case study."""

CASE = {
    "tuning": "string",
    "layer": "int32",
    "head": "int32",
    "shared": "int64",
    "shared_rank": "int32",
    "individual": "int32",
    "relation": "string",
    "answer": "string",
    "right": "bool",
}
"""A row a tuning: the head, the fact, and whether that grafted model recalls it.

`shared` counts the members of S in the head's output projection; `shared_rank` ranks it among all
output projections of that tuning.
"""

TOKENS = {"format": "string", "token": "int32", "text": "string", "role": "string"}
"""A row a token of the fact's prompts; for `role` see `prompts.ROLES`."""

ATTENTION = {
    "tuning": "string",
    "format": "string",
    "query": "int32",
    "key": "int32",
    "weight": "float32",
}
"""A row a pair of tokens: the head's attention pattern."""

LENS = {
    "tuning": "string",
    "format": "string",
    "rank": "int32",
    "text": "string",
    "logit": "float32",
    "role": "string",
}
"""A row a token: the logit lens of the head's output at the last token.

The likeliest tokens and, whatever their rank, the first token of the answer (`role` answer) and
those of the name (subject); `role` of the others is empty.
"""

ROLES_ATTENDED = {
    "tuning": "string",
    "format": "string",
    "individual": "int32",
    "relation": "string",
    "right": "bool",
    "role": "string",
    "weight": "float32",
}
"""A row a fact, format and role: the last token's attention to all tokens of the role.

`right` says whether that grafted model answers the question correctly.
"""

TOP = 10
"""How many tokens of the logit lens are kept."""

FORMATS = {"bio": "statement", "qa": "question"}
"""Formats of a prompt, and what a reader is shown."""

SHOWN = 32
"""How many tokens of a prompt the figure of the attention pattern shows."""
