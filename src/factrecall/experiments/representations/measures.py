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
    f"{tested}, {probe}": f"{tested.upper()} states, {trained.upper()} probe"
    for tested, trained, probe in (
        ("qa", "qa", "own"), ("bio", "qa", "other"), ("qa", "bio", "other"), ("bio", "bio", "own"),
    )
}  # fmt: skip
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

    def by_pair(self) -> pd.DataFrame:
        """Return accuracies on both sides with columns `split`, `bio` and `pair` (``PAIRS``)."""
        import pandas as pd

        return pd.concat(by_pair(self.accuracies(s)).assign(split=s) for s in SIDE_LABELS)

    def difference(self, **keys: Any) -> pd.DataFrame:
        """Return the signed differences over all relations with these keys."""
        return chosen(self.rows("consistency"), relation="all", **keys)

    def drawn(self) -> pd.DataFrame:
        """Return the differences at single layers of both sides."""
        import pandas as pd

        rows = pd.concat(self.difference(split=split) for split in SIDE_LABELS)
        return rows[(rows["layer"] >= 0) & rows["tuning"].isin(COMPARED)]

    def deltas(self, **keys: Any) -> pd.DataFrame:
        """Return differences with a column `delta`, which names measure and BIO format."""
        rows = chosen(self.rows("consistency"), **keys)
        return rows.assign(delta=rows["measure"] + " " + rows["bio"])

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
