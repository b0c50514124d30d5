"""Ablations reset what they say, are paired, and are counted right."""

from __future__ import annotations

import copy
import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from factrecall.config.reading import read_study
from factrecall.cost.devices import SOME_CPU
from factrecall.cost.evaluation import JobContext
from factrecall.cost.jobs import StageJob
from factrecall.cost.models import model_info
from factrecall.data.files import BIO_COLUMNS, QA_COLUMNS
from factrecall.evaluation.exact_match import Evaluator
from factrecall.experiments.ablation.compute import (
    ABLATION,
    MEMBERS,
    PEOPLE,
    PER_ABLATION,
    SETS,
    drawn_people,
)
from factrecall.experiments.ablation.cost import count_resets
from factrecall.experiments.ablation.resets import LARGE, NONE, RESETS, Context, parts, planned
from factrecall.experiments.ablation.stages import (
    Ablated,
    ablate,
    summarise_ablation,
    transplant_shared,
)
from factrecall.experiments.shared_parameters.compute import Rankings, shared_sets
from factrecall.models.loading import load_model, save_model
from factrecall.parameters.patched_weights import PatchedWeights
from factrecall.parameters.sets import ParameterSet, write_sets
from factrecall.parameters.space import ParameterSpace
from factrecall.runtime.job import Job
from factrecall.runtime.safetensors_writer import write_tensors
from factrecall.runtime.seeds import generator
from factrecall.runtime.storage import read_table, write_table
from factrecall.vocabulary import INFLUENCES, RELATIONS, SPLITS, TASKS
from tests.conftest import Tiny

CPU = torch.device("cpu")
K = 3000
HOW = {"draws": 2, "individuals": 3, "max_eval_tokens": 512, "study_seed": 3}


def noisy(tiny: Tiny, seed: int) -> Any:
    """Return the model after a random change that it survives."""
    tuned, noise = copy.deepcopy(tiny.model), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in tuned.parameters():
            parameter.add_(0.5 * torch.randn(parameter.shape, generator=noise))
    return tuned


def rankings(space: ParameterSpace, seed: int = 0) -> Rankings:
    """Return rankings of all parameters that agree in part, and prefer the first tensors."""
    rng = generator(seed, "rankings")
    base = rng.random(space.size) + 0.3 * np.arange(space.size) / space.size
    index = {
        key: np.argsort(base + rng.random(space.size)).astype(np.uint32)
        for key in itertools.product(TASKS, INFLUENCES)
    }
    return Rankings(space, space.size, index)


@pytest.fixture
def context(tiny: Tiny) -> Any:
    before = {n: p.detach() for n, p in tiny.model.named_parameters()}
    with PatchedWeights(noisy(tiny, 0), before) as weights:
        yield Context(rankings(weights.space), K, "absolute", weights)


def members(name: str, c: Context, draw: int = 0) -> ParameterSet:
    """Return the members of one ablation."""
    table = RESETS | parts(c)
    return table[name].members(c, generator(draw, name))


def lines(chosen: ParameterSet, rows: bool) -> Counter[tuple[str, int]]:
    """Count members by tensor and row, or by tensor and column."""
    found: Counter[tuple[str, int]] = Counter()
    for name, local in chosen.by_tensor():
        shape = chosen.space.shape_of[name]
        places = np.unravel_index(local.astype(int), shape if len(shape) > 1 else (1, *shape))
        found.update((name, int(line)) for line in places[0 if rows else 1])
    return found


def test_random_controls_are_outside_s_and_as_many(context: Context) -> None:
    shared = context.shared
    assert shared == shared_sets(context.rankings, "absolute", K)["S"] and 300 < len(shared) < K
    random = [name for name, reset in RESETS.items() if reset.drawn and name != "only_random"]
    assert {n for n in RESETS if n.startswith("random")} == set(random)
    for name in random:
        one, other = members(name, context), members(name, context, draw=1)
        assert not len(one & shared) and one != other
        assert one == members(name, context)
    assert len(members("random", context)) == len(shared)
    assert members("random_by_tensor", context).counts() == shared.counts()
    assert members("random", context).counts() != shared.counts()
    size = context.rankings.space.shape_of
    for name, rows in (("random_same_rows", True), ("random_same_columns", False)):
        ours, theirs = lines(members(name, context), rows), lines(shared, rows)
        assert set(ours) <= set(theirs)
        for (tensor, line), count in theirs.items():
            shape = size[tensor] if len(size[tensor]) > 1 else (1, *size[tensor])
            length = shape[1] if rows else shape[0]
            assert ours[tensor, line] == min(count, length - count)
        assert lines(members(name, context), not rows) != lines(shared, not rows)


