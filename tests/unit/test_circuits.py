"""Interventions and the case study end to end on tiny models: what the stages write."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from factrecall.data.files import BIO_COLUMNS, QA_COLUMNS
from factrecall.experiments.circuits import summary as tables
from factrecall.experiments.circuits.continuity import CONTINUITY
from factrecall.experiments.circuits.settings import AdaptiveSteps, AllSteps, NodesPerStep
from factrecall.experiments.circuits.stages import Intervention, intervene, summarise_circuits
from factrecall.experiments.circuits.tables import CURVES, NODES, QUESTIONS, STEPS
from factrecall.experiments.grafting.grafted_model import Grafted, open_grafted
from factrecall.experiments.grafting.people import fitted_people
from factrecall.experiments.grafting.settings import DualAveraging, GraftingSettings
from factrecall.experiments.grafting.stages import graft
from factrecall.experiments.grafting.tables import OUTCOMES
from factrecall.models.loading import load_model, save_model
from factrecall.parameters.nodes import Nodes
from factrecall.parameters.sets import ParameterSet, read_sets, write_sets
from factrecall.parameters.space import ParameterSpace
from factrecall.runs import RANKINGS
from factrecall.runtime.errors import FactRecallError
from factrecall.runtime.job import Job
from factrecall.runtime.seeds import generator
from factrecall.runtime.storage import read_table, write_table
from factrecall.training.examples import training_set
from factrecall.training.loop import train
from factrecall.vocabulary import RELATIONS
from tests.conftest import Tiny, recipe

CPU = torch.device("cpu")
PEOPLE = 4
GRAFTING = GraftingSettings(
    alphas=[0.1, 0.4],
    fit_individuals=PEOPLE,
    exclude_embeddings=False,
    target_recovery=0.5,
    optimiser=DualAveraging(method="dual_averaging", updates=4, batch_size=24),
)


@pytest.fixture
def folder(tiny: Tiny, tmp_path: Path) -> Path:
    return prepared(tiny, tmp_path)


def prepared(tiny: Tiny, folder: Path) -> Path:
    """Make θpre, two fine-tuned models with their shared sets, and both grafted on QA out."""
    save_model(folder / "base", tiny.model, tiny.tokenizer)
    facts = tiny.facts
    # What is asked out of distribution is trained on here, so that there is recall to look into.
    qa = facts.qa.assign(split=facts.qa["split"].replace({"out": "in"}))
    write_table(folder / "qa.parquet", facts.qa, QA_COLUMNS)
    write_table(folder / "bio.parquet", facts.bio, BIO_COLUMNS)
    for seed, (tuning, updates) in enumerate({"mix": 90, "stage": 40}.items()):
        model = copy.deepcopy(tiny.model)
        lessons = recipe(updates=updates, batch_size=24, learning_rate=1e-2)
        train(model, training_set("mix", lessons, facts.bio, qa, tiny.tokenizer), lessons, seed)
        save_model(folder / tuning, model, tiny.tokenizer)
        everything = ~ParameterSet.empty(ParameterSpace.of(model))
        shared = everything.sample(4000, generator(seed))
        write_sets(folder / f"{tuning}.sets", {"S": shared})
        graft(
            Job(CPU, state=folder / "state"), grafting=GRAFTING, max_eval_tokens=512, study_seed=7,
            thorough=False, base=folder / "base", tuned=folder / tuning, seed=0, split="out",
            qa=folder / "qa.parquet", out=folder / f"{tuning}.masks",
            table=folder / f"{tuning}.outcomes", examples=folder / "examples",
            checks=folder / "checks",
        )  # fmt: skip
    return folder


def run(
    folder: Path,
    kind: str,
    by: str,
    size: NodesPerStep,
    steps: AllSteps | AdaptiveSteps,
    individuals: int | None = None,
    *,
    name: str = "circuits",
    checkpoint_interval_s: float = 1e9,
) -> Intervention:
    """Run one job; its tables are in the folder of that name."""
    files = {
        part: folder / name / f"{kind}.{by}.{part}.parquet"
        for part in ("steps", "curves", "nodes", "questions")
    }
    intervene(
        Job(CPU, state=folder / "state", checkpoint_interval_s=checkpoint_interval_s),
        kind=kind, ranking=by, size=size, steps=steps, random_orders=int(by == "baseline"),
        individuals=individuals, grafted_individuals=PEOPLE, max_eval_tokens=512, study_seed=7,
        base=folder / "base", tuned=folder / "mix", seed=0,
        sets=folder / "mix.sets" if by == "shared" else None, masks=folder / "mix.masks",
        outcomes=folder / "mix.outcomes", qa=folder / "qa.parquet", out=files["steps"],
        curves=files["curves"], nodes=files["nodes"], questions=files["questions"],
    )  # fmt: skip
    return Intervention("m", "mix", 0, kind, by, *files.values())


def both(*arguments: Any, **more: Any) -> list[Intervention]:
    """Run the job by shared parameters and that of its controls."""
    folder, kind, *others = arguments
    return [run(folder, kind, by, *others, **more) for by in RANKINGS]


def open_mix(folder: Path) -> Grafted:
    files = (folder / f"mix.{name}" for name in ("masks", "outcomes"))
    return open_grafted(folder / "base", folder / "mix", *files, CPU)


def summarised(folder: Path, interventions: list[Intervention]) -> dict[str, pd.DataFrame]:
    schemas = {
        "out": tables.INTERVENTIONS,
        "by_relation": tables.BY_RELATION,
        "continuity": CONTINUITY,
        "heads": tables.HEADS,
        "sweeps": tables.SWEEPS,
        "circuits": tables.CIRCUITS,
    }
    paths = {name: folder / f"summary.{name}.parquet" for name in schemas}
    summarise_circuits(Job(), interventions=interventions, first_study_seed=7, **paths)
    return {name: read_table(paths[name], schema) for name, schema in schemas.items()}


def test_sweeps_go_from_pre_to_the_grafted_model_and_back(folder: Path) -> None:
    done = both(folder, "attention", NodesPerStep(forward=1, backward=4), AllSteps(method="all"))
    questions, others = (read_table(one.questions, QUESTIONS) for one in done)
    assert questions.equals(others)
    found = summarised(folder, done)
    steps, nodes = found["out"], found["heads"]
    keys = ["direction", "ranking", "random_order", "step"]
    right = pd.concat(read_table(one.steps, STEPS) for one in done).set_index(keys)["right"]
    assert len(questions) == PEOPLE * len(RELATIONS)
    grafted = open_mix(folder)
    judge = grafted.questions(folder / "qa.parquet", PEOPLE, None, 7, 512)
    assert judge.rows["individual"].tolist() == questions["individual"].tolist()
    whole = grafted.right(judge)
    assert questions["grafted"].tolist() == whole.tolist() and whole.mean() > 0
    # The model that grafting judged is the one that is taken apart here.
    table = read_table(folder / "mix.outcomes", OUTCOMES)
    outcome = table[table["taken_apart"]]
    assert outcome["accuracy"].item() == whole.mean()
    assert set(found["sweeps"]["objective"]) == {outcome["objective"].item()}
    held_out = outcome["held_out_recovery"].item()
    assert found["sweeps"]["held_out_recovery"].to_numpy() == pytest.approx(held_out, nan_ok=True)
    names = {"forward": len(nodes), "backward": -(-len(nodes) // 4)}
    floors = set()
    for (direction, ranking, number), rows in steps.groupby(
        ["direction", "ranking", "random_order"]
    ):
        assert rows["step"].tolist() == list(range(names[direction] + 1))
        first, last = (
            right[direction, ranking, number, step].tolist() for step in (0, names[direction])
        )
        everything, nothing = (last, first) if direction == "forward" else (first, last)
        assert everything == np.flatnonzero(whole).tolist()
        floors.add(tuple(nothing))
        assert rows["nodes"].iloc[-1] == len(nodes)
        for column in ("shared_fraction", "grafted_fraction"):
            assert rows[column].is_monotonic_increasing
            assert (rows[column].iloc[0], rows[column].iloc[-1]) == (0.0, 1.0)
        if ranking != "random":
            gains = np.diff(rows[f"{ranking}_fraction"])
            ranked = nodes.sort_values(f"{ranking}_rank")[ranking].to_numpy()
            if direction == "forward":
                assert sorted(gains * ranked.sum()) == pytest.approx(sorted(ranked))
    assert len(floors) == 1 and floors != {tuple(np.flatnonzero(whole))}
    assert set(steps["ranking"]) == {"shared", "grafted", "random"}


def test_the_tables_of_a_study(folder: Path) -> None:
    each, bent = (
        AllSteps(method="all", stride=3),
        AdaptiveSteps(method="adaptive", intervals=3, held_out=2),
    )
    done = [
        *both(folder, "attention", NodesPerStep(forward=2, backward=2), each),
        *both(folder, "unit", NodesPerStep(forward=4, backward=8), bent),
        *both(folder, "column", NodesPerStep(forward=16, backward=16), each, individuals=2),
    ]
    found = summarised(folder, done)
    whole = {d.kind: read_table(d.questions, QUESTIONS)["grafted"].mean() for d in done}
    steps = found["out"]
    assert set(steps["kind"]) == {"attention", "unit", "column"}
    assert (steps["completeness"] == steps["accuracy"] / steps["kind"].map(whole)).all()
    asked = {(d.kind, d.ranking): read_table(d.steps, STEPS) for d in done}
    assert len(steps) == sum(map(len, asked.values()))
    sums = found["by_relation"].groupby([*tables.KEYS, "step"], sort=False)[["correct", "n"]].sum()
    total = steps.set_index([*tables.KEYS, "step"])["accuracy"]
    assert (sums["correct"] / sums["n"]).reindex(total.index).tolist() == pytest.approx(
        total.tolist()
    )
    assert set(found["by_relation"]["n"]) == {PEOPLE, 2}
    assert len(found["heads"]) == len(read_table(done[0].nodes, NODES))
    curves = found["sweeps"].set_index("kind")
    assert curves.loc["attention", "worst"].isna().all()
    assert (curves.loc["unit", "evaluated"] <= curves.loc["unit", "steps"] + 1).all()
    assert (curves.loc["unit", "held_out"] <= 2).all()
    lasting = found["continuity"]
    assert set(lasting["shuffled"]) == {True, False} and (lasting["right"] > 0).all()
    forward = asked["column", "shared"].query("direction == 'forward'")
    ever = set().union(*map(set, forward["right"]))
    assert len(lasting.query("kind == 'column' and not shuffled")) == len(ever)


def test_controls_hold_nothing_of_what_is_shared(folder: Path) -> None:
    """Another S is another job by it, and leaves its controls and their draws as they are."""
    done = both(
        folder, "unit", NodesPerStep(forward=8, backward=8), AllSteps(method="all", stride=2)
    )
    shared, controls = done
    before = {path: path.read_bytes() for path in files_of(controls)}
    orders = read_table(shared.curves, CURVES)["order"]
    with pytest.raises(FactRecallError, match="it is given for: shared"):
        summarised(folder, [shared])
    first = summarised(folder, done)["out"].set_index("ranking")

    space = ParameterSpace.of(load_model(folder / "mix"))
    others = (~ParameterSet.empty(space)).sample(3000, generator(99))
    write_sets(folder / "mix.sets", {"S": others})
    done = both(
        folder, "unit", NodesPerStep(forward=8, backward=8), AllSteps(method="all", stride=2)
    )
    assert before == {path: path.read_bytes() for path in before}
    assert not orders.equals(read_table(shared.curves, CURVES)["order"])
    second = summarised(folder, done)["out"].set_index("ranking")
    for ranking in ("grafted", "random"):
        same = second.loc[ranking, "grafted_fraction"] == first.loc[ranking, "grafted_fraction"]
        assert same.all()
        # Of S there is as much in their nodes as in any: it is S that has changed.
        assert not second.loc[ranking, "shared_fraction"].equals(
            first.loc[ranking, "shared_fraction"]
        )


def files_of(job: Intervention) -> list[Path]:
    return [job.steps, job.curves, job.nodes, job.questions]


def test_fractions_are_counted_in_the_order_of_each_sweep(folder: Path) -> None:
    done = both(
        folder, "column", NodesPerStep(forward=8, backward=16), AllSteps(method="all", stride=3)
    )
    steps = summarised(folder, done)["out"]
    model = load_model(folder / "mix")
    nodes = Nodes.of(model, "column")
    grafted = open_mix(folder)
    sets = {
        "shared": read_sets(folder / "mix.sets")["S"],
        "grafted": ParameterSet(nodes.space, grafted.mask.index),
    }
    orders = pd.concat(read_table(one.curves, CURVES) for one in done)
    orders = orders.set_index(["direction", "ranking", "random_order"])["order"]
    for row in steps.itertuples():
        gone = orders[row.direction, row.ranking, row.random_order][: row.nodes]
        for name, chosen in sets.items():
            counts = nodes.counts(chosen)
            expected = counts[gone].sum() / counts.sum()
            assert getattr(row, f"{name}_fraction") == pytest.approx(expected)


def test_curves_of_people_are_read_at_places() -> None:
    questions = pd.DataFrame(
        {"individual": [5, 5, 2, 2], "relation": ["job", "city"] * 2,
         "grafted": [True, True, True, False]}
    )  # fmt: skip
    right = np.array([[0, 0, 0, 0], [1, 0, 0, 0], [1, 1, 1, 0]], dtype=bool)
    steps = pd.DataFrame(
        {"direction": "forward", "ranking": "random", "random_order": [0] * 3 + [1] * 3,
         "step": [0, 1, 2] * 2, "nodes": [0, 5, 10] * 2}
    )  # fmt: skip
    twice = np.vstack([right, ~right])
    found = tables.by_person(steps, twice, questions, "attention", 10)
    assert found.groupby("individual")["whole"].first().to_dict() == {2: 0.5, 5: 1.0}
    # The two orders are each other's opposite: halfway between, everywhere.
    assert found["right"].to_numpy() == pytest.approx(0.5)
    found = tables.by_person(steps[:3], right, questions, "attention", 10)
    value = found.set_index(["individual", "start", "end"])["right"]
    assert value[5, 0.0, 0.0] == 0 and value[5, 0.6, 0.6] == pytest.approx(0.6)
    assert value[5, 0.1, 0.1] == pytest.approx(0.1)
    assert value[5, 0.0, 1.0] == pytest.approx(0.5) and value[2, 0.0, 1.0] == pytest.approx(0.125)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=6), st.floats(0, 1), st.floats(0, 1))
def test_means_of_curves_are_those_of_fine_steps(
    heights: list[float], one: float, other: float
) -> None:
    start, end = sorted((one, other))
    share, line = np.linspace(0, 1, len(heights)), np.array([heights])
    found = tables.mean_between(share, line, start, end)
    fine = np.interp(np.linspace(start, end, 2001), share, heights).mean()
    assert found[0] == pytest.approx(fine, abs=1e-3)


def test_fitted_people_are_those_of_grafting(tiny: Tiny) -> None:
    asked = tiny.facts.qa[tiny.facts.qa["split"] == "out"]
    everyone = fitted_people(asked, None, 7, "out")
    assert sorted(everyone) == sorted(asked["individual"].unique())
    assert sorted(fitted_people(asked, 999, 7, "out")) == sorted(everyone)
    some = fitted_people(asked, 3, 7, "out")
    assert len(set(some)) == 3 and set(some) <= set(everyone)
    assert set(some) != set(fitted_people(asked, 3, 8, "out"))
