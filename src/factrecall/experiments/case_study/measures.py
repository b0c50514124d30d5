"""One model's attention case study in numbers."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from factrecall.experiments.case_study.tables import FORMATS, PLACES, SHOWN
from factrecall.experiments.common.prompts import ROLES
from factrecall.report.section import Source
from factrecall.runtime.seeds import generator
from factrecall.vocabulary import COMPARED


class CaseStudy(Source):
    """One head and one fact in both grafted models, and the head over all facts."""

    @property
    def head(self) -> str:
        """Which head it is."""
        first = self.rows("case").iloc[0]
        return f"layer {first['layer']}, head {first['head']}"

    def of(self, tuning: str) -> pd.Series:
        """Return a tuning's row of the case."""
        rows = self.rows("case")
        return rows[rows["tuning"] == tuning].iloc[0]

    def rng(self) -> np.random.Generator:
        """Return the generator of the bootstrap over people."""
        return generator(self.settings["study_seed"], "report", "looks", self.model)

    def pattern(self, tuning: str, form: str) -> np.ndarray:
        """Return the attention between the places of `places`, in [query, key].

        To tokens that are taken together it is the sum, from them the mean.
        """
        labels = self.places(form)
        length = int(labels["tokens"].sum())
        rows = self.rows("attention")
        rows = rows[(rows["tuning"] == tuning) & (rows["format"] == form)]
        weights = np.zeros((length, length))
        weights[rows["query"].to_numpy(), rows["key"].to_numpy()] = rows["weight"].to_numpy()
        place = np.repeat(np.arange(len(labels)), labels["tokens"].to_numpy())
        member = (place == np.arange(len(labels))[:, None]).astype(float)
        return np.asarray(member / member.sum(1, keepdims=True) @ weights @ member.T)

    @cached_property
    def _places(self) -> dict[str, pd.DataFrame]:
        return {form: self._places_of(form) for form in FORMATS}

    def places(self, form: str) -> pd.DataFrame:
        """Return the places of a prompt that are shown; columns ``PLACES``.

        These are all tokens or, of a longer prompt, the last one and those that it attends to most
        in either model; what lies between is taken together.
        """
        return self._places[form]

    def _places_of(self, form: str) -> pd.DataFrame:
        tokens, rows = (
            table[table["format"] == form]
            for table in (self.rows("tokens"), self.rows("attention"))
        )
        tokens = tokens.reset_index(drop=True)
        last = len(tokens) - 1
        most = rows[rows["query"] == last].groupby("key")["weight"].max()
        most = most.reindex(range(len(tokens)), fill_value=0.0)
        most[last] = np.inf
        kept = np.ones(len(tokens), dtype=bool)
        for key in most.sort_values(kind="stable").index:
            if len(_stretches(kept)) <= SHOWN:
                break
            kept[key] = False
        found = [
            {
                "first": begin,
                "tokens": end - begin,
                "text": tokens["text"][begin] if end - begin == 1 else "",
                "role": tokens["role"][begin] if end - begin == 1 else "between",
            }
            for begin, end in _stretches(kept)
        ]
        table = pd.DataFrame(found, columns=["first", "tokens", "text", "role"])
        return table.assign(format=form, place=range(len(table)))[list(PLACES)]

    def cells(self) -> pd.DataFrame:
        """Return the attention patterns of both prompts and models, a row a cell."""
        parts = []
        for form in FORMATS:
            labels = self.places(form)
            for tuning in COMPARED:
                weights = self.pattern(tuning, form)
                query, key = (axis.ravel() for axis in np.indices(weights.shape))
                table = {"query": query, "key": key, "weight": weights.ravel()}
                for side, places in (("query", query), ("key", key)):
                    for column in ("text", "role"):
                        values = labels[column].to_numpy(dtype=object)[places]
                        table[f"{side}_{column}"] = values
                parts.append(pd.DataFrame(table).assign(tuning=tuning, format=form))
        return pd.concat(parts)

    def by_role(self) -> pd.DataFrame:
        """Return the last token's attention by role, over all facts and in the case's.

        Columns tuning, format, role, mean, low and high (the middle half of the facts), facts and
        case; roles that are never attended to are left out.
        """
        first, rows = self.rows("case").iloc[0], self.rows("looks")
        same = (rows["individual"] == first["individual"]) & (rows["relation"] == first["relation"])
        keys = ["tuning", "format", "role"]
        groups = rows.groupby(keys, sort=False)["weight"]
        table = groups.agg(mean="mean", facts="count")
        table["low"], table["high"] = groups.quantile(0.25), groups.quantile(0.75)
        table["case"] = rows[same].groupby(keys, sort=False)["weight"].mean()
        table = table.reset_index()
        table = table[table.groupby("role")["mean"].transform("max") > 0]
        order: dict[str, Any] = {"tuning": COMPARED, "format": tuple(FORMATS), "role": ROLES}
        return table.sort_values(
            keys, key=lambda c: c.map(order[str(c.name)].index), ignore_index=True
        )

    def overlap(self) -> pd.DataFrame:
        """Return how much of the last token's attention goes to the same roles in both prompts.

        Columns individual, relation and a column a tuning, from 0 to 1. The token that begins every
        text is left out, and the rest counts as the whole.
        """
        keys = ["tuning", "individual", "relation", "role"]
        rows = self.rows("looks")
        sides = rows[rows["role"] != "start"].pivot(index=keys, columns="format", values="weight")
        totals = sides.groupby(level=keys[:3], sort=False).transform("sum")
        sides /= totals.where(totals > 0)
        same = sides.reindex(columns=list(FORMATS)).min(axis=1, skipna=False)
        sums = same.groupby(level=keys[:3], sort=False).sum(min_count=1)
        return sums.unstack("tuning").reindex(columns=list(COMPARED)).reset_index()


def _stretches(kept: np.ndarray) -> list[tuple[int, int]]:
    """Return the places of a prompt: tokens that are kept, and stretches of others."""
    begins = [i for i in range(len(kept)) if i == 0 or kept[i] or kept[i - 1]]
    return list(zip(begins, [*begins[1:], len(kept)], strict=True))
