"""Tables of gradient similarity: that of one training history, and that of a study."""

from __future__ import annotations

KINDS = ("matched", "person", "relation")

GRADIENTS = {
    "phase": "string",
    "share": "float64",
    "split": "string",
    "individual": "int32",
    **dict.fromkeys(("relation", "group", "kind"), "string"),
    "cosine": "float64",
}
"""Columns of one training history's table: a row a moment, fact, group of parameters and kind.

- `phase`, `share`: the tuning, and which part of it is over
- `group`: "all"; "S"; "gamma" (the chosen mask); "random" (as many of each tensor as S has, from
  anywhere); "rest" (in neither S nor γ); "layer 0" and so on; "embeddings" (all outside the layers)
- `kind`: whose question the fact's statement is compared with. "matched": its own. "person": those
  on the same relation of the other people of its split whose attribute is another, the mean.
  "relation": those on the other relations of its person, the mean.
- `cosine`: NaN where a gradient is zero or no question is left
"""

GRADIENT_SUMMARY = {
    "model": "string",
    "tuning": "string",
    "seed": "int32",
    "phase": "string",
    "share": "float64",
    **dict.fromkeys(("split", "group", "kind"), "string"),
    **dict.fromkeys(("cosine", "low", "high"), "float64"),
    "facts": "int32",
}
"""Columns of ``tables/gradients.parquet``.

- `kind`: as in ``GRADIENTS``, or "matched - person" or "matched - relation" for the mean difference
  within facts
- `group`: as in ``GRADIENTS``, or "S - random" or "S - rest" for the mean difference within facts
- `cosine`: the mean of the people's means, over the `facts` that have one
- `low`, `high`: its 95 % percentile bootstrap interval over people. People are few: over five of
  them it is rough, and narrower than it should be. NaN where a sample of people may have none.
- `seed`: -1 for all together, where a person's facts of all seeds are drawn together
"""
