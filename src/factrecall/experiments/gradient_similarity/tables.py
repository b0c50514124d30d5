"""Tables of gradient similarity: that of one training history, and that of a study."""

from __future__ import annotations

KINDS = ("matched", "person", "relation")

MOST = 5
"""So many people at most are compared with each other: memory does not grow with their number."""

GRADIENTS = {
    "phase": "string",
    "share": "float64",
    "split": "string",
    "traced": "bool",
    "individual": "int32",
    **dict.fromkeys(("relation", "group", "kind"), "string"),
    "cosine": "float64",
}
"""Columns of one training history's table: a row a moment, fact, group of parameters and kind.

- `phase`, `share`: the tuning, and which part of it is over
- `traced`: whether the person's gradients selected S; those who were not traced are compared at the
  end of training only
- `group`: "all"; "S"; "gamma" (the chosen mask); "random" (as many of each tensor as S has, from
  anywhere); "rest" (in neither S nor γ); "layer 0" and so on; "embeddings" (all outside the layers)
- `kind`: whose question the fact's statement is compared with. "matched": its own. "person": those
  on the same relation of the other people of its group whose attribute is another, the mean.
  "relation": those on the other relations of its person, the mean.
- `cosine`: NaN where a gradient is zero or no question is left
"""

GRADIENT_SUMMARY = {
    "model": "string",
    "tuning": "string",
    "phase": "string",
    "share": "float64",
    "split": "string",
    "traced": "bool",
    **dict.fromkeys(("group", "kind"), "string"),
    **dict.fromkeys(("cosine", "low", "high"), "float64"),
    "facts": "int32",
}
"""Columns of ``tables/gradients.parquet``: as in ``GRADIENTS``, over all seeds.

- `cosine`: the mean of the people's means, over the `facts` that have one
- `low`, `high`: its 95 % interval over people and seeds (`runtime.intervals`)
"""
