"""One model as the page shows it: verdict, cautions, tables and figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from factrecall.experiments.ablation.report import SECTION as ABLATION
from factrecall.experiments.attribution.report import SECTION as ATTRIBUTION
from factrecall.experiments.case_study.report import SECTION as CASE_STUDY
from factrecall.experiments.circuits.report import SECTION as CIRCUITS
from factrecall.experiments.gradient_similarity.report import SECTION as GRADIENTS
from factrecall.experiments.recall.caveats import cautions
from factrecall.experiments.recall.figures import RELATION_DATA
from factrecall.experiments.recall.loss_figure import LOSS_DATA
from factrecall.experiments.recall.verdict import Verdict, judge
from factrecall.experiments.representations.report import SECTION as REPRESENTATIONS
from factrecall.experiments.shared_parameters.top_tensors import Gathering, read_gatherings
from factrecall.report import tables
from factrecall.report.claim import Claim
from factrecall.report.claims import Judged
from factrecall.report.measures import SPLIT_NAMES, Measures, TableFiles, read_measures
from factrecall.report.published import LLAMA, PUBLISHED, counterpart
from factrecall.report.render import Shown as ShownSection
from factrecall.report.render import data_uri, show_section
from factrecall.report.sections import Parameters, parameters
from factrecall.report.style import RELATION_LABELS, TUNING_LABELS
from factrecall.report.summaries import by_seed, read_recall, spread
from factrecall.runtime.seeds import generator
from factrecall.runtime.storage import read_table
from factrecall.vocabulary import TUNINGS

_COUNTS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


@dataclass(frozen=True)
class ModelFiles:
    """What the report shows of one model.

    Attributes
    ----------
    name : str
        Its name in the study.
    figures : Path
        Folder that `figures.draw_figures` filled.
    per_example : mapping of (tuning, seed) to Path
        Recall per example; Stage-tuned and Mix-tuned of the same seeds are compared.
    traces : mapping of (tuning, seed) to Path
        Gradient traces; may be empty.
    case : mapping of str to Path
        The tables of the attention case study.
    """

    name: str
    figures: Path
    per_example: Mapping[tuple[str, int], Path]
    traces: Mapping[tuple[str, int], Path]
    case: Mapping[str, Path]


@dataclass(frozen=True)
class Shown:
    """One model as the template shows it."""

    name: str
    headline: str
    verdict: Verdict
    evidence: str
    cautions: list[str]
    recall: tables.View
    counterpart: str
    comparison: tables.View
    sources: list[str]
    images: dict[str, tuple[str, str]]
    traced: tables.View | None
    shared: Parameters
    circuits: ShownSection
    case_study: ShownSection
    represented: list[ShownSection]
    ablation: ShownSection


def show(
    files: ModelFiles,
    study: Mapping[str, Any],
    table_files: TableFiles,
    traced: tables.View | None,
) -> Shown:
    """Read and judge what a model's files say (see `page.write_report`)."""
    table = read_recall(table_files.recall, files.name)
    verdict = judge(files.per_example, generator(study["seed"], "report", "people", files.name))
    paper = counterpart(study["models"][files.name]) or LLAMA
    measures = read_measures(
        vars(table_files),
        files.name,
        k=study["shared"]["k"],
        influence=study["shared"]["influence"],
        recovery=study["grafting"]["target_recovery"],
    )
    case = study["circuits"]["case"]
    circuits = CIRCUITS.read(
        model=files.name,
        files=vars(table_files),
        settings={
            "kind": "",
            "random_orders": study["circuits"]["random_orders"],
            "recovery": study["grafting"]["target_recovery"],
            "seed": study["training"]["seeds"][0],
        },
        published_model=paper,
    )
    case_study = CASE_STUDY.read(
        model=files.name,
        files=files.case,
        settings={**case, "study_seed": study["seed"], "seed": study["training"]["seeds"][0]},
        published_model=paper,
    )
    layers = {"layers": study["representations"]["layers"]}
    represented = [
        (section, section.read(files.name, vars(table_files), layers, paper))
        for section in (REPRESENTATIONS, GRADIENTS, ATTRIBUTION)
    ]
    ablation = ABLATION.read(files.name, vars(table_files), {}, paper)
    further: list[Claim | Judged] = [
        *ABLATION.judged(ablation),
        *CIRCUITS.judged(circuits),
        *CASE_STUDY.judged(case_study),
        *(claim for section, m in represented for claim in section.judged(m)),
    ]
    return Shown(
        name=files.name,
        headline=_headline(verdict, table),
        verdict=verdict,
        evidence=_evidence(verdict),
        cautions=cautions(table),
        recall=tables.recall_table(table),
        counterpart=paper,
        comparison=tables.comparison_table(table, paper),
        sources=sorted(
            {row.source for row in PUBLISHED if row.model == paper and not row.relation}
        ),
        images=_images(files.figures, measures, {}),
        shared=parameters(study, measures, further, paper),
        circuits=show_section(CIRCUITS, circuits, files.figures, study),
        case_study=show_section(CASE_STUDY, case_study, files.figures, study),
        represented=[show_section(s, m, files.figures, study) for s, m in represented],
        traced=traced,
        ablation=show_section(ABLATION, ablation, files.figures, study),
    )