def test_where_few_are_left_all_are_taken(context: Context) -> None:
    space = context.rankings.space
    (full, size), *_ = space.size_of.items()
    first = np.arange(space.size, dtype=np.uint32)  # S is nearly all of the first tensor
    same = Rankings(space, space.size, dict.fromkeys(context.rankings.index, first))
    c = Context(same, size - 5, "absolute", context.weights)
    rest = ParameterSet.tensors(space, [full]) - c.shared
    assert len(rest) == 5
    assert members("random_by_tensor", c) == rest == members("layer_random:-1", c) & rest
    assert members("random_same_rows", c) == rest and len(members("random_same_columns", c)) == 5


def test_most_moved_and_the_tops_are_what_they_are_called(context: Context) -> None:
    weights, size = context.weights, len(context.shared)
    moved = torch.cat([(weights.task[n] - weights.pre[n]).abs().reshape(-1) for n in weights.pre])
    most = torch.argsort(moved, descending=True, stable=True)[:size]
    assert set(members("most_moved", context).index.tolist()) == set(most.tolist())
    rank = {
        task: {int(i): r for r, i in enumerate(context.rankings.index[task, "absolute"])}
        for task in TASKS
    }
    best = {i: min(rank["BIO_in"][i], rank["BIO_out"][i]) for i in rank["QA_in"]}
    for name, own, other in (("bio", best, rank["QA_in"]), ("qa", rank["QA_in"], best)):
        order = sorted(own, key=lambda i: own[i])
        top = members(f"{name}_top", context)
        assert len(top) == size and {own[int(i)] for i in top.index} <= {*range(size)}
        only = [i for i in order if other[i] >= K]
        assert len(members(f"{name}_only", context)) == size
        cut = own[only[size - 1]]
        found = members(f"{name}_only", context).index.tolist()
        assert all(other[i] >= K and own[i] <= cut for i in found)
        by_tensor = members(f"{name}_only_by_tensor", context)
        assert by_tensor.counts() == context.counts and all(other[i] >= K for i in by_tensor.index)


def test_single_tensors_and_layers_divide_s(context: Context) -> None:
    shared, space, found = context.shared, context.rankings.space, parts(context)
    tensors = [name.partition(":")[2] for name in found if name.startswith("tensor:")]
    assert tensors == [n for n, c in shared.counts().items() if c >= LARGE * len(shared)]
    for name in tensors:
        inside, rest = (members(f"shared_{p}:{name}", context) for p in ("in", "without"))
        assert inside | rest == shared and not len(inside & rest)
        assert len(members(f"tensor:{name}", context)) == space.size_of[name]
        assert inside == shared & members(f"tensor:{name}", context)
    layers = [members(name, context) for name in found if name.startswith("layer:")]
    assert len(layers) == 3 and sum(map(len, layers)) == len(shared)
    assert layers[0] | layers[1] | layers[2] == shared
    for layer in (-1, 0, 1):
        random = members(f"layer_random:{layer}", context)
        assert {space.place(n)[0] for n, c in random.counts().items() if c} <= {layer}
        own = sum(c for n, c in context.counts.items() if space.place(n)[0] == layer)
        left = sum(c for n, c in (~shared).counts().items() if space.place(n)[0] == layer)
        assert len(random) == min(own, left) and not len(random & shared)
    assert len(members("layer_random:0", context))


def test_every_influence_has_its_s_and_controls(context: Context) -> None:
    plan = list(planned(context, 3))
    keys = [(one.ablated, one.influence, one.draw) for one in plan]
    assert len(set(keys)) == len(keys) and keys[0] == (NONE, "", 0)
    for influence in INFLUENCES:
        names = {one.ablated for one in plan if one.influence == influence}
        assert {"shared", "random", "random_by_tensor", "most_moved"} <= names
        (one,) = (o for o in plan if (o.ablated, o.influence) == ("shared", influence))
        expected = shared_sets(context.rankings, influence, K)["S"]
        assert one.members(one.context, generator(0)) == expected
    assert {d for name, i, d in keys if (name, i) == ("random", "absolute")} == {0, 1, 2}
    everything = [(one.ablated, one.draw) for one in plan if one.everything]
    assert everything == [(name, 0) for name in RESETS if RESETS[name].everything]


