"""Grafting of one model: the masks looked at, what they recover, and whose answers are right.

Any table may lack rows; what cannot be computed is then missing, not an error.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from factrecall.experiments.grafting.mask_choice import MOVEMENT, looked_at
from factrecall.report.observations import observe, where
from factrecall.report.section import Source, in_order
from factrecall.runs import grafts, study_seed_of

if TYPE_CHECKING:
    import pandas as pd

    from factrecall.config.study import Study

KEYS = ["tuning", "seed", "split"]
RECOVERY = ["tuning", "split", "seed", "line", "alpha", "recovery", "chosen", "listed"]
OBJECTIVE = [
    "tuning",
    "split",
    "seed",
    "objective",
    "people",
    "alpha",
    "recovery",
    "chosen",
    "listed",
]
OVERLAP = ["tuning", "split", "matrix", "row", "column", "alpha", "value"]


def files(study: Study, model: str) -> dict[str, str]:
    """Return the per-example files: of masks with S and without, of θtask (``recall``) and θpre.

    That of θpre (``before``), by the seed of a run, is the one of the run's replicate.
    """
    found = {}
    for run in grafts(study):
        run_key, split = f"{run['tuning']}/{run['seed']}", run["split"]
        if run["model"] == model:
            stem = f"{model}/{run['tuning']}/seed{run['seed']}"
            masks = f"grafting/{stem}.{split}"
            before = study_seed_of(study, run["seed"])
            found[f"before/base/{run['seed']}"] = f"models/{model}/base/seed{before}.recall.parquet"
            found[f"recall/{run_key}"] = f"models/{stem}.recall.parquet"
            found[f"with-{split}/{run_key}"] = f"{masks}.examples.parquet"
            found[f"without-{split}/{run_key}"] = f"{masks}.without.examples.parquet"
    return found


class Grafting(Source):
    """One model's masks."""

    @property
    def recovery(self) -> float:
        """The share of the fine-tuned accuracy that a chosen mask recovers."""
        return float(self.settings["recovery"])

    @property
    def checks(self) -> pd.DataFrame:
        """What else was measured of the masks."""
        return self.rows("grafting_checks")

    def fitted(self, *, with_shared: bool = True, objective: str = "gold") -> pd.DataFrame:
        """Return the rows of masks fitted to an objective, with S or without."""
        return where(self.rows("grafting"), with_shared=with_shared, objective=objective)

    @cached_property
    def sizes(self) -> list[float]:
        """The α that every gold mask with S was evaluated at; others lie around chosen ones."""
        rows = self.fitted()
        runs = rows.groupby("alpha")[KEYS[0]].size()
        return sorted(runs.index[runs == len(rows[KEYS].drop_duplicates())])

    def size_of_all(self, chosen: float) -> float:
        """Return the smallest of `sizes` that is at least one chosen; NaN: none is."""
        return next((alpha for alpha in self.sizes if alpha >= chosen), float("nan"))

    @cached_property
    def masks(self) -> pd.DataFrame:
        """One row a tuning, seed and split on the gold mask the report looks at.

        It is the chosen mask or, where none recovered enough, the one that recovered most.
        """
        return in_order(looked_at(self.rows("grafting"), KEYS))

    @property
    def chosen(self) -> pd.DataFrame:
        """The masks that recovered enough."""
        return where(self.masks, chosen=True)

    def checked(self) -> pd.DataFrame:
        """Return the checks of the masks of `masks`."""
        keys = [*KEYS, "objective", "alpha"]
        return self.checks.merge(self.masks[keys], on=keys)

    def by_objective(self) -> pd.DataFrame:
        """Return recovery of fitted and of held-out people by α and objective, with S."""
        import pandas as pd

        rows = self.rows("grafting")
        rows = rows[(rows["objective"] != "") & rows["with_shared"].astype(bool)]
        columns = {"fitted": "recovery", "held_out": "held_out_recovery"}
        parts = [
            rows.assign(people=people, recovery=rows[column]) for people, column in columns.items()
        ]
        return self._listed(pd.concat(parts, ignore_index=True))[OBJECTIVE]

    def _listed(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Say which rows are of sizes that every training has: lines go through these."""
        return rows.assign(listed=rows["alpha"].isin(self.sizes))

    def held_out_check(self) -> pd.DataFrame:
        """Return a row a tuning, split, seed and objective: α that is enough, and for whom.

        `alpha` and `held_out_recovery` are of the chosen mask; `smallest` is the smallest α that
        recovers enough of held-out people. They are missing where no mask does.
        """
        rows = self.rows("grafting")
        rows = rows[(rows["objective"] != "") & rows["with_shared"].astype(bool)]
        keys = [*KEYS, "objective"]
        enough = rows[rows["held_out_recovery"] >= self.recovery].groupby(keys)["alpha"].min()
        chosen = where(rows, chosen=True).set_index(keys)[["alpha", "held_out_recovery"]]
        found = rows[keys].drop_duplicates().join(chosen, on=keys)
        return found.join(enough.rename("smallest"), on=keys)

    def nothing(self, split: str, tuning: str) -> float:
        """Return the recovery of a mask that grafts nothing: what θpre has right already.

        It is that of held-out people or, without any, of those fitted to.
        """
        rows = where(self.checks, split=split, tuning=tuning)
        sides = (where(rows, check=check) for check in ("pre_trained", "fine_tuned"))
        before, whole = (where(side, other=side["other"].max())["value"].mean() for side in sides)
        return float(before / whole) if whole else float("nan")

    def lines(self) -> pd.DataFrame:
        """Return recovery by α: gold masks with S and without it, and what was not fitted."""
        import pandas as pd

        parts = {
            "with": self.fitted(),
            "without": self.fitted(with_shared=False),
            "movement": where(self.rows("grafting"), method=MOVEMENT, with_shared=True),
        }
        rows = pd.concat(
            [rows.assign(line=line) for line, rows in parts.items()], ignore_index=True
        )
        return self._listed(rows)[RECOVERY]

    def overlaps(self) -> pd.DataFrame:
        """Return how much of one mask is inside another.

        `matrix` is inclusion (row: smaller α, column: larger) or seeds (row, column: seeds).
        """
        import pandas as pd

        keys = ["tuning", "split"]
        rows = where(self.checks, check="inclusion", objective="gold")
        means = rows.groupby([*keys, "alpha", "other"], sort=False)["value"].mean().reset_index()
        # Masks of two seeds compare only at one size: no smaller than chosen for any of them.
        sizes = self.masks.groupby(keys, sort=False)["alpha"].max().map(self.size_of_all)
        rows = where(self.checks, check="overlap_seeds", objective="gold")
        rows = rows.join(sizes.rename("one"), on=keys)
        rows = rows[rows["alpha"] == rows["one"]]
        parts = [
            means.assign(matrix="inclusion", row=means["alpha"], column=means["other"]),
            rows.assign(matrix="seeds", row=rows["seed"], column=rows["other"]),
        ]
        return pd.concat([part[OVERLAP] for part in parts])

    # --- each person's share of right answers, by seed ----------------------------------------

    def right(
        self, split: str, tuning: str, *, alpha: float | None = None, with_shared: bool = True,
        fitted: bool = True, objective: str = "gold",
    ) -> pd.DataFrame:  # fmt: skip
        """Observe the people of a split with an objective's chosen mask, or that of size `alpha`.

        They are those that gold masks are `fitted` to, or those held out. Where no distilled mask
        recovers enough, it is the one that recovers most: that it does not is the result.
        """
        rows = self.per_run(f"{'with' if with_shared else 'without'}-{split}")
        rows = where(rows, objective=objective, fitted=fitted, tuning=tuning)
        keys = ["tuning", "seed", "alpha"]
        sizes = where(self.chosen, split=split)
        if objective != "gold":
            sizes = where(looked_at(self.rows("grafting"), KEYS, objective), split=split)
        return observe(
            where(rows, alpha=alpha) if alpha else rows.merge(sizes[keys], on=keys), "correct"
        )

    def whole(self, split: str, tuning: str) -> pd.DataFrame:
        """Observe θtask."""
        return observe(self.per_run("recall"), "correct", split=f"qa_{split}", tuning=tuning)

    def before(self, split: str) -> pd.DataFrame:
        """Observe θpre, once for every seed."""
        return observe(self.per_run("before"), "correct", split=f"qa_{split}")
