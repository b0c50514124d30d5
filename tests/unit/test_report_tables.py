"""A synthetic study for the tests of the report, and the tests of its tables."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

import factrecall.report.deviations as deviations_module
from factrecall.config.reading import read_study
from factrecall.config.study import Study
from factrecall.data.files import BIO_COLUMNS, INDIVIDUAL_COLUMNS, QA_COLUMNS
from factrecall.data.tables import make_bio, make_qa
from factrecall.data.templates import load_templates
from factrecall.evaluation.exact_match import PER_EXAMPLE, SUMMARY
from factrecall.experiments.report import draw_figures, timings, write_report
from factrecall.experiments.sections import inputs
from factrecall.report.deviations import CONDITIONS, deviations
from factrecall.report.published import LLAMA, PYTHIA, counterpart, published
from factrecall.report.tables import count, flat, percent, points
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

PRESET = Path(__file__).parents[2] / "workflow/presets/ci.yaml"

SCRIPT = "<script>alert(1)</script>"
IMAGE = '"><img src=x>'

RECALL = {
    "base": (0.03, 0.05, 0.05),
    "bio": (0.92, 0.04, 0.04),
    "stage": (0.61, 0.95, 0.15),
    "mix": (0.99, 1.0, 0.33),
    "majority": (0.04, 0.05, 0.05),
}
UPDATES = {"bio": 300, "stage": 60, "mix": 500}
SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Synthetic:
    """A study made up for tests: its configuration and its results folder."""

    study: Study
    results: Path

    def figures(self, model: str = "tiny") -> Path:
        """Return the folder of a model's figures."""
        return self.results / "figures" / model

    def draw(self) -> None:
        """Draw the figures of every model."""
        for model in self.study.models:
            declared = draw_figures.stage.settings(self.study, model)  # type: ignore[attr-defined]
            draw_figures.__wrapped__(  # type: ignore[attr-defined]
                None, model=model, results=self.results, out=self.figures(model), **declared
            )

    def report(self, out: Path) -> str:
        """Write the report and return it."""
        versions = {"torch": "0.0", "numpy": SCRIPT}
        job = SimpleNamespace(provenance={"versions": versions, "lock": "c0ffee", "settings": {}})
        write_report.__wrapped__(  # type: ignore[attr-defined]
            job, results=self.results, out=out, captions=out.parent / "captions", study=self.study
        )
        return out.read_text(encoding="utf-8")


def build(
    folder: Path, models: tuple[str, ...] = ("tiny",), *, people: int = 40, hostile: bool = True
) -> Synthetic:
    """Make up a study: invented people, answers drawn around `RECALL`, smooth losses."""
    rng = np.random.default_rng(7)
    individuals = _people(people, hostile=hostile)
    _facts(folder / "facts", individuals)
    rows = []
    for model in models:
        for tuning, levels in RECALL.items():
            for seed in SEEDS if tuning in UPDATES else SEEDS[:1]:
                answers = _answers(individuals, levels, rng)
                rows.append(_summary(answers, model, tuning, seed))
                if tuning not in UPDATES:
                    continue
                stem = folder / "models" / model / tuning / f"seed{seed}"
                write_table(Path(f"{stem}.recall.parquet"), answers, PER_EXAMPLE)
                _history(Path(f"{stem}.history.parquet"), tuning, rng)
                _timing(folder / f"benchmarks/fine_tune/{model}/{tuning}-seed{seed}.tsv", seed)
            if tuning in UPDATES:
                _trace(folder / "traces" / model / tuning / "seed0.safetensors", tuning)
        write_case(folder)
        if model != "m":
            shutil.copytree(folder / "case/m", folder / "case" / model)
        sweep = write_sweep(folder / "sweep")
        stem = folder / "circuits" / model / "mix" / "seed0.unit.shared"
        stem.parent.mkdir(parents=True)
        shutil.copy(sweep["sweep_steps"], f"{stem}.parquet")
        shutil.copy(sweep["sweep_questions"], f"{stem}.questions.parquet")
    for write in (write_parameter_tables, write_circuit_tables, write_representation_tables):
        write(folder / "tables", models)
    write_table(folder / "tables/recall.parquet", pd.concat(rows), SUMMARY)
    return Synthetic(_study(SCRIPT if hostile else "synthetic", models), folder)


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


