"""Layer-wise ablation resets one layer's shared parameters, and is judged by a rule."""

from __future__ import annotations

import copy
from pathlib import Path

import pandas as pd
import pytest
import torch

from factrecall.data.files import BIO_COLUMNS, QA_COLUMNS
from factrecall.evaluation.exact_match import PER_EXAMPLE, Evaluator
from factrecall.experiments.layer_ablation.report import SECTION
from factrecall.experiments.layer_ablation.stages import (
    ALL,
    LAYER_ABLATION,
    RESET,
    ablate_layers,
    summarise_layer_ablation,
)
from factrecall.models.loading import load_model, save_model
from factrecall.parameters.sets import ParameterSet, write_sets
from factrecall.parameters.space import ParameterSpace
from factrecall.runs import Evaluation
from factrecall.runtime.job import Job
from factrecall.runtime.seeds import generator
from factrecall.runtime.statistics import TOGETHER
from factrecall.runtime.storage import read_table, write_table
from tests.conftest import Tiny

CPU = torch.device("cpu")


@pytest.fixture
def files(tiny: Tiny, tmp_path: Path) -> dict[str, Path]:
    """Write a model before and after a random change that it survives, and some of it as S."""
    tuned, noise = copy.deepcopy(tiny.model), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in tuned.parameters():
            parameter.add_(0.5 * torch.randn(parameter.shape, generator=noise))
    space = ParameterSpace.of(tuned)
    found = {name: tmp_path / name for name in ("base", "tuned", "sets", "bio", "qa", "out")}
    save_model(found["base"], tiny.model, tiny.tokenizer)
    save_model(found["tuned"], tuned, tiny.tokenizer)
    write_table(found["bio"], tiny.facts.bio, BIO_COLUMNS)
    write_table(found["qa"], tiny.facts.qa, QA_COLUMNS)
    shared = (~ParameterSet.empty(space)).sample(space.size // 3, generator(1))
    write_sets(found["sets"], {"S": shared}, {})
    return found


def test_each_reset_equals_a_model_composed_by_hand(tiny: Tiny, files: dict[str, Path]) -> None:
    ablate_layers(Job(device=CPU), **files, seed=0, tokens=512, study_seed=3)
    found = read_table(files["out"], {**RESET, **PER_EXAMPLE})
    evaluator = Evaluator.of(tiny.tokenizer, tiny.facts.bio, tiny.facts.qa, 512)
    space = ParameterSpace.of(tiny.model)
    shared = (~ParameterSet.empty(space)).sample(space.size // 3, generator(1))
    before = dict(tiny.model.named_parameters())
    layers = sorted({space.place(name)[0] for name in space.names})
    assert layers == [-1, 0, 1]
    for layer in (ALL, *layers):
        naive = load_model(files["tuned"])
        for name, local in shared.by_tensor():
            if layer in (ALL, space.place(name)[0]):
                with torch.no_grad():
                    flat = dict(naive.named_parameters())[name].view(-1)
                    index = torch.from_numpy(local.astype("int64"))
                    flat[index] = before[name].view(-1)[index]
        rows = found[(found["layer"] == layer) & (found["ablated"] == "shared")]
        expected = evaluator.evaluate(naive)
        pd.testing.assert_frame_equal(
            rows[list(PER_EXAMPLE)].reset_index(drop=True), expected, check_dtype=False
        )
    assert (found["ablated"] == "random").sum() == 3 * len(evaluator.rows)


def answers(costs: dict[int, float], whole: float) -> pd.DataFrame:
    """Return answers of which each reset takes a share away."""
    resets = [(ALL, "none", 0.0), (ALL, "shared", whole)]
    resets += [(layer, "shared", cost) for layer, cost in costs.items()]
    resets += [(layer, "random", 0.0) for layer in costs]
    people, rows = range(100), []
    for layer, ablated, cost in resets:
        for person in people:
            rows.append((layer, ablated, "qa_out", person, "job", person >= 100 * cost))
    return pd.DataFrame(rows, columns=[*RESET, *PER_EXAMPLE])


@pytest.mark.parametrize(
    ("costs", "verdict"),
    [
        ({0: 0.1, 1: 0.1, -1: 0.0}, "holds"),
        ({0: 0.58, 1: 0.02, -1: 0.0}, "does not hold"),
        ({0: 0.31, 1: 0.02, -1: 0.0}, "inconclusive"),
    ],
)
def test_the_claim_is_judged(costs: dict[int, float], verdict: str, tmp_path: Path) -> None:
    runs = []
    for seed in (0, 1, 2):
        path = tmp_path / f"{seed}.parquet"
        write_table(path, answers(costs, 0.6), {**RESET, **PER_EXAMPLE})
        runs.append(Evaluation("m", "mix", seed, path))
    out = tmp_path / "layers.parquet"
    summarise_layer_ablation(Job(), evaluations=runs, out=out, study_seed=0)
    table = read_table(out, LAYER_ABLATION)
    one = table[(table["seed"] == TOGETHER) & (table["ablated"] == "shared")].set_index("layer")
    assert one["drop"].to_dict() == pytest.approx({**costs, ALL: 0.6})
    assert (one["low"] <= one["drop"]).all() and (one["drop"] <= one["high"]).all()
    measures = SECTION.read(model="m", files={"layer_ablation": out})
    (judged,) = SECTION.judged(measures)
    assert judged.verdict == verdict and judged.is_extension
