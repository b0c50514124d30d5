"""A synthetic study for the tests of the report, and the tests of its tables."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

import factrecall.report.deviations as deviations_module
from factrecall.data.files import BIO_COLUMNS, INDIVIDUAL_COLUMNS, QA_COLUMNS, FactFiles
from factrecall.data.tables import make_bio, make_qa
from factrecall.data.templates import load_templates
from factrecall.evaluation.exact_match import PER_EXAMPLE, SUMMARY
from factrecall.experiments.shared_parameters.top_tensors import read_gatherings
from factrecall.report.deviations import CONDITIONS, deviations
from factrecall.report.figures import draw_figures
from factrecall.report.measures import TableFiles
from factrecall.report.page import write_report
from factrecall.report.published import LLAMA, PYTHIA, counterpart, published
from factrecall.report.shown import ModelFiles
from factrecall.report.summaries import (
    AVERAGE,
    by_relation,
    by_seed,
    read_recall,
    spread,
)
from factrecall.report.tables import comparison_table, flat, percent, points, recall_table
from factrecall.report.timings import Timing, duration, summarise
from factrecall.runtime.errors import FactRecallError
from factrecall.runtime.safetensors_writer import write_tensors
from factrecall.runtime.storage import write_table
from factrecall.training.training_log import HISTORY
from factrecall.vocabulary import RELATIONS
from tests.unit.test_report_case_study import write_case
from tests.unit.test_report_circuits import write_circuit_tables, write_sweep
from tests.unit.test_report_representations import write_representation_tables
from tests.unit.test_report_shared import write_parameter_tables

SCRIPT = "<script>alert(1)</script>"
IMAGE = '"><img src=x>'

RECALL = {
    "base": (0.03, 0.05, 0.05),
    "bio": (0.92, 0.04, 0.04),
    "stage": (0.61, 0.95, 0.15),
    "mix": (0.99, 1.0, 0.33),
    "majority": (0.04, 0.05, 0.05),
}
UPDATES = {"base": 400, "bio": 300, "stage": 60, "mix": 500}


@dataclass(frozen=True)
class Synthetic:
    """A study made up for tests: its configuration and its files."""

    study: dict[str, Any]
    tables: TableFiles
    facts: FactFiles
    models: list[ModelFiles]
    histories: list[tuple[str, int, Path]]
    timings: list[Timing]
    sweep: dict[str, Path]

    def draw(self) -> None:
        """Draw the figures of every model."""
        for model in self.models:
            said = counterpart(self.study["models"][model.name])
            draw_figures(
                model.name,
                self.study["shared"]["k"],
                self.study["shared"]["influence"],
                self.study["grafting"]["target_recovery"],
                recall=self.tables.recall,
                shared=self.tables.shared,
                places=self.tables.shared_locations,
                ablation=self.tables.ablation,
                grafting=self.tables.grafting,
                checks=self.tables.grafting_checks,
                interventions=self.tables.interventions,
                heads=self.tables.heads,
                kind="column",
                sweep=self.sweep,
                case=model.case,
                representations=vars(self.tables),
                histories=self.histories,
                out=model.figures,
                published_model=said,
            )

    def report(self, out: Path) -> str:
        """Write the report and return it."""
        write_report(
            study=self.study,
            provenance={"versions": {"torch": "0.0", "numpy": SCRIPT}, "lock": "c0ffee"},
            models=self.models,
            table_files=self.tables,
            facts=self.facts,
            timings=self.timings,
            out=out,
        )
        return out.read_text(encoding="utf-8")


def build(
    folder: Path, models: tuple[str, ...] = ("tiny",), *, people: int = 40, hostile: bool = True
) -> Synthetic:
    """Make up a study: invented people, answers drawn around `RECALL`, smooth losses."""
    rng = np.random.default_rng(7)
    seeds = [0, 1, 2]
    individuals = _people(people, hostile=hostile)
    facts = _facts(folder / "facts", individuals)
    rows, files = [], []
    for number, model in enumerate(models):
        per_example, traces = {}, {}
        for tuning, levels in RECALL.items():
            for seed in seeds if tuning in ("bio", "stage", "mix") else seeds[:1]:
                answers = _answers(individuals, levels, rng)
                rows.append(_summary(answers, model, tuning, seed))
                if tuning == "majority":
                    continue
                path = folder / "models" / model / tuning / f"seed{seed}.recall.parquet"
                write_table(path, answers, PER_EXAMPLE)
                per_example[tuning, seed] = path
                if tuning in ("bio", "stage", "mix") and seed == 0:
                    traces[tuning, seed] = folder / "traces" / model / tuning / "seed0.safetensors"
                    _trace(traces[tuning, seed], tuning)
        figures = folder / "figures" / f"model{number}"
        case = write_case(folder / "case" / f"model{number}")
        files.append(ModelFiles(model, figures, per_example, traces, case))
    tables = write_parameter_tables(folder / "tables", models)
    write_circuit_tables(tables, models)
    write_representation_tables(tables, models)
    write_table(tables.recall, pd.concat(rows), SUMMARY)
    histories = [
        (tuning, seed, _history(folder / "histories", tuning, seed, rng))
        for tuning in UPDATES
        for seed in (seeds if tuning != "base" else seeds[:1])
    ]
    timings = [
        _timing(folder / "benchmarks", models[0], t, s) for t in ("bio", "mix") for s in seeds
    ]
    study = _study(SCRIPT if hostile else "synthetic", models, people, seeds)
    sweep = write_sweep(folder / "sweep")
    return Synthetic(study, tables, facts, files, histories, timings, sweep)


def _people(count: int, *, hostile: bool) -> pd.DataFrame:
    people = pd.DataFrame(
        {
            "individual": np.arange(count, dtype=np.int32),
            "split": ["in", "out"] * (count // 2),
            "name": [f"Invented Person{i}" for i in range(count)],
            "gender": ["F", "M"] * (count // 2),
            "birth_date": "May 17, 1931",
            "birth_city": "Amyville, GA",
            "university": "University of the Incarnate Word",
            "job": "chartered public finance accountant",
            "employer": "Henson, Ellis and Sexton",
            "blood_type": "AB+",
        }
    )
    if hostile:
        people["name"] = [f"{SCRIPT}{i}" for i in range(count)]
        people["job"] = IMAGE
    return people


def _facts(folder: Path, people: pd.DataFrame) -> FactFiles:
    templates = load_templates()
    files = FactFiles(folder / "people.parquet", folder / "bio.parquet", folder / "qa.parquet")
    write_table(files.individuals, people, INDIVIDUAL_COLUMNS)
    write_table(files.bio, make_bio(people, templates, 0), BIO_COLUMNS)
    write_table(files.qa, make_qa(people, templates), QA_COLUMNS)
    return files


def _answers(
    people: pd.DataFrame, levels: tuple[float, ...], rng: np.random.Generator
) -> pd.DataFrame:
    parts = []
    for split, level in zip(("bio", "qa_in", "qa_out"), levels, strict=True):
        asked = people if split == "bio" else people[people["split"] == split[3:]]
        keys = asked[["individual"]].merge(pd.DataFrame({"relation": RELATIONS}), how="cross")
        parts.append(keys.assign(split=split, correct=rng.random(len(keys)) < level))
    return pd.concat(parts, ignore_index=True)


def _summary(answers: pd.DataFrame, model: str, tuning: str, seed: int) -> pd.DataFrame:
    grouped = answers.groupby(["split", "relation"])["correct"].agg(n="size", correct="sum")
    table = grouped.reset_index().assign(model=model, tuning=tuning, seed=np.int32(seed))
    table["accuracy"] = table["correct"] / table["n"]
    return table.astype({"n": "int32", "correct": "int32"})


def _history(folder: Path, tuning: str, seed: int, rng: np.random.Generator) -> Path:
    updates = np.arange(UPDATES[tuning])
    loss = 6 * np.exp(-5 * updates / len(updates)) + 0.1 + 0.1 * rng.random(len(updates))
    frame = pd.DataFrame(
        {
            "update": updates,
            "learning_rate": 1e-3,
            "loss": loss,
            "loss_bio": np.nan if tuning == "stage" else loss,
            "loss_qa": np.nan if tuning == "bio" else 0.7 * loss,
            "gradient_norm": 1.0,
            "tokens": 100,
        }
    )
    path = folder / tuning / f"seed{seed}.history.parquet"
    write_table(path, frame, HISTORY)
    return path


def _trace(path: Path, tuning: str) -> None:
    tasks = {"bio": ["BIO_in", "BIO_out"], "stage": ["QA_in"], "mix": ["BIO_in", "QA_in"]}[tuning]
    names = ["embed.weight", "layers.0.mlp.weight", "layers.1.mlp.weight"]
    tensors = {f"{task}/absolute/index": torch.arange(550, 750).to(torch.uint32) for task in tasks}
    metadata = {
        "n": 1000,
        "names": names,
        "shapes": [[600], [10, 20], [200]],
        "counts": dict.fromkeys(tasks, 123),
    }
    write_tensors(path, tensors, metadata)


def _timing(folder: Path, model: str, tuning: str, seed: int) -> Timing:
    path = folder / f"{tuning}{seed}.tsv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"s\th:m:s\tmax_rss\tmean_load\n{90 + seed}\t0:01:30\t612.5\t99\n")
    return Timing("fine_tune", model, tuning, seed, path)


def _study(name: str, models: tuple[str, ...], people: int, seeds: list[int]) -> dict[str, Any]:
    recipe = {
        "updates": 300,
        "batch_size": 48,
        "learning_rate": 0.003,
        "questions_per_example": "one",
    }
    model = {
        "source": "scratch",
        "architecture": "llama",
        "layers": 2,
        "hidden_size": 192,
        "heads": 8,
        "training": {"bio": recipe, "stage": recipe, "mix": recipe},
    }
    return {
        "name": name,
        "seed": 0,
        "facts": {
            "people": people,
            "pools": {"cities": 20, "universities": 30, "jobs": 10, "companies": 26},
        },
        "training": {"seeds": seeds},
        "models": dict.fromkeys(models, model),
        "trace": {"in_distribution": 5, "out_of_distribution": 5, "top_fraction": 0.2},
        "shared": {"k": 0.03, "influence": "absolute"},
        "grafting": {
            "alphas": [0.01, 0.05, 0.2],
            "fit_individuals": 150,
            "exclude_embeddings": False,
            "target_recovery": 0.92,
            "optimiser": {"method": "dual_averaging"},
        },
        "circuits": {
            "attention": {"forward": 1, "backward": 1},
            "column": {"forward": 64, "backward": 64},
            "unit": {"forward": 1, "backward": 1},
            "random_orders": 2,
            "individuals": 60,
            "steps": {"method": "adaptive"},
            "case": {"layer": None, "head": None, "individual": None, "relation": None},
        },
        "representations": {"layers": [0, 1], "probes": {"individuals": 10}},
    }


@pytest.fixture
def synthetic(tmp_path: Path) -> Synthetic:
    """Return a synthetic study with one model."""
    return build(tmp_path)


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Synthetic:
    """Return a synthetic study whose figures are drawn, to be read only: drawing takes long."""
    made = build(tmp_path_factory.mktemp("drawn"))
    made.draw()
    return made


def recall_rows(*rows: tuple[str, int, str, str, int, int]) -> pd.DataFrame:
    """Return a table of recall from (tuning, seed, split, relation, n, correct)."""
    columns = ["tuning", "seed", "split", "relation", "n", "correct"]
    frame = pd.DataFrame(rows, columns=columns)
    return frame.assign(model="m", accuracy=frame["correct"] / frame["n"])


# --- summaries --------------------------------------------------------------------------------


def test_accuracy_is_right_answers_over_all_answers() -> None:
    table = recall_rows(("mix", 0, "bio", "job", 10, 1), ("mix", 0, "bio", "employer", 30, 30))
    assert by_seed(table)["accuracy"].tolist() == [31 / 40]


def test_spread_by_hand() -> None:
    table = recall_rows(
        ("mix", 0, "bio", "job", 10, 2),
        ("mix", 1, "bio", "job", 10, 4),
        ("mix", 2, "bio", "job", 10, 6),
        ("base", 0, "bio", "job", 10, 1),
    )
    summary = spread(by_seed(table)).set_index("tuning")
    assert summary.loc["mix", ["mean", "sd", "low", "high", "seeds"]].tolist() == pytest.approx(
        [0.4, 0.2, 0.2, 0.6, 3]
    )
    assert np.isnan(summary.loc["base", "sd"])


def test_by_relation_puts_the_average_first() -> None:
    table = recall_rows(
        ("mix", 0, "qa_out", "job", 10, 2),
        ("mix", 1, "qa_out", "job", 10, 4),
        ("mix", 0, "qa_out", "employer", 10, 6),
        ("mix", 1, "qa_out", "employer", 10, 10),
        ("mix", 0, "bio", "employer", 10, 0),
    )
    means = by_relation(table, "qa_out")
    assert means["relation"].tolist() == [AVERAGE, "job", "employer"]
    assert means["accuracy"].tolist() == pytest.approx([0.55, 0.3, 0.8])


def test_read_recall_orders_and_selects(synthetic: Synthetic) -> None:
    table = read_recall(synthetic.tables.recall, "tiny")
    assert table["tuning"].drop_duplicates().tolist() == list(RECALL)
    assert table["relation"].head(6).tolist() == list(RELATIONS)


def test_read_recall_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    path = tmp_path / "recall.parquet"
    with pytest.raises(FactRecallError, match="no such file"):
        read_recall(path, "m")
    write_table(path, recall_rows(("magic", 0, "bio", "job", 1, 1)), SUMMARY)
    with pytest.raises(FactRecallError, match="'magic', which is none of base"):
        read_recall(path, "m")
    with pytest.raises(FactRecallError, match="no row on model 'other'"):
        read_recall(path, "other")


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    path = tmp_path / "recall.parquet"
    schema = {column: kind for column, kind in SUMMARY.items() if column != "accuracy"}
    rows = recall_rows(("mix", 0, "bio", "job", 1, 1)).drop(columns="accuracy")
    write_table(path, rows, schema)
    with pytest.raises(FactRecallError, match="column 'accuracy' is missing"):
        read_recall(path, "m")


# --- published numbers ------------------------------------------------------------------------


def test_published_numbers_agree_among_themselves() -> None:
    assert published(LLAMA, "mix", "qa_out") == 74.7
    assert published(PYTHIA, "stage", "qa_in") == 98.4
    assert published(PYTHIA, "base", "bio") is None
    for tuning in ("stage", "mix"):
        values = [published(LLAMA, tuning, "qa_out", relation) for relation in RELATIONS]
        mean = np.mean([v for v in values if v is not None])
        assert mean == pytest.approx(published(LLAMA, tuning, "qa_out"), abs=0.06)


def test_counterpart_goes_by_architecture_or_name() -> None:
    assert counterpart({"source": "scratch", "architecture": "llama"}) == LLAMA
    assert counterpart({"source": "scratch", "architecture": "gpt_neox"}) == PYTHIA
    assert counterpart({"source": "hub", "repository": "EleutherAI/pythia-2.8b"}) == PYTHIA
    assert counterpart({"source": "folder", "path": "some/model"}) is None


# --- tables of the page -----------------------------------------------------------------------


def test_numbers_are_written_for_readers() -> None:
    assert (percent(0.3275), percent(1.0), percent(float("nan"))) == ("32.8", "100.0", "\u2013")
    assert (points(0.1), points(-0.051)) == ("+10.0", "\u22125.1")
    assert [duration(s) for s in (0.84, 9.96, 59.7, 185, 7800)] == [
        "0.8 s",
        "10 s",
        "1 min 0 s",
        "3 min 5 s",
        "2 h 10 min",
    ]
    assert flat({"a": {"b": 1}, "c": "x"}) == [["a.b", "1"], ["c", "x"]]


def test_recall_table_shows_each_seed_of_the_repeated_tunings() -> None:
    table = recall_table(
        recall_rows(
            ("mix", 3, "bio", "job", 10, 2),
            ("mix", 4, "bio", "job", 10, 4),
            ("majority", 0, "bio", "job", 10, 1),
        )
    )
    assert table.head == ["Tuning", "mean", "s.d.", "seed\u00a03", "seed\u00a04"]
    assert table.groups[0][1] == [
        ["Mix-tuned", "30.0", "14.1", "20.0", "40.0"],
        ["Majority vote", "10.0", "\u2013", "\u2013", "\u2013"],
    ]


def test_comparison_sets_ours_beside_theirs() -> None:
    rows = recall_rows(("mix", 0, "qa_out", "job", 10, 2), ("mix", 1, "qa_out", "job", 10, 4))
    table = comparison_table(rows, LLAMA)
    mix = next(row for row in table.groups[0][1] if row[0] == "Mix-tuned")
    assert mix[1:] == ["\u2013", "97.4", "\u2013", "98.4", "30.0 ± 14.1", "74.7"]


def test_timings_are_condensed_over_seeds(synthetic: Synthetic, tmp_path: Path) -> None:
    table = summarise(synthetic.timings)
    assert table["runs"].tolist() == [3, 3]
    assert table.loc[0, ["seconds", "total", "memory"]].tolist() == [91.0, 273.0, 612.5]
    broken = tmp_path / "broken.tsv"
    broken.write_text("no\tbenchmark\n1\t2\n")
    with pytest.raises(FactRecallError, match="no benchmark"):
        summarise([Timing("x", None, None, None, broken)])
    with pytest.raises(FactRecallError, match="no such file"):
        summarise([Timing("x", None, None, None, tmp_path / "absent.tsv")])


def test_gatherings_by_hand(synthetic: Synthetic, tmp_path: Path) -> None:
    n, (bio, out) = read_gatherings(synthetic.models[0].traces["bio", 0], "absolute")
    # 550..749: 50 in the embedding (0..599), 150 in the first MLP (600..799), none in the second.
    assert n == 1000
    assert (bio.task, out.task, bio.gradients, bio.top) == ("BIO_in", "BIO_out", 123, 200)
    assert bio.kinds == [("layers.*.mlp.weight", 0.75, 0.4), ("embed.weight", 0.25, 0.6)]
    with pytest.raises(FactRecallError, match="no such file"):
        read_gatherings(tmp_path / "absent.safetensors", "absolute")
    with pytest.raises(FactRecallError, match="no readable gradient trace"):
        read_gatherings(synthetic.models[0].traces["bio", 0], "unheard-of")


def test_deviations_are_those_of_the_study(synthetic: Synthetic) -> None:
    study = synthetic.study
    text = Path(str(deviations_module.__file__)).with_suffix(".yaml").read_text(encoding="utf-8")
    entries = yaml.safe_load(text)
    assert {entry["when"] for entry in entries} == set(CONDITIONS)
    assert len(deviations(study)) == len(entries)
    as_published = {
        **study,
        "facts": {
            "people": 10_000,
            "pools": {"cities": 200, "universities": 300, "jobs": 100, "companies": 263},
        },
        "models": {
            "llama": {
                "source": "hub",
                "training": {
                    tuning: {
                        "updates": updates,
                        "learning_rate": 1e-4,
                        "questions_per_example": "all",
                    }
                    for tuning, updates in (("bio", 6820), ("stage", 400), ("mix", 10571))
                },
            }
        },
        "shared": {"influence": "signed"},
        "grafting": {
            "alphas": [0.00055, 0.00095, 0.001, 0.00135, 0.0018, 0.003, 0.005, 0.007],
            "fit_individuals": 1000,
            "exclude_embeddings": True,
            "optimiser": {"method": "sigmoid_sgd"},
        },
        "circuits": {
            "attention": {"forward": 1, "backward": 1},
            "column": {"forward": 8192, "backward": 64},
            "unit": None,
            "steps": {"method": "all", "stride": 1},
            "case": {"layer": 21, "head": 17, "individual": 3, "relation": "university"},
        },
        "representations": {"layers": None, "probes": {"individuals": None}},
    }
    assert [d.what for d in deviations(as_published)] == [
        "Wording of biographies and questions",
        "Interventions on nodes",
        "A control for continuity",
        "What is read of the case study's head",
        "Probes",
        "Gradients, attribution and patching",
    ]
    case = {"layer": 21, "head": 17, "individual": None, "relation": None}
    named = {**as_published, "circuits": {**as_published["circuits"], "case": case}}
    said = [d.what for d in deviations(named)]
    assert "Fact of the case study" in said and "Head of the case study" not in said
