"""What an experiment shows in the report, declared in one place.

Each experiment has a module ``report.py`` with a `Section`. It imports nothing heavy: names of
figures and files are asked for by the workflow before anything is computed. An example, whole::

    class Ablation(Source):                     # what figures, tables and claims are made of
        def accuracies(self) -> pd.DataFrame:
            return self.rows("ablation").groupby(...)...

    SECTION = Section(
        name="ablation",                        # anchor of the page
        title="Ablation",
        read=Ablation,                          # from files and settings to the measures `m`
        tables=("ablation", "ablation_intervals", "recall"),    # results/tables/<name>.parquet
        settings=lambda study, model: {},       # of the configuration; plain values only
        body=(
            Text("<p>What S does ... {{ m.k }}</p>"),           # Jinja, `m` and `study` in scope
            Caveats(tensors_cost_most),         # functions: m -> sentence, sentences or nothing
            Figure("ablation", data=Ablation.accuracies, schema=..., layers=(Bars(...),), ...),
            Table("Accuracy after the ablation ...", data=Ablation.accuracies, group="split",
                  row="ablated", columns=(Column("", "accuracy"), ...)),
        ),
        claims=(Claim("S costs more ...", costs_more),),        # m -> Quantity
    )

All callables take the section's measures and nothing else. `body` is in the order of the page.
A figure's caption and a `Text` are templates: values are escaped, the text itself is trusted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from factrecall.report.claims import Claim, Judged, Verdict, judge
from factrecall.report.plots import Figure
from factrecall.report.published import LLAMA, counterpart
from factrecall.report.style import LABELS
from factrecall.report.tables import Table
from factrecall.runtime.errors import FactRecallError
from factrecall.runtime.storage import read_table

if TYPE_CHECKING:
    import pandas as pd

    from factrecall.config.study import Study


@dataclass(frozen=True)
class Source:
    """One model's results: the base of every section's measures.

    Attributes
    ----------
    model : str
        Its name in the study.
    files : mapping
        Paths, by the names of `Section.tables` and the keys of `Section.files`.
    settings : mapping
        Of the section.
    published_model : str or None
        The paper's model to compare with, if there is one of this architecture.
    """

    model: str
    files: Mapping[str, Path]
    settings: Mapping[str, Any] = field(default_factory=dict)
    published_model: str | None = None
    _tables: dict[str, pd.DataFrame] = field(default_factory=dict, repr=False, compare=False)

    @property
    def paper(self) -> str:
        """The paper's model that claims are compared with: Llama where there is no counterpart."""
        return self.published_model or LLAMA

    def runs(self, kind: str) -> dict[tuple[str, int], Path]:
        """Return the files of a kind that each training run has, by tuning and seed."""
        parts = {tuple(key.split("/")): path for key, path in self.files.items()}
        return {(p[1], int(p[2])): path for p, path in parts.items() if p[0] == kind and p[2:]}

    def rows(self, name: str) -> pd.DataFrame:
        """Read this model's rows of a table, in the order in which they are shown.

        Raises
        ------
        FactRecallError
            When the file is missing or damaged.
        """
        if name not in self._tables:
            table = read_table(self.files[name])
            rows = table[table["model"] == self.model] if "model" in table else table
            # pandas cannot join empty columns of Arrow's strings.
            texts = [c for c in rows if str(rows[c].dtype) in ("str", "string")]
            self._tables[name] = in_order(rows.astype(dict.fromkeys(texts, object)))
        return self._tables[name]


def in_order(table: pd.DataFrame) -> pd.DataFrame:
    """Sort rows by tuning, seed and split as they are shown; equal ones stay in their order."""
    by = [c for c in ("tuning", "seed", "split") if c in table.columns]
    if not by:
        return table.reset_index(drop=True)

    def place(column: pd.Series) -> pd.Series:
        order = {value: number for number, value in enumerate(LABELS.get(str(column.name), ()))}
        return column.map(lambda value: order.get(value, len(order))) if order else column

    return table.sort_values(by, key=place, kind="stable", ignore_index=True)