@pytest.mark.parametrize("preset", ["ci", "paper"])
def test_the_plan_counts_the_ablations(preset: str) -> None:
    study = read_study(Path(__file__).parents[2] / f"workflow/presets/{preset}.yaml")
    name = next(iter(study.models))
    info = model_info(study, name)
    whole, some = count_resets(JobContext(study, info, StageJob("ablate"), SOME_CPU))
    draws, layers = study.ablation.draws, info.shape.layers
    assert whole == 5
    fixed = 2 * (draws - 1) + 2 * draws + 7 + draws + 4 * (len(INFLUENCES) - 1)
    assert some - fixed - 2 * (layers + 1) in (3 * 3 * layers, 3 * 100)


@pytest.fixture
def files(tiny: Tiny, tmp_path: Path) -> dict[str, Any]:
    """Write two models and the one before, facts, a trace and the sets."""
    found = {name: tmp_path / name for name in ("base", "tuned", "other", "sets", "bio", "qa")}
    save_model(found["base"], tiny.model, tiny.tokenizer)
    for name, seed in (("tuned", 0), ("other", 1)):
        save_model(found[name], noisy(tiny, seed), tiny.tokenizer)
    write_table(found["bio"], tiny.facts.bio, BIO_COLUMNS)
    write_table(found["qa"], tiny.facts.qa, QA_COLUMNS)
    space = ParameterSpace.of(tiny.model)
    made = rankings(space)
    tops = {f"{t}/{i}/index": torch.from_numpy(v) for (t, i), v in made.index.items()}
    said = {**space.metadata(), "keep": space.size, "counts": dict.fromkeys(TASKS, 1)}
    write_tensors(tmp_path / "trace", tops, said)
    sets = shared_sets(made, "absolute", K)
    write_sets(found["sets"], sets, {"k": K, "influence": "absolute"})
    return {**found, "traces": [tmp_path / "trace"]}


def composed(tiny: Tiny, folder: Path, reset_to: Path, chosen: ParameterSet) -> pd.DataFrame:
    """Return answers of a model some of whose parameters are another's, put there one by one."""
    naive, before = load_model(folder), dict(load_model(reset_to).named_parameters())
    inside = set(chosen.index.tolist())
    with torch.no_grad():
        for (name, start), p in zip(chosen.space.offsets(), naive.parameters(), strict=True):
            flat = torch.arange(start, start + p.numel()).view(p.shape)
            mask = torch.tensor([int(i) in inside for i in flat.reshape(-1)]).view(p.shape)
            p.copy_(torch.where(mask != chosen.complement, before[name], p))
    return Evaluator.of(tiny.tokenizer, tiny.facts.bio, tiny.facts.qa, 512).evaluate(naive)


def same(rows: pd.DataFrame, expected: pd.DataFrame) -> bool:
    """Say whether rows of a table are among the answers expected, and right where these are."""
    both = rows.merge(expected, on=["split", "individual", "relation"], suffixes=("", "_naive"))
    assert len(both) == len(rows) > 0
    return bool((both["correct"] == both["correct_naive"]).all())


def test_each_ablation_equals_a_model_composed_by_hand(
    tiny: Tiny, files: dict[str, Any], tmp_path: Path
) -> None:
    del files["other"]
    out, chosen = tmp_path / "out", tmp_path / "members"
    ablate(Job(device=CPU), **files, seed=0, out=out, members=chosen, **HOW)
    rows, sets = read_table(out, PER_ABLATION), read_table(chosen, MEMBERS)
    before = {n: p.detach() for n, p in tiny.model.named_parameters()}
    tensors = set(sets["tensor"])
    with PatchedWeights(load_model(files["tuned"]), before) as weights:
        c = Context(rankings(weights.space), K, "absolute", weights)
        plan = {(o.ablated, o.influence, o.draw): o for o in planned(c, 2)}
        keys = ["ablated", "influence", "draw"]
        assert set(plan) == set(rows[keys].itertuples(index=False, name=None))
        for key in [
            (NONE, "", 0), ("shared", "signed", 0), ("random", "absolute", 1),
            ("only_shared", "absolute", 0), ("layer:1", "absolute", 0), ("bio_only", "absolute", 0),
        ]:  # fmt: skip
            rng = generator(3, "ablation", 0, *key)
            expected = plan[key].members(plan[key].context, rng)
            ours = rows[(rows[keys] == list(key)).all(axis=1)]
            assert same(ours, composed(tiny, files["tuned"], files["base"], expected))
            counted = sets[(sets[keys] == list(key)).all(axis=1)].set_index("tensor")
            assert counted["members"].to_dict() == {t: n for t, n in expected.counts().items() if n}
            overlap = (expected & plan[key].context.shared).counts()
            assert counted["shared"].to_dict() == {t: overlap[t] for t in counted.index}
    assert tensors == set(c.rankings.space.names)
    # The paper's are evaluated on all facts, the others on the questions of a few people.
    whole = rows[rows["ablated"] == NONE]
    assert set(whole["split"]) == set(SPLITS) and whole["individual"].nunique() == 16
    some = rows[rows["ablated"] == "bio_only"]
    assert len(some) == 2 * 3 * 6 and set(some["split"]) == {"qa_in", "qa_out"}
    assert set(some["individual"]) == set(drawn_people(tiny.facts.qa, 3, 3))