def _headline(verdict: Verdict, recall: pd.DataFrame) -> str:
    summary = spread(by_seed(recall)).set_index(["tuning", "split"])["mean"]
    chance = summary.get(("majority", "qa_out"))
    guess = "" if chance is None else f"; the most frequent answer gives {_sign(chance)}"
    return (
        f"Mix-tuned models recall {_sign(verdict.mix)} of the facts whose question "
        f"they never saw, Stage-tuned ones {_sign(verdict.stage)} "
        f"({count(len(verdict.differences), 'seed')}{guess})."
    )


def _sign(share: float) -> str:
    return f"{tables.percent(share)}{tables.NO_BREAK}%"


def _evidence(verdict: Verdict) -> str:
    by_seed = ", ".join(tables.points(d) for d in verdict.differences.values())
    return (
        f"Difference {tables.points(verdict.mix - verdict.stage)} points, 95 % interval "
        f"{tables.points(verdict.low)} to {tables.points(verdict.high)} "
        f"over {verdict.people:,} people; by seed {by_seed}."
    )


def count(number: int, noun: str) -> str:
    """Write a small number as a word, with its noun."""
    word = _COUNTS[number] if number < len(_COUNTS) else str(number)
    return f"{word} {noun}{'' if number == 1 else 's'}"


def _images(
    folder: Path, measures: Measures, further: Mapping[str, str]
) -> dict[str, tuple[str, str]]:
    """Return each figure as a data URI with the text that stands for it."""
    stands_for = {
        "recall": "Bars of accuracy by split and tuning; the table below holds the numbers.",
        "recall_by_relation": _relation_text(folder / "recall_by_relation.parquet"),
        "loss": _loss_text(folder / "loss.parquet"),
        "shared": "Curves of |S(k)|/k against k for three readings of influence; the table below "
        "holds the numbers at the k of this study.",
        "shared_places": _places_text(measures),
        "grafting": _recovery_text(measures),
        "grafting_size": "Bars of the number of parameters in the chosen masks; the table below "
        "holds their shares of all parameters.",
        "grafting_overlap": "Matrices of how much of one mask is inside another; the table of "
        "checks below holds their means.",
        **further,
    }
    return {name: (data_uri(folder / f"{name}.svg"), text) for name, text in stands_for.items()}


def _relation_text(path: Path) -> str:
    table = read_table(path, RELATION_DATA)
    lines = []
    for (source, tuning), rows in table.groupby(["source", "tuning"], sort=False):
        values = ", ".join(
            f"{RELATION_LABELS.get(r.relation, r.relation)} {tables.percent(r.accuracy)}"
            for r in rows.itertuples()
        )
        where = "the paper" if source == "paper" else "this study"
        lines.append(f"{TUNING_LABELS[tuning]} ({where}): {values}")
    return f"Heat map of QA out in per cent. {'. '.join(lines)}."


def _loss_text(path: Path) -> str:
    last = read_table(path, LOSS_DATA).groupby(["tuning", "kind", "seed"], sort=False).last()
    final = last.groupby(["tuning", "kind"], sort=False)["loss"].mean()
    names = {"bio": "biographies", "qa": "questions"}
    values = (f"{TUNING_LABELS[t]}, {names[k]}: {loss:.3g}" for (t, k), loss in final.items())
    return f"Loss curves. Mean loss at the end of training: {'; '.join(values)}."


def _places_text(measures: Measures) -> str:
    rows = measures.places[measures.places["set"] == "S"]
    sums = rows.groupby(["tuning", "tensor"], sort=False)[["shared", "parameters"]].sum()
    shares = (sums["shared"] / sums["parameters"]).rename("share").reset_index()
    said = []
    for tuning, tensors in shares.groupby("tuning", sort=False):
        most = tensors.nlargest(3, "share")
        named = (f"{r.tensor} {tables.percent(r.share)}" for r in most.itertuples())
        said.append(f"{TUNING_LABELS[str(tuning)]}: {', '.join(named)}")
    return f"Heat map of the share of each tensor in S, in per cent. Most: {'; '.join(said)}."


def _recovery_text(measures: Measures) -> str:
    fitted = measures.fitted()
    held = fitted[fitted["with_shared"].astype(bool)]
    means = held.groupby(["split", "tuning", "alpha"], sort=False)
    said: dict[tuple[str, str], list[str]] = {}
    for (split, tuning, alpha), recovery in means["recovery"].mean().items():
        value = f"{100 * alpha:g} %: {tables.percent(recovery)}"
        said.setdefault((SPLIT_NAMES[split], TUNING_LABELS[tuning]), []).append(value)
    lines = (f"{name}, {tuning}: {', '.join(v)}" for (name, tuning), v in said.items())
    return f"Recovery of fitted masks in per cent by share grafted. {'. '.join(lines)}."


def traced_table(
    files: ModelFiles, seed: int, influence: str
) -> tuple[int | None, tables.View | None]:
    """Return a model's size, if known, and the table of where its gradients gathered."""
    size = None
    gatherings: dict[str, list[Gathering]] = {}
    for tuning in TUNINGS:
        if (path := files.traces.get((tuning, seed))) is not None:
            size, gatherings[tuning] = read_gatherings(path, influence)
    return size, tables.gathering_table(gatherings) if gatherings else None
