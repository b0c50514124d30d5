"""One model's attention case study in numbers."""

from __future__ import annotations

import pandas as pd

from factrecall.experiments.case_study.tables import FORMATS, SHOWN, TOP
from factrecall.report.observations import where
from factrecall.report.section import Source
from factrecall.report.style import RELATION_LABELS, TUNING_LABELS


class CaseStudy(Source):
    """One head and one fact in both grafted models, and the head over all facts."""

    def of(self, tuning: str) -> pd.Series:
        """Return a tuning's row of the case."""
        return where(self.rows("case"), tuning=tuning).iloc[0]

    @property
    def head(self) -> str:
        """The head in words: that with most shared parameters, or one that was asked for."""
        of = self.of("mix")
        named = f"head that the configuration names (layer {of['layer']}, head {of['head']})"
        return named if self.settings["named"] else "head with most shared parameters"

    @property
    def title(self) -> str:
        """Which head and fact it is."""
        of = self.of("mix")
        fact = f"{RELATION_LABELS[of['relation']].lower()} of person {of['individual']}"
        return f"layer {of['layer']}, head {of['head']}; {fact}"

    def shown(self, form: str) -> pd.DataFrame:
        """Return the tokens of a prompt that are shown, with columns token, text and role.

        The last one and those that it attends to most in either model.
        """
        tokens, pairs = (where(self.rows(name), format=form) for name in ("tokens", "attention"))
        last = tokens["token"].max()
        most = where(pairs, query=last).groupby("key")["weight"].max().drop(last)
        kept = [last, *most.sort_values(ascending=False, kind="stable").index[: SHOWN - 1]]
        return tokens[tokens["token"].isin(kept)][["token", "text", "role"]]

    def cells(self) -> pd.DataFrame:
        """Return the attention between the tokens that are shown, a row a pair and tuning."""
        parts = []
        for form in FORMATS:
            table, tokens = where(self.rows("attention"), format=form), self.shown(form)
            for side in ("query", "key"):
                names = {"token": side, "text": f"{side}_text", "role": f"{side}_role"}
                table = table.merge(tokens.rename(columns=names), on=side)
            parts.append(table)
        return pd.concat(parts).sort_values(["format", "tuning", "query", "key"])

    def by_role(self) -> pd.DataFrame:
        """Return the last token's attention by role, over all facts and in the case's.

        Columns tuning, format, role, mean, low and high (the middle half of the facts), facts and
        case; roles that are never attended to are left out.
        """
        rows, mix = self.rows("looks"), self.of("mix")
        case = where(rows, individual=mix["individual"], relation=mix["relation"])
        keys = ["tuning", "format", "role"]
        groups = rows.groupby(keys, sort=False)["weight"]
        table = groups.agg(mean="mean", facts="count")
        table["low"], table["high"] = groups.quantile(0.25), groups.quantile(0.75)
        table["case"] = case.groupby(keys)["weight"].mean()
        table = table.reset_index()
        return table[table.groupby("role")["mean"].transform("max") > 0]

    def overlap(self) -> pd.DataFrame:
        """Return how much of the last token's attention goes to the same roles in both prompts.

        Columns tuning, seed, individual, relation and same, from 0 to 1. The token that begins
        every text is left out, and the rest counts as the whole.
        """
        keys = ["tuning", "individual", "relation"]
        rows = self.rows("looks")
        sides = rows[rows["role"] != "start"].pivot(
            index=[*keys, "role"], columns="format", values="weight"
        )
        totals = sides.groupby(level=keys).transform("sum")
        same = (sides / totals.where(totals > 0)).min(axis=1, skipna=False)
        found = same.groupby(level=keys).sum(min_count=1).rename("same")
        return found.reset_index().assign(seed=self.settings["seed"])

    def lens(self) -> pd.DataFrame:
        """Return the tokens of the logit lens; columns rank, prompt and text, with its role."""
        rows = self.rows("logits").sort_values("rank", kind="stable")
        prompt = rows["tuning"].map(TUNING_LABELS) + ", " + rows["format"].map(FORMATS)
        text = rows["text"].replace("", "(blank)") + (" (" + rows["role"] + ")").replace(" ()", "")
        return rows.assign(prompt=prompt, text=text)

    def names(self) -> pd.DataFrame:
        """Return whether a token of the name is among the likeliest; a row a tuning and prompt."""
        case = {"seed": self.settings["seed"], "individual": self.of("mix")["individual"]}
        rows = self.rows("logits").assign(**case)
        named = (rows["rank"] <= TOP) & (rows["role"] == "subject")
        keys = ["tuning", "format", *case]
        return rows.assign(named=named).groupby(keys, as_index=False)["named"].max()