def _facts(folder: Path, people: pd.DataFrame) -> None:
    templates = load_templates()
    write_table(folder / "individuals.parquet", people, INDIVIDUAL_COLUMNS)
    write_table(folder / "bio.parquet", make_bio(people, templates, 0), BIO_COLUMNS)
    write_table(folder / "qa.parquet", make_qa(people, templates), QA_COLUMNS)


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


def _history(path: Path, tuning: str, rng: np.random.Generator) -> None:
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
    write_table(path, frame, HISTORY)


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


def _timing(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"s\th:m:s\tmax_rss\tmean_load\n{90 + seed}\t0:01:30\t612.5\t99\n")


def _study(name: str, models: tuple[str, ...]) -> Study:
    """Return the small study with other names, seeds and layers; names may be markup."""
    study = read_study(PRESET)
    (shape, *_) = study.models.values()
    return study.model_copy(
        update={
            "name": name,
            "models": dict.fromkeys(models, shape),
            "training": study.training.model_copy(update={"seeds": list(SEEDS)}),
            "trace": study.trace.model_copy(
                update={"in_distribution": 5, "out_of_distribution": 5}
            ),
            "representations": study.representations.model_copy(update={"layers": [0, 1]}),
        }
    )


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
    assert (count(3, "seed"), count(1, "seed"), count(12, "seed")) == (
        "three seeds", "one seed", "12 seeds"
    )  # fmt: skip
    assert flat({"a": {"b": 1}, "c": "x"}) == [["a.b", "1"], ["c", "x"]]


def test_timings_are_found_and_condensed_over_seeds(synthetic: Synthetic, tmp_path: Path) -> None:
    folder = synthetic.results / "benchmarks"
    shown = {run for run in ("make_facts", "graft/tiny/mix-seed0-in",
                             "intervene/tiny/mix-seed0-unit-shared")}  # fmt: skip
    for name in (*shown, "fine_tune/removed/mix-seed0", "fine_tune/tiny/mix-seed9",
                 "draw_figures/tiny", "summarise_recall"):  # fmt: skip
        _timing(folder / f"{name}.tsv", 0)
    table = summarise(list(timings(synthetic.study, folder)))
    assert table["stage"].tolist() == [
        "make_facts", *["fine_tune"] * 3, "graft", "intervene, unit, shared"
    ]  # fmt: skip
    assert table["tuning"].tolist() == ["", "bio", "stage", "mix", "mix", "mix"]
    assert table["runs"].tolist() == [1, 3, 3, 3, 1, 1]
    assert table.loc[1, ["seconds", "total", "memory"]].tolist() == [91.0, 273.0, 612.5]
    broken = tmp_path / "broken.tsv"
    broken.write_text("no\tbenchmark\n1\t2\n")
    with pytest.raises(FactRecallError, match="no benchmark"):
        summarise([Timing("x", "", "", broken)])
    with pytest.raises(FactRecallError, match="no such file"):
        summarise([Timing("x", "", "", tmp_path / "absent.tsv")])


def test_inputs_are_all_that_sections_read(synthetic: Synthetic) -> None:
    files = inputs(synthetic.study, "tiny")
    assert len(files) == len(set(files))
    assert all((synthetic.results / file).exists() for file in files)


_RECIPE = {"updates": 300, "learning_rate": 0.003, "questions_per_example": "one"}
DEPARTING: dict[str, Any] = {
    "facts": {
        "people": 40,
        "pools": {"cities": 20, "universities": 30, "jobs": 10, "companies": 26},
    },
    "models": {
        "m": {"source": "scratch", "training": dict.fromkeys(("bio", "stage", "mix"), _RECIPE)}
    },
    "shared": {"influence": "absolute"},
    "grafting": {
        "alphas": [0.01, 0.05, 0.2],
        "fit_individuals": 150,
        "exclude_embeddings": False,
        "optimiser": {"method": "dual_averaging"},
    },
    "circuits": {
        "attention": {"forward": 1, "backward": 1},
        "column": {"forward": 64, "backward": 64},
        "unit": {"forward": 1, "backward": 1},
        "steps": {"method": "adaptive"},
        "case": {"layer": None, "head": None, "individual": None, "relation": None},
    },
    "representations": {"layers": [0, 1], "probes": {"individuals": 10}},
}
"""A study that departs from the paper in every way that is known."""


def test_deviations_are_those_of_the_study() -> None:
    study = DEPARTING
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
