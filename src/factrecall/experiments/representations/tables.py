"""Tables of probes: those of one model, and those of a study."""

from __future__ import annotations

from factrecall.runs import RUN
from factrecall.vocabulary import STATE_FORMATS

ALL = "all"
"""The mean over relations."""

LABELS = ("true", "shuffled")
PROBED_SPLITS = ("held", "out")
MEASURES = ("rep", "mech", "mech_bio")
"""Δrep, Δmech, and Δmech of BIO states."""
BIO_FORMATS = tuple(name for name in STATE_FORMATS if name != "qa")

_PROBE = {"layer": "int32", "relation": "string", "trained": "string"}
PROBE_EXAMPLES = {
    **_PROBE,
    **dict.fromkeys(("tested", "labels"), "string"),
    "individual": "int32",
    "split": "string",
    "right": "bool",
}
"""Columns of one model's probed facts: a row a probe, tested format and person.

Probes of shuffled labels are tested on their own format only.
"""

FITS = {
    **_PROBE,
    "labels": "string",
    "penalty": "float64",
    **dict.fromkeys(("rows", "classes"), "int32"),
    **dict.fromkeys(("chance_held", "chance_out"), "float64"),
}
"""Columns of one model's probes.

Chance is the accuracy of the training rows' most frequent class; NaN where nobody is tested.
"""

PROBES = {
    **RUN,
    **_PROBE,
    **dict.fromkeys(("tested", "split"), "string"),
    **dict.fromkeys(("accuracy", "shuffled", "chance", "penalty"), "float64"),
    **dict.fromkeys(("rows", "classes"), "int32"),
}
"""Columns of ``tables/probes.parquet``: a row a probe and tested format and split.

`shuffled` is the accuracy of the probe of shuffled labels (NaN on other formats than its own),
`chance` that of the training rows' most frequent class. Relation ``all`` has the means of
accuracies, the sums of rows and classes, and no penalty.
"""

CONSISTENCY = {
    **RUN,
    "layer": "int32",
    **dict.fromkeys(("bio", "split", "measure"), "string"),
    "individual": "int32",
    "signed": "float64",
}
"""Columns of ``tables/consistency.parquet``: a row a person, layer, biography and measure.

`signed` is Acc(h_QA·W_QA) less Acc(h_BIO·W_QA) (``rep``) or Acc(h_QA·W_BIO) (``mech``), or
Acc(h_BIO·W_BIO) less Acc(h_BIO·W_QA) (``mech_bio``), the mean over the person's relations.
"""