def test_transplanted_values_are_the_other_models(
    tiny: Tiny, files: dict[str, Any], tmp_path: Path
) -> None:
    files["donor"] = files.pop("other")
    del files["base"]
    out, chosen = tmp_path / "out", tmp_path / "members"
    transplant_shared(
        Job(device=CPU), **files, tuning="stage", seed=0, out=out, members=chosen, **HOW
    )
    rows, space = read_table(out, PER_ABLATION), ParameterSpace.of(tiny.model)
    assert set(rows["ablated"]) == {"mix_into_stage", "mix_into_stage_random"}
    shared = shared_sets(rankings(space), "absolute", K)["S"]
    ours = rows[rows["ablated"] == "mix_into_stage"]
    assert same(ours, composed(tiny, files["tuned"], files["donor"], shared))
    sets = read_table(chosen, MEMBERS).groupby(["ablated", "draw"])[["members", "shared"]].sum()
    size = len(shared)
    assert sets.loc["mix_into_stage", 0].tolist() == [size, size]
    assert sets.loc["mix_into_stage_random"].to_numpy().tolist() == [[size, 0]] * 2


def answers(run: int, names: dict[str, float], people: range) -> pd.DataFrame:
    """Return answers with set shares right, as `ablate` writes them."""
    rng = generator(run, "answers")
    keys = itertools.product(names, SPLITS, people, RELATIONS)
    table = pd.DataFrame(keys, columns=["ablated", "split", "individual", "relation"])
    table["correct"] = rng.random(len(table)) < table["ablated"].map(names)
    return table.assign(influence="absolute", draw=0)


def test_the_tables_count_answers_to_the_same_questions(tmp_path: Path) -> None:
    runs, examples = [], {}
    for number, (tuning, seed) in enumerate(itertools.product(("stage", "mix"), (0, 1))):
        paths = [tmp_path / f"{number}.{kind}" for kind in range(4)]
        table = pd.concat(
            [
                answers(number, {NONE: 0.9, "shared": 0.2}, range(30)),
                answers(number, {"bio_only": 0.5}, range(10, 20)),
            ]
        )
        other = answers(number + 10, {"into": 0.7}, range(10))
        examples[tuning, seed] = pd.concat([table, other])
        none = {"ablated": NONE, "influence": "", "draw": 0, "tensor": "t", "size": 9}
        sets = pd.DataFrame([{**none, "members": number, "shared": 1}])
        for path, rows, schema in zip(
            paths, (table, sets, other, sets), (PER_ABLATION, MEMBERS) * 2, strict=True
        ):
            write_table(path, rows, schema)
        runs.append(Ablated("m", tuning, seed, *paths))
    out = {name: tmp_path / name for name in ("out", "people", "sets")}
    summarise_ablation(Job(), evaluations=runs, **out)
    table, people = read_table(out["out"], ABLATION), read_table(out["people"], PEOPLE)
    assert len(table) == 4 * 4 * 3 * 6 and len(people) == 4 * 3 * (30 + 30 + 10 + 10)
    for found, column in ((table, "relation"), (people, "individual")):
        assert not found.duplicated(["tuning", "seed", "ablated", "split", column]).any()
        for row in found.sample(60, random_state=1).to_dict("records"):
            ours = examples[row["tuning"], row["seed"]]
            ours = ours[(ours["split"] == row["split"]) & (ours[column] == row[column])]
            here, whole = (ours[ours["ablated"] == n] for n in (row["ablated"], NONE))
            whole = whole[whole["individual"].isin(here["individual"])]
            assert (row["n"], row["correct"]) == (len(here), here["correct"].sum())
            drop = whole["correct"].mean() - here["correct"].mean()
            assert row["drop"] == pytest.approx(drop)
    assert (table["accuracy"] == table["correct"] / table["n"]).all()
    assert read_table(out["sets"], SETS)["members"].tolist() == [0, 1, 2, 3] * 2
