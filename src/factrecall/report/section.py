"""What an experiment shows in the report, declared in one place.

Each experiment has a module ``report.py`` with a `Section`. It imports nothing heavy: names of
figures and files are asked for by the workflow before anything is computed. An example, whole::

    class Ablation(Source):                     # what figures, tables and claims are made of
        def accuracies(self) -> pd.DataFrame:
            return self.rows("ablation").groupby(...)...

    SECTION = Section(
        name="ablation",                        # anchor of the page
        title="Ablation",
        question="Is recall lost when S is reset?",
        read=Ablation,                          # from files and settings to the measures `m`
        reads=("ablation",),                    # results/tables/<name>.parquet
        figures=(Figure("ablation", data=Ablation.accuracies, schema=..., layers=(Bars(...),)),),
        claims=(Claim(id="ablation.s", text=..., observe=..., bound=0.02, why=...),),
        trust=(tensors_cost_most,),             # m -> sentence, sentences or nothing
        method="<p>S is reset to ...</p>",      # Jinja, `m` and `study` in scope; folded away
    )

All callables take the section's measures and nothing else. The page shows the question, the
figures, the verdicts on the claims, how far to trust them and, folded away, numbers and method. A
figure's caption and the method are templates: values are escaped, the text itself is trusted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from factrecall.report.ledger import Claim, Judged, judge
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
        Paths, by the names of `Section.reads` and the keys of `Section.files`.
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

    def per_run(self, kind: str) -> pd.DataFrame:
        """Return the tables of a kind of all training runs, with columns tuning and seed.

        Raises
        ------
        FactRecallError
            When a file is missing or damaged.
        """
        import pandas as pd

        if f"{kind}/" not in self._tables:
            parts = [
                read_table(path).assign(tuning=tuning, seed=seed)
                for (tuning, seed), path in self.runs(kind).items()
            ]
            self._tables[f"{kind}/"] = pd.concat(parts, ignore_index=True)
        return self._tables[f"{kind}/"]

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


Rule = Callable[[Any], "str | list[str] | None"]


@dataclass(frozen=True, kw_only=True)
class Section:
    """A section of the report on one model; see the module for an example.

    Attributes
    ----------
    name, title, question : str
        Its anchor, its heading, and the question that it answers.
    figures : tuple of Figure
        In the order of the page.
    claims : tuple of Claim, or callable
        Of one model; a callable takes the measures and returns them.
    trust : tuple of callable
        How far to trust what is shown: from the measures to a sentence, several, or nothing.
    method : str
        How it was measured; a template, folded away.
    tables : tuple of Table
        Shown among the numbers that are folded away, beside those of each figure.
    read : callable
        From the fields of `Source` to the measures; a subclass of `Source`.
    reads : tuple of str
        The study's tables that it reads, ``tables/<name>.parquet``.
    files : callable
        From study and model to further files: by key, the path below the results. Files of
        training runs have keys like ``history/mix/0`` (see `Source.runs`).
    settings : callable
        From study and model to plain values: all that it may know of the configuration.
    headline : callable, optional
        Of the section whose first claim is the study's main result: from its measures to the
        sentence with the numbers that the page begins with.
    """

    name: str
    title: str
    question: str
    figures: tuple[Figure, ...] = ()
    claims: tuple[Claim, ...] | Callable[[Any], Sequence[Claim]] = ()
    trust: tuple[Rule, ...] = ()
    method: str = ""
    tables: tuple[Table, ...] = ()
    read: Callable[..., Any] = Source
    reads: tuple[str, ...] = ()
    files: Callable[[Study, str], Mapping[str, str]] = lambda study, model: {}
    settings: Callable[[Study, str], Mapping[str, Any]] = lambda study, model: {}
    headline: Callable[[Any], str] | None = None

    def request(self, study: Study, model: str) -> dict[str, Any]:
        """Return all that it may know of one model: `Source`'s fields, as plain values."""
        tables = {name: f"tables/{name}.parquet" for name in self.reads}
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
        claims = self.claims(measures) if callable(self.claims) else self.claims
        return [judge(claim, measures, model=measures.model, section=self.name) for claim in claims]

    def cautions(self, measures: Any) -> list[str]:
        """Return the sentences of `trust` that apply."""
        found = (rule(measures) for rule in self.trust)
        return [t for said in found if said for t in ([said] if isinstance(said, str) else said)]

    def draw(self, measures: Any, folder: Path) -> None:
        """Draw its figures into a folder."""
        for figure in self.figures:
            figure.save(measures, folder / figure.name)
