"""One model's probes as the report condenses them; missing rows leave numbers unknown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from factrecall.experiments.common.estimates import SPLIT, chosen
from factrecall.report.marks import FEW_PLACES
from factrecall.report.section import Source
from factrecall.vocabulary import COMPARED

if TYPE_CHECKING:
    import pandas as pd

SIDE_LABELS = {"out": "facts out", "held": "facts in"}
WHOM = {"out": "facts out", "held": "facts in, of people held out from the probes"}
"""On whom probes are judged: the short paper does not say, and the two may differ."""

BIO_LABELS = {"bio_long": "BIO long", "bio_short": "BIO short"}
DELTAS = {"rep": "Δrep", "mech": "Δmech", "mech_bio": "Δmech of BIO states"}
"""The last is the one that the paper's text has a number for (see `probe_summary`)."""

PAIRS = {
    "qa, own": "QA states, QA probe",
    "bio, other": "BIO states, QA probe",
    "qa, other": "QA states, BIO probe",
    "bio, own": "BIO states, BIO probe",
}
"""States and probes, by whether the probe is of the states' format."""


class Probes(Source):
    """One model's probes."""

    def accuracies(self, split: str = SPLIT) -> pd.DataFrame:
        """Return accuracies over all relations, condensed over seeds.

        Columns tuning, trained, tested, layer, mean, low, high (of seeds), shuffled, chance.
        """
        rows = chosen(self.rows("probes"), relation="all", split=split)
        keys = ["tuning", "trained", "tested", "layer"]
        table = rows[rows["layer"] >= 0].groupby(keys, sort=False).agg(
            mean=("accuracy", "mean"), low=("accuracy", "min"), high=("accuracy", "max"),
            shuffled=("shuffled", "mean"), chance=("chance", "mean"),
        )  # fmt: skip
        return table.reset_index()

    def own(self, tuning: str, form: str) -> tuple[float, float]:
        """Return the mean accuracy of a format's own probes, and that of chance, for facts out."""
        rows = chosen(self.accuracies(), tuning=tuning, trained=form, tested=form)
        return float(rows["mean"].mean()), float(rows["chance"].mean())

    def by_pair(self) -> pd.DataFrame:
        """Return accuracies on both sides with columns `split`, `bio` and `pair` (``PAIRS``)."""
        import pandas as pd

        return pd.concat(by_pair(self.accuracies(s)).assign(split=s) for s in SIDE_LABELS)

    def deltas(self, **keys: Any) -> pd.DataFrame:
        """Return differences with a column `delta`, which names measure and BIO format."""
        rows = chosen(self.rows("consistency"), **keys)
        return rows.assign(delta=rows["measure"] + " " + rows["bio"])

    def drawn(self) -> pd.DataFrame:
        """Return the differences at single layers of both sides, over all relations."""
        rows = self.deltas(relation="all")
        rows = rows[(rows["layer"] >= 0) & rows["tuning"].isin(COMPARED)]
        # Facts out first, as they are shown.
        return rows.sort_values("split", key=lambda split: split != SPLIT, kind="stable")

    @property
    def points(self) -> bool:
        """Whether so few layers are probed that they are drawn as points."""
        return bool(self.rows("probes")["layer"].nunique() <= FEW_PLACES)


def by_pair(data: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of each panel: QA and one BIO format, with the format of the states."""
    import pandas as pd

    parts = []
    for bio in BIO_LABELS:
        rows = data[data["trained"].isin(("qa", bio)) & data["tested"].isin(("qa", bio))]
        own = (rows["trained"] == rows["tested"]).map({True: "own", False: "other"})
        states = rows["tested"].replace(bio, "bio")
        parts.append(rows.assign(bio=bio, states=states, probe=own, pair=states + ", " + own))
    return pd.concat(parts)
