"""Grafting of one model: the masks looked at, and what speaks for and against them.

Any table may lack rows; what cannot be computed is then missing, not an error.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Literal

from factrecall.experiments.grafting.mask_choice import MOVEMENT, UNFITTED, WHOLE, looked_at
from factrecall.report.section import Source, in_order

if TYPE_CHECKING:
    import pandas as pd

KEYS = ["tuning", "seed", "split"]
RECOVERY = ("tuning", "split", "seed", "line", "alpha", "recovery", "chosen")
OVERLAP = ("tuning", "split", "matrix", "row", "column", "alpha", "value")


class Grafting(Source):
    """One model's masks."""

    @property
    def recovery(self) -> float:
        """The share of the fine-tuned accuracy that a chosen mask recovers."""
        return float(self.settings["recovery"])

    @property
    def grafts(self) -> pd.DataFrame:
        """All masks, fitted and not."""
        return self.rows("grafting")

    @property
    def checks(self) -> pd.DataFrame:
        """What else was measured of the masks."""
        return self.rows("grafting_checks")

    def fitted(self) -> pd.DataFrame:
        """Return the rows of fitted masks."""
        return self.grafts[~self.grafts["method"].isin(UNFITTED)]

    @cached_property
    def masks(self) -> pd.DataFrame:
        """One row a tuning, seed and split on the mask the report looks at.

        It is the chosen mask or, where none recovered enough, the one that recovered most:
        columns tuning, seed, split, chosen, alpha, size, accuracy, recovery, shared_fraction and,
        of the mask of that α without S, accuracy_without, recovery_without; `gain` is what S adds.
        """
        fitted, columns = self.fitted(), ["accuracy", "recovery"]
        without = fitted[~fitted["with_shared"].astype(bool)].set_index([*KEYS, "alpha"])[columns]
        best = looked_at(self.grafts, KEYS)
        table = best.join(without.add_suffix("_without"), on=[*KEYS, "alpha"])
        table = in_order(table.drop(columns=["with_shared", "method", "model"], errors="ignore"))
        return table.assign(gain=table["accuracy"] - table["accuracy_without"])

    @property
    def chosen(self) -> pd.DataFrame:
        """The masks that recovered enough."""
        return self.masks[self.masks["chosen"].astype(bool)]

    def sizes(self) -> pd.DataFrame:
        """Return the chosen masks; `which` names split and tuning."""
        return self.chosen.assign(which=self.chosen["split"] + " " + self.chosen["tuning"])

    def checked(self, check: str) -> pd.DataFrame:
        """Return a check's rows of the masks of `masks`: columns tuning, seed, split, other, value.

        Checks without an α (``fine_tuned`` and ``pre_trained``) are returned as they are.
        """
        rows = self.checks[self.checks["check"] == check]
        if rows["alpha"].isna().all():
            return rows
        return rows.merge(self.masks[[*KEYS, "alpha"]], on=[*KEYS, "alpha"])

    def known(self, other: Literal[0, 1]) -> pd.DataFrame:
        """Return what is right with nothing and with everything grafted, as it was measured.

        Columns tuning, seed, split, before (θpre's accuracy), whole (θtask's) and nothing (before
        over whole: what grafting nothing recovers); `other` 0 asks for the people that masks are
        fitted to, 1 for the others.
        """
        rows = self.checks[self.checks["other"] == other].set_index(KEYS)
        whole = rows[rows["check"] == "fine_tuned"]["value"].rename("whole").reset_index()
        before = rows[rows["check"] == "pre_trained"]["value"].rename("before")
        table = whole.join(before, on=KEYS)
        return table.assign(nothing=share_of(table["before"], table["whole"]))

    def others(self) -> pd.DataFrame:
        """Return how much of other people's recall the masks bring back, at every α.

        Columns tuning, seed, split, alpha, accuracy, those of `known`, recovery (accuracy over
        whole) and, of what fine-tuning added, the share that is back: `closed`.
        """
        rows = self.checks[self.checks["check"] == "others"][[*KEYS, "alpha", "value"]]
        rows = rows.rename(columns={"value": "accuracy"})
        rows = rows.join(self.known(1).set_index(KEYS), on=KEYS)
        return rows.assign(
            recovery=share_of(rows["accuracy"], rows["whole"]),
            closed=share_of(rows["accuracy"] - rows["before"], rows["whole"] - rows["before"]),
        )

    def others_of_masks(self) -> pd.DataFrame:
        """Return the rows of `others` on the masks of `masks`.

        Besides, `fitted` and `fitted_closed`: recovery and closed of the people fitted to.
        """
        masks = self.masks.join(self.known(0).set_index(KEYS), on=KEYS)
        added = masks["whole"] - masks["before"]
        masks = masks.assign(
            fitted=masks["recovery"],
            fitted_closed=share_of(masks["accuracy"] - masks["before"], added),
        )
        keys = [*KEYS, "alpha"]
        return self.others().merge(masks[[*keys, "fitted", "fitted_closed"]], on=keys)

    def nothing(self, split: str, tuning: str) -> float:
        """Return the recovery of a mask that grafts nothing: what θpre has right already.

        It is that of other people, which it is compared with, or, without any, of those fitted to.
        """
        rows = self.known(1)
        rows = rows if len(rows) else self.known(0)
        return float(rows[(rows["split"] == split) & (rows["tuning"] == tuning)]["nothing"].mean())

    def share_of_all(self) -> pd.Series:
        """Return the share in S of all that may be grafted, by tuning, seed and split."""
        every = self.grafts[self.grafts["method"] == WHOLE]
        every = every[every["with_shared"].astype(bool)]
        return every.set_index(KEYS)["shared_fraction"].rename("base")

    def lines(self) -> pd.DataFrame:
        """Return recovery by α: masks with S and without it, those not fitted, other people's."""
        rows = self.grafts[self.grafts["alpha"] < 1]
        moved = rows["method"] == MOVEMENT
        held = rows["with_shared"].astype(bool)
        parts = [
            rows[~moved & held].assign(line="with"),
            rows[~moved & ~held].assign(line="without"),
            rows[moved & held].assign(line="movement"),
            self.others().assign(line="others", chosen=False),
        ]
        return _joined(parts, RECOVERY)

    def overlaps(self) -> pd.DataFrame:
        """Return how much of one mask is inside another.

        `matrix` is inclusion (row: smaller α, column: larger) or seeds (row, column: seeds).
        """
        keys = ["tuning", "split"]
        rows = self.checks[self.checks["check"] == "inclusion"]
        means = rows.groupby([*keys, "alpha", "other"], sort=False)["value"].mean().reset_index()
        parts = [means.assign(matrix="inclusion", row=means["alpha"], column=means["other"])]
        between = self.checks[self.checks["check"] == "overlap_seeds"]
        # Masks of two seeds compare only at one size: the largest that was chosen for any of them.
        sizes = self.masks.groupby(keys, sort=False)["alpha"].max()
        rows = between.join(sizes.rename("one"), on=keys)
        rows = rows[rows["alpha"] == rows["one"]]
        parts.append(rows.assign(matrix="seeds", row=rows["seed"], column=rows["other"]))
        return _joined(parts, OVERLAP)


def _joined(parts: list[pd.DataFrame], columns: tuple[str, ...]) -> pd.DataFrame:
    import pandas as pd

    some = [part[list(columns)] for part in parts if len(part)]
    return pd.concat(some or [pd.DataFrame(columns=list(columns))])


def share_of(part: pd.Series, whole: pd.Series) -> pd.Series:
    """Return part over whole; of nothing there is no share, so it is then missing."""
    return part / whole.where(whole > 0)
