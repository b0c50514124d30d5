"""The attention case study of one model, as figures, tables and claims take it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from factrecall.experiments.case_study.tables import (
    ATTENTION,
    CASE,
    LENS,
    ROLES_ATTENDED,
    TOKENS,
)
from factrecall.experiments.common.prompts import ROLES
from factrecall.runtime.storage import read_table
from factrecall.vocabulary import COMPARED

FORMAT_NAMES = {"bio": "told", "qa": "evaluated"}

SHOWN = 32
"""So many places of a prompt are shown; see `Case.shown_tokens`."""

LABELS = {
    "format": "string",
    "place": "int32",
    "first": "int32",
    "tokens": "int32",
    "text": "string",
    "role": "string",
}
"""Columns of `shown_tokens`: a row a token or a stretch of tokens that are taken together."""


@dataclass(frozen=True)
class CaseFiles:
    """The files of a model's case study; see `experiments.case` for their columns."""

    case: Path
    tokens: Path
    attention: Path
    logits: Path
    looks: Path

    @classmethod
    def of(cls, folder: Path) -> CaseFiles:
        """Return the files at their fixed places in a folder."""
        parts = ("", ".tokens", ".attention", ".logits", ".looks")
        return cls(*(folder / f"case{part}.parquet" for part in parts))


@dataclass(frozen=True)
class Case:
    """What was found: the tables of `CaseFiles`."""

    case: pd.DataFrame
    tokens: pd.DataFrame
    attention: pd.DataFrame
    logits: pd.DataFrame
    looks: pd.DataFrame

    @property
    def head(self) -> str:
        """Which head it is of."""
        first = self.case.iloc[0]
        return f"layer {first['layer']}, head {first['head']}"

    def of(self, tuning: str) -> pd.Series:
        """Return a tuning's row of the case."""
        return self.case[self.case["tuning"] == tuning].iloc[0]

    def pattern(self, tuning: str, form: str, labels: pd.DataFrame) -> np.ndarray:
        """Return the attention between the places of `shown_tokens`, in [query, key].

        To tokens that are taken together it is the sum, from them the mean.
        """
        length = int(labels["tokens"].sum())
        rows = self.attention
        rows = rows[(rows["tuning"] == tuning) & (rows["format"] == form)]
        weights = np.zeros((length, length))
        weights[rows["query"].to_numpy(), rows["key"].to_numpy()] = rows["weight"].to_numpy()
        place = np.repeat(np.arange(len(labels)), labels["tokens"].to_numpy())
        member = (place == np.arange(len(labels))[:, None]).astype(float)
        return np.asarray(member / member.sum(1, keepdims=True) @ weights @ member.T)

    def shown_tokens(self, form: str) -> pd.DataFrame:
        """Return the places of a prompt that are shown; columns ``LABELS``.

        These are all tokens or, of a longer prompt, the last one and those that it looks at most
        in either model; what lies between is taken together.
        """
        tokens = self.tokens[self.tokens["format"] == form].reset_index(drop=True)
        rows = self.attention[self.attention["format"] == form]
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
        return table.assign(format=form, place=range(len(table)))[list(LABELS)]

    def by_role(self) -> pd.DataFrame:
        """Return where the head looks from the last token, over all facts and in the case's.

        Columns tuning, format, role, mean, low and high (the middle half of the facts), facts and
        case; roles that nobody looks at are left out.
        """
        first = self.case.iloc[0]
        same = (self.looks["individual"] == first["individual"]) & (
            self.looks["relation"] == first["relation"]
        )
        keys = ["tuning", "format", "role"]
        groups = self.looks.groupby(keys, sort=False)["weight"]
        table = groups.agg(mean="mean", facts="count")
        table["low"], table["high"] = groups.quantile(0.25), groups.quantile(0.75)
        table["case"] = self.looks[same].groupby(keys, sort=False)["weight"].mean()
        table = table.reset_index()
        seen = table.groupby("role")["mean"].max()
        table = table[table["role"].map(seen) > 0]
        order = {"tuning": COMPARED, "format": tuple(FORMAT_NAMES), "role": ROLES}
        return table.sort_values(
            keys, key=lambda c: c.map(order[str(c.name)].index), ignore_index=True
        )

    def alike(self) -> pd.DataFrame:
        """Return how alike the head looks at a fact told and asked, by fact.

        Columns individual, relation and a column a tuning: the attention that goes to the same
        roles in both prompts, from 0 to 1. What the token that begins every text takes is left
        out, and the rest counts as the whole: a head that rests there is no more alike for it.
        """
        keys = ["tuning", "individual", "relation", "role"]
        looks = self.looks[self.looks["role"] != "start"]
        sides = looks.pivot(index=keys, columns="format", values="weight")
        totals = sides.groupby(level=keys[:3], sort=False).transform("sum")
        sides /= totals.where(totals > 0)
        same = sides.reindex(columns=list(FORMAT_NAMES)).min(axis=1, skipna=False)
        sums = same.groupby(level=keys[:3], sort=False).sum(min_count=1)
        return sums.unstack("tuning").reindex(columns=list(COMPARED)).reset_index()


def _stretches(kept: np.ndarray) -> list[tuple[int, int]]:
    """Return the places of a prompt: tokens that are kept, and stretches of others."""
    begins = [i for i in range(len(kept)) if i == 0 or kept[i] or kept[i - 1]]
    return list(zip(begins, [*begins[1:], len(kept)], strict=True))


def read_case(files: CaseFiles) -> Case:
    """Read the files of a case study.

    Raises
    ------
    FactRecallError
        When one is missing or damaged.
    """
    return Case(
        case=read_table(files.case, CASE),
        tokens=read_table(files.tokens, TOKENS),
        attention=read_table(files.attention, ATTENTION),
        logits=read_table(files.logits, LENS),
        looks=read_table(files.looks, ROLES_ATTENDED),
    )
