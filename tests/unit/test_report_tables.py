"""Tables of the page: how numbers are written, timings, and departures from the paper."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

import factrecall.report.deviations as deviations_module
from factrecall.config.reading import read_study
from factrecall.experiments.report import timings
from factrecall.report.deviations import CONDITIONS, deviations
from factrecall.report.section import Source, in_order
from factrecall.report.tables import count, flat, mean_sd, percent, points
from factrecall.report.timings import Timing, duration, summarise
from factrecall.runtime.errors import FactRecallError
from factrecall.runtime.storage import write_table

PRESET = Path(__file__).parents[2] / "workflow/presets/ci.yaml"


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


def test_the_spread_is_the_sample_standard_deviation() -> None:
    assert mean_sd(pd.Series([0.2, 0.4, 0.6])) == "40.0 ± 20.0"
    assert mean_sd(pd.Series([0.2, np.nan])) == "20.0"
    assert mean_sd(pd.Series([np.nan])) == "\u2013"


def test_rows_of_a_model_are_read_in_the_order_in_which_they_are_shown(tmp_path: Path) -> None:
    order = list(
        product(["base", "bio", "stage", "mix", "majority"], [2, 10], ["bio", "qa_in", "qa_out"])
    )
    table = pd.DataFrame(order, columns=["tuning", "seed", "split"]).assign(model="m")
    other = table.assign(model="other")
    path = tmp_path / "recall.parquet"
    columns = {"model": "string", "tuning": "string", "seed": "int32", "split": "string"}
    write_table(path, pd.concat([other, table])[::-1], columns)
    rows = Source("m", {"recall": path}).rows("recall")
    assert list(rows[["tuning", "seed", "split"]].itertuples(index=False, name=None)) == order
    assert rows.index.tolist() == list(range(len(order))) and set(rows["model"]) == {"m"}
    # Equal ones stay as they are, words without a label come last.
    made = pd.DataFrame({"tuning": ["new", "mix", "stage", "mix"], "number": range(4)})
    assert in_order(made)["number"].tolist() == [2, 1, 3, 0]


def _timing(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"s\th:m:s\tmax_rss\tmean_load\n{90 + seed}\t0:01:30\t612.5\t99\n")


def test_timings_are_found_and_condensed_over_seeds(tmp_path: Path) -> None:
    study = read_study(PRESET)
    model, *_ = study.models
    seeds, folder = study.training.seeds, tmp_path / "benchmarks"
    runs = [f"fine_tune/{model}/{t}-seed{s}" for t in ("bio", "stage", "mix") for s in seeds]
    runs += [
        "make_facts/seed0",
        f"graft/{model}/mix-seed0-in",
        f"intervene/{model}/mix-seed0-unit-shared",
    ]
    others = [
        "fine_tune/removed/mix-seed0",
        f"fine_tune/{model}/mix-seed9",
        f"draw_figures/{model}",
        "summarise_recall",
    ]
    for name in (*runs, *others):
        _timing(folder / f"{name}.tsv", int(name[-1]) if "seed" in name[-5:] else 0)
    table = summarise(list(timings(study, folder)))
    assert table["stage"].tolist() == [
        "make_facts", *["fine_tune"] * 3, "graft", "intervene, unit, shared"
    ]  # fmt: skip
    assert table["tuning"].tolist() == ["", "bio", "stage", "mix", "mix", "mix"]
    assert table["runs"].tolist() == [1, *[len(seeds)] * 3, 1, 1]
    total = sum(90 + seed for seed in seeds)
    expected = [total / len(seeds), total, 612.5]
    assert table.loc[1, ["seconds", "total", "memory"]].tolist() == expected
    broken = tmp_path / "broken.tsv"
    broken.write_text("no\tbenchmark\n1\t2\n")
    with pytest.raises(FactRecallError, match="no benchmark"):
        summarise([Timing("x", "", "", broken)])
    with pytest.raises(FactRecallError, match="no such file"):
        summarise([Timing("x", "", "", tmp_path / "absent.tsv")])


_RECIPE = {"updates": 300, "learning_rate": 0.003, "questions_per_example": "one"}
DEPARTING: dict[str, Any] = {
    "facts": {
        "people": 40,
        "pools": {"cities": 20, "universities": 30, "jobs": 10, "companies": 26},
    },
    "models": {
        name: {"source": source, "training": dict.fromkeys(("bio", "stage", "mix"), _RECIPE)}
        for name, source in (("m", "scratch"), ("g", "gguf"))
    },
    "shared": {"influence": "absolute"},
    "grafting": {
        "alphas": [0.01, 0.05, 0.2],
        "objectives": ["gold", "distilled"],
        "fit_individuals": 150,
        "exclude_embeddings": False,
        "optimiser": {"method": "dual_averaging"},
    },
    "circuits": {
        "attention": {"forward": 1, "backward": 1},
        "column": {"forward": 64, "backward": 64},
        "unit": {"forward": 1, "backward": 1},
        "steps": {"method": "adaptive"},
        "individuals": 40,
        "random_orders": 1,
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
            "objectives": ["gold"],
            "fit_individuals": 1000,
            "exclude_embeddings": True,
            "optimiser": {"method": "sigmoid_sgd"},
        },
        "circuits": {
            "attention": {"forward": 1, "backward": 1},
            "column": {"forward": 8192, "backward": 64},
            "unit": None,
            "steps": {"method": "all", "stride": 1},
            "individuals": None,
            "random_orders": 10,
            "case": {"layer": 21, "head": 17, "individual": 3, "relation": "university"},
        },
        "representations": {"layers": None, "probes": {"individuals": None}},
    }
    always = [entry["what"] for entry in entries if entry["when"] == "always"]
    assert [d.what for d in deviations(as_published)] == always
    case = {"layer": 21, "head": 17, "individual": None, "relation": None}
    named = {**as_published, "circuits": {**as_published["circuits"], "case": case}}
    said = [d.what for d in deviations(named)]
    assert "Fact of the case study" in said and "Head of the case study" not in said