@dataclass(frozen=True)
class Text:
    """A piece of prose, as HTML; a template with `m`, `study` and `scope` in scope."""

    html: str
    when: Callable[[Any], bool] = lambda m: True
    scope: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, init=False)
class Caveats:
    """What a run's own numbers say against reading them as the paper does.

    Each rule takes the measures and returns a sentence, several, or nothing.
    """

    rules: tuple[Callable[[Any], str | list[str] | None], ...]

    def __init__(self, *rules: Callable[[Any], str | list[str] | None]) -> None:
        object.__setattr__(self, "rules", rules)

    def said(self, measures: Any) -> list[str]:
        """Return the sentences that apply."""
        found = (rule(measures) for rule in self.rules)
        return [t for said in found if said for t in ([said] if isinstance(said, str) else said)]


class Headline(NamedTuple):
    """What the page begins with, of one model: the study's main result.

    `claim` is the first half of a sentence that the verdict ends; `rule` says how it was judged.
    """

    text: str
    claim: str
    verdict: Verdict
    evidence: str
    caveats: list[str]
    rule: str


Part = Text | Caveats | Figure | Table


@dataclass(frozen=True)
class Section:
    """A section of the report on one model; see the module for an example.

    Attributes
    ----------
    name, title : str
        Its anchor and its heading.
    body : tuple
        Texts, caveats, figures and tables, in the order of the page.
    claims : tuple of Claim, or callable
        Of one model; a callable takes the measures and returns them.
    read : callable
        From the fields of `Source` to the measures; a subclass of `Source`.
    tables : tuple of str
        The study's tables that it reads, ``tables/<name>.parquet``.
    files : callable
        From study and model to further files: by key, the path below the results. Files of
        training runs have keys like ``history/mix/0`` (see `Source.runs`).
    settings : callable
        From study and model to plain values: all that it may know of the configuration.
    headline : callable, optional
        Of the section with the main result: from its measures to what the page begins with.
    """

    name: str
    title: str
    body: tuple[Part, ...]
    claims: tuple[Claim, ...] | Callable[[Any], list[Claim]] = ()
    read: Callable[..., Any] = Source
    tables: tuple[str, ...] = ()
    files: Callable[[Study, str], Mapping[str, str]] = lambda study, model: {}
    settings: Callable[[Study, str], Mapping[str, Any]] = lambda study, model: {}
    headline: Callable[[Any], Headline] | None = None

    @property
    def figures(self) -> tuple[Figure, ...]:
        """The figures, in the order of the page."""
        return tuple(part for part in self.body if isinstance(part, Figure))

    def request(self, study: Study, model: str) -> dict[str, Any]:
        """Return all that it may know of one model: `Source`'s fields, as plain values."""
        tables = {name: f"tables/{name}.parquet" for name in self.tables}
        return {
            "model": model,
            "files": {**tables, **self.files(study, model)},
            "settings": dict(self.settings(study, model)),
            "published_model": counterpart(study.models[model].model_dump(mode="json")),
        }

    def measures(self, request: Mapping[str, Any], results: Path) -> Any:
        """Read what the section shows of one model; `request` is that of `request`."""
        files = {name: results / path for name, path in request["files"].items()}
        return self.read(**{**request, "files": files})

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Name the section and the remedy where its tables lack a column."""
        try:
            yield
        except KeyError as error:
            raise FactRecallError(
                f"section {self.title!r} of the report",
                f"a table that it reads has no {error}: another version of factrecall made it",
                "run the workflow again; what is outdated will be made anew",
            ) from error

    def judged(self, measures: Any) -> list[Judged]:
        """Hold its claims against a model's measures."""
        rows = self.claims(measures) if callable(self.claims) else self.claims
        return [judge(claim, self.title, measures) for claim in rows]

    def draw(self, measures: Any, folder: Path) -> None:
        """Draw its figures into a folder."""
        for figure in self.figures:
            figure.save(measures, folder / figure.name)
