"""Consistency of gradients against a naive twin, one whole gradient at a time."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional

from factrecall.config.training import TraceSettings
from factrecall.data.files import BIO_COLUMNS, INDIVIDUAL_COLUMNS, QA_COLUMNS
from factrecall.data.traced import traced_individuals
from factrecall.experiments.gradient_similarity.compute import (
    Pairs,
    compared_people,
    compared_sets,
)
from factrecall.experiments.gradient_similarity.runs import Moment
from factrecall.experiments.gradient_similarity.sampled_parameters import (
    Products,
    SampledParameters,
)
from factrecall.experiments.gradient_similarity.settings import GradientSimilaritySettings
from factrecall.experiments.gradient_similarity.stages import gradient_similarity
from factrecall.experiments.gradient_similarity.summary import mean_cosines
from factrecall.experiments.gradient_similarity.tables import (
    GRADIENT_SUMMARY,
    GRADIENTS,
    MOST,
)
from factrecall.experiments.grafting.tables import OUTCOMES
from factrecall.models.loading import save_model
from factrecall.models.scratch import build_model
from factrecall.parameters.sets import ParameterSet, write_sets
from factrecall.parameters.space import ParameterSpace
from factrecall.runtime.checkpoint import Checkpoint
from factrecall.runtime.errors import FactRecallError
from factrecall.runtime.job import Job
from factrecall.runtime.storage import read_table, write_table
from factrecall.training.snapshots import Snapshots
from factrecall.vocabulary import RELATIONS
from tests.conftest import Tiny, scratch, tokenizer_for

CPU = torch.device("cpu")
TRACE = TraceSettings(in_distribution=3, out_of_distribution=3)
GROUPS = ["all", "S", "gamma", "random", "rest", "layer 0", "layer 1", "embeddings"]
MOMENTS = [("bio", 0.0, "base"), ("bio", 0.5, "snapshot"), ("stage", 1.0, "tuned")]


def moved(tiny: Tiny, seed: int) -> torch.nn.Module:
    """Return the model with some noise on its weights."""
    model = copy.deepcopy(tiny.model)
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    return model


def sets_of(tiny: Tiny) -> tuple[ParameterSet, ParameterSet]:
    """Return an S and a γ that overlap."""
    everything = ~ParameterSet.empty(ParameterSpace.of(tiny.model))
    rng = np.random.default_rng(5)
    shared = everything.sample(len(everything) // 8, rng)
    return shared, shared.sample(len(shared) // 3, rng) | everything.sample(2000, rng)


@pytest.fixture
def folder(tiny: Tiny, tmp_path: Path) -> Path:
    """Write a history of three moments, its sets and the facts."""
    save_model(tmp_path / "base", tiny.model, tiny.tokenizer)
    save_model(tmp_path / "tuned", moved(tiny, 1), tiny.tokenizer)  # type: ignore[arg-type]
    checkpoint = Checkpoint(tmp_path / "state.safetensors", 1.0)
    taken = Snapshots(moved(tiny, 2), 10, [tmp_path / "snapshot"], checkpoint, {})
    taken.take(5)
    taken.publish()
    shared, grafted = sets_of(tiny)
    write_sets(tmp_path / "sets", {"S": shared})
    nothing = ParameterSet.empty(shared.space)
    write_sets(tmp_path / "masks", {"gold 0.1": nothing, "distilled 0.2": grafted})
    row = {"with_shared": True, "method": "m", "accuracy": 1.0, "recovery": 1.0, "size": 1}
    row |= {"held_out_recovery": 1.0, "chosen": True}
    outcomes = [
        {**row, "objective": "gold", "alpha": 0.1, "taken_apart": False},
        {**row, "objective": "distilled", "alpha": 0.2, "taken_apart": True},
    ]
    write_table(tmp_path / "outcomes", pd.DataFrame(outcomes), OUTCOMES)
    write_table(tmp_path / "individuals", tiny.facts.individuals, INDIVIDUAL_COLUMNS)
    write_table(tmp_path / "bio", tiny.facts.bio, BIO_COLUMNS)
    write_table(tmp_path / "qa", tiny.facts.qa, QA_COLUMNS)
    return tmp_path


def run(
    folder: Path,
    gradients: GradientSimilaritySettings,
    moments: list[tuple[str, float, str]] = MOMENTS,
) -> pd.DataFrame:
    gradient_similarity(
        Job(CPU),
        gradients=gradients,
        tracing=TRACE,
        study_seed=0,
        moments=[Moment(phase, share, folder / path) for phase, share, path in moments],
        sets=folder / "sets",
        masks=folder / "masks",
        outcomes=folder / "outcomes",
        facts=[folder / name for name in ("individuals", "bio", "qa")],
        out=folder / "gradients.parquet",
    )
    return read_table(folder / "gradients.parquet", GRADIENTS)


def naive_gradient(
    model: torch.nn.Module, tiny: Tiny, text: str, start: int, end: int
) -> np.ndarray:
    """Gradient of the mean loss over the tokens of a span, by the whole text's forward pass."""
    encoded = tiny.tokenizer(text, return_offsets_mapping=True)
    ids = torch.tensor(encoded["input_ids"])
    offsets = encoded["offset_mapping"]
    answer = [i for i, (a, b) in enumerate(offsets) if b > a and a < end and b > start]
    logits = model(input_ids=ids[None]).logits[0]
    loss = torch.stack([-functional.log_softmax(logits[i - 1], 0)[ids[i]] for i in answer]).mean()
    parts = torch.autograd.grad(loss, list(model.parameters()))
    return torch.cat([part.flatten() for part in parts]).numpy()


def naive_cosines(
    model: torch.nn.Module, tiny: Tiny, people: list[int], masks: Mapping[str, np.ndarray]
) -> dict[tuple[str, str, int, str], float]:
    """All cosines of one moment and split by group, kind, individual and relation."""
    model = copy.deepcopy(model).double()
    statements, questions = {}, {}
    for person in people:
        bio = tiny.facts.bio[tiny.facts.bio["individual"] == person]
        qa = tiny.facts.qa[tiny.facts.qa["individual"] == person]
        text, before = " ".join(bio["text"]), 0
        for row, question in zip(bio.itertuples(), qa.itertuples(), strict=True):
            span = before + row.attribute_start, before + row.terminator_end
            statements[person, row.relation] = naive_gradient(model, tiny, text, *span)
            before += len(row.text) + 1
            span = question.attribute_start, question.terminator_end
            questions[person, question.relation] = naive_gradient(model, tiny, question.text, *span)
    attributes = tiny.facts.individuals.set_index("individual")
    found = {}
    for group, mask in masks.items():
        own_statements, own_questions = (
            {
                key: gradient / np.linalg.norm(gradient)
                for key, gradient in zip(of, part, strict=True)
            }
            for of in (statements, questions)
            for part in [np.stack(list(of.values()))[:, mask]]
        )
        for (person, relation), gradient in own_statements.items():
            others = {
                "matched": [(person, relation)],
                "person": [
                    (other, relation)
                    for other in people
                    if attributes.loc[other, relation] != attributes.loc[person, relation]
                ],
                "relation": [(person, other) for other in RELATIONS if other != relation],
            }
            for kind, keys in others.items():
                cosine = np.mean([gradient @ own_questions[key] for key in keys] or np.nan)
                found[group, kind, person, relation] = float(cosine)
    return found


def masks_of(tiny: Tiny) -> dict[str, np.ndarray]:
    """Return each group as a mask over the flat parameters."""
    shared, grafted = sets_of(tiny)
    space = shared.space
    of_tensor = np.repeat([space.place(name)[0] for name in space.names], space.sizes)
    random = compared_sets(shared, grafted, 0)["random"]
    s, g, r = (np.isin(np.arange(space.size), part.index) for part in (shared, grafted, random))
    for cell in itertools.product(*((part, ~part) for part in (s, g, r))):
        assert np.logical_and.reduce(cell).any()
    return {
        "all": np.ones(space.size, dtype=bool),
        "S": s,
        "gamma": g,
        "random": r,
        "rest": ~(s | g),
        "layer 0": of_tensor == 0,
        "layer 1": of_tensor == 1,
        "embeddings": of_tensor == -1,
    }


def test_cosines_are_those_of_a_naive_twin(tiny: Tiny, folder: Path) -> None:
    found = run(folder, GradientSimilaritySettings(individuals=2, untraced=2))
    traced = traced_individuals(tiny.facts.individuals, TRACE, 0)
    models = [tiny.model, moved(tiny, 2), moved(tiny, 1)]
    keys = ["group", "kind", "individual", "relation"]
    rows = 0
    for (phase, share, _), model in zip(MOMENTS, models, strict=True):
        for split in ("in", "out"):
            people = [person for person, side in traced.items() if side == split][:2]
            part = found[
                (found["phase"] == phase)
                & (found["share"] == share)
                & (found["split"] == split)
                & found["traced"]
            ]
            cosines = part.set_index(keys)["cosine"]
            expected = pd.Series(naive_cosines(model, tiny, people, masks_of(tiny)))
            assert set(cosines.index) == set(expected.index)
            # float32 gradients against float64 ones.
            np.testing.assert_allclose(cosines, expected.reindex(cosines.index), atol=2e-5)
            assert cosines.abs().max() <= 1 + 1e-6
            rows += len(part)
    assert rows == found["traced"].sum() and list(found["group"].unique()) == GROUPS


def test_all_traced_people_are_compared_by_null(folder: Path) -> None:
    found = run(folder, GradientSimilaritySettings(individuals=None), MOMENTS[:1])
    found = found[found["traced"]]
    assert found.groupby("split")["individual"].nunique().to_dict() == {"in": 3, "out": 3}


def test_equal_texts_have_equal_gradients(tiny: Tiny, folder: Path) -> None:
    # Each question is made the biography up to its fact.
    bio = tiny.facts.bio[tiny.facts.bio["split"] != "pretrain"].copy()
    texts = bio.groupby("individual", sort=False)["text"]
    before = texts.transform(lambda sentences: sentences.shift(fill_value="").cumsum().str.len())
    before = before.astype(int) + bio.groupby("individual").cumcount()
    whole = texts.transform(" ".join)
    ends = before + bio["text"].str.len()
    qa = bio.assign(text=[text[:end] for text, end in zip(whole, ends, strict=True)])
    for column in ("attribute_start", "attribute_end", "terminator_end"):
        qa[column] = (qa[column] + before).astype("int32")
    write_table(folder / "qa", qa[list(QA_COLUMNS)], QA_COLUMNS)
    found = run(folder, GradientSimilaritySettings(individuals=2, untraced=2), MOMENTS[:1])
    matched = found[found["kind"] == "matched"]
    np.testing.assert_allclose(matched["cosine"], 1.0, atol=1e-5)
    assert found[found["kind"] == "relation"]["cosine"].max() < 0.999


def test_an_empty_group_has_no_cosine(tiny: Tiny, folder: Path) -> None:
    write_sets(folder / "sets", {"S": ParameterSet.empty(ParameterSpace.of(tiny.model))})
    found = run(folder, GradientSimilaritySettings(individuals=2, untraced=2), MOMENTS[:1])
    missing = found["cosine"].isna()
    empty = found["group"].isin(["S", "random"])
    assert missing[empty].all() and not missing[~empty & (found["kind"] == "matched")].any()


def test_as_many_at_random_in_each_tensor(tiny: Tiny) -> None:
    shared, grafted = sets_of(tiny)
    sets = compared_sets(shared, grafted, 0)
    assert list(sets) == GROUPS[1:5]
    assert sets["S"] == shared and sets["gamma"] == grafted
    assert sets["random"].counts() == shared.counts() and sets["random"] != shared
    assert compared_sets(shared, grafted, 0)["random"] == sets["random"]
    assert compared_sets(shared, grafted, 1)["random"] != sets["random"]
    # About an eighth of each is S: it is drawn from anywhere.
    share = len(sets["random"] & shared) / len(shared)
    assert share == pytest.approx(1 / 8, abs=0.02)


def test_orthogonal_and_zero_gradients() -> None:
    statements, questions = np.zeros((2, 1, 3, 2))
    between = np.zeros((1, 3, 2, 2))
    statements[0, 0], questions[0, 0] = (4.0, 0.0), (9.0, 1.0)
    between[0, 0] = [[-6.0, 0.0], [0.0, 0.0]]
    statements[0, 1] = 100.0
    group = np.zeros((1, 3), dtype=bool)
    group[0, 0] = True
    cosines = Products(statements, questions, between).cosines(group)
    np.testing.assert_array_equal(cosines, [[-1.0, 0.0], [np.nan, np.nan]])


def test_people_of_the_same_attribute_are_no_control() -> None:
    people, relations = [4, 7, 9], ["birthplace", "major"]
    keys = list(itertools.product(people, relations))
    rows = pd.DataFrame(keys, columns=["individual", "relation"])
    # Two were born in one place; all studied the same; a place's name is no major's.
    attributes = np.array(["Ulm", "Law", "Ulm", "Law", "Bonn", "Law"], dtype=object)
    between = np.arange(36.0).reshape(1, 1, 6, 6) / 36
    products = Products(np.ones((1, 1, 6)), np.ones((1, 1, 6)), between)
    table = Pairs(rows, attributes, [], []).cosines(products, {"all": np.ones((1, 1), bool)})
    found = {str(kind): part["cosine"].to_numpy() * 36 for kind, part in table.groupby("kind")}
    nan = np.nan
    np.testing.assert_allclose(found["matched"], [0, 7, 14, 21, 28, 35])
    np.testing.assert_allclose(found["person"], [4, nan, 16, nan, (24 + 26) / 2, nan])
    np.testing.assert_allclose(found["relation"], [1, 6, 15, 20, 29, 34])


def coordinates_of(tiny: Tiny, most: int | None, seed: int = 0) -> SampledParameters:
    return SampledParameters(
        compared_sets(*sets_of(tiny), 0), most, np.random.default_rng(seed), CPU
    )


def rows_of(
    sampled_parameters: SampledParameters, gradients: torch.Tensor, tiny: Tiny
) -> torch.Tensor:
    """Take rows of flat gradients, cut into tensors."""
    space = ParameterSpace.of(tiny.model)
    rows = torch.empty(len(gradients), sampled_parameters.count, dtype=gradients.dtype)
    for row, gradient in zip(rows, gradients, strict=True):
        parts = zip(gradient.split(list(space.sizes)), space.shapes, strict=True)
        sampled_parameters.take((part.view(shape) for part, shape in parts), row)
    return rows


@pytest.mark.parametrize("most", [None, 7, 10**9])
def test_each_cell_gives_as_many_different_coordinates(tiny: Tiny, most: int | None) -> None:
    masks = masks_of(tiny)
    size = len(masks["all"])
    sampled_parameters = coordinates_of(tiny, most)
    (taken,) = rows_of(sampled_parameters, torch.arange(size, dtype=torch.float64)[None], tiny)
    index = taken.long().numpy()
    assert len(np.unique(index)) == len(index)
    for place in ("layer 0", "layer 1", "embeddings"):
        sides = ((masks[name], ~masks[name]) for name in ("S", "gamma", "random"))
        for parts in itertools.product(*sides):
            cell = np.logical_and.reduce([masks[place], *parts])
            assert cell[index].sum() == min(cell.sum(), most or size)
    if most != 7:
        np.testing.assert_array_equal(np.sort(index), np.arange(size))
    # Ones have the size of each group as their inner product, however few are drawn.
    ones = rows_of(sampled_parameters, torch.ones(1, size, dtype=torch.float64), tiny)
    products = sampled_parameters.products(ones, ones)
    assert list(sampled_parameters.groups()) == GROUPS
    for name, group in sampled_parameters.groups().items():
        for sums in (products.statements, products.questions, products.between):
            np.testing.assert_allclose(sums[group].sum(), masks[name].sum(), rtol=1e-12)


def test_only_cells_that_occur_are_kept(tiny: Tiny) -> None:
    shared, _ = sets_of(tiny)
    sets = {"a": shared, "b": shared, "not a": ~shared, "none": ParameterSet.empty(shared.space)}
    sampled_parameters = SampledParameters(sets, 5, np.random.default_rng(0), CPU)
    groups = sampled_parameters.groups()
    assert list(groups) == ["all", *sets, "layer 0", "layer 1", "embeddings"]
    assert groups["all"].shape == (3, 2) and sampled_parameters.count == 5 * 3 * 2
    np.testing.assert_array_equal(groups["a"], groups["b"])
    np.testing.assert_array_equal(groups["a"], ~groups["not a"])
    assert not groups["none"].any()


def test_drawn_coordinates_estimate_without_bias(tiny: Tiny) -> None:
    size = ParameterSpace.of(tiny.model).size
    torch.manual_seed(0)
    # Of uneven scale, and alike in part.
    common = torch.randn(size, dtype=torch.float64) * torch.linspace(0, 1, size)
    statements, questions = common + 0.5 * torch.randn(2, 2, size, dtype=torch.float64)
    exact = coordinates_of(tiny, None)
    groups = exact.groups()
    whole = exact.products(rows_of(exact, statements, tiny), rows_of(exact, questions, tiny))
    estimates: dict[str, list[np.ndarray]] = {name: [] for name in groups}
    for seed in range(60):
        drawn = coordinates_of(tiny, 40, seed)
        assert drawn.count < size / 20
        part = drawn.products(rows_of(drawn, statements, tiny), rows_of(drawn, questions, tiny))
        for name, group in groups.items():
            estimates[name].append(part.between[group].sum(0))
    for name, group in groups.items():
        mean, error = np.mean(estimates[name], 0), np.std(estimates[name], 0) / np.sqrt(60)
        assert (np.abs(mean - whole.between[group].sum(0)) < 4.5 * error).all(), name
        assert (error > 0).all()


def test_as_many_as_there_are_is_exact(folder: Path) -> None:
    exact = run(folder, GradientSimilaritySettings(individuals=2, untraced=2), MOMENTS[:1])
    assert run(
        folder,
        GradientSimilaritySettings(individuals=2, untraced=2, sampled_parameters=10**9),
        MOMENTS[:1],
    ).equals(exact)
    drawn = run(
        folder,
        GradientSimilaritySettings(individuals=2, untraced=2, sampled_parameters=500),
        MOMENTS[:1],
    )
    assert not drawn["cosine"].equals(exact["cosine"])
    error = (drawn["cosine"] - exact["cosine"])[exact["group"] == "all"]
    assert error.abs().mean() < 0.2
    assert run(
        folder,
        GradientSimilaritySettings(individuals=2, untraced=2, sampled_parameters=500),
        MOMENTS[:1],
    ).equals(drawn)


def test_only_what_is_needed_is_read(tiny: Tiny) -> None:
    pairs = Pairs.of(tiny.facts.bio, tiny.facts.qa, [0, 3], tiny.tokenizer)
    assert list(pairs.rows["individual"]) == [0] * 6 + [3] * 6
    for fact, examples in enumerate(zip(pairs.statements, pairs.questions, strict=True)):
        person, relation = pairs.rows.loc[fact]
        row = tiny.facts.individuals.set_index("individual").loc[person]
        statements, questions = (tiny.tokenizer.decode(e.targets[e.targets >= 0]) for e in examples)
        assert statements == questions and str(row[relation]).split()[0] in statements
        assert pairs.attributes[fact] == row[relation]
        assert all(e.individual == person and e.targets[-1] >= 0 for e in examples)


def test_weights_of_another_model_are_told(tiny: Tiny, folder: Path) -> None:
    tokenizer = tokenizer_for(tiny.facts)
    other = build_model(scratch(tiny.architecture, hidden_size=16), tokenizer, 1)
    save_model(folder / "tuned", other, tokenizer)
    with pytest.raises(FactRecallError, match="different parameter spaces"):
        run(folder, GradientSimilaritySettings(individuals=2, untraced=2))


# --- all histories together -------------------------------------------------------------------


def test_means_are_those_of_people_with_intervals_over_people_and_seeds() -> None:
    rng = np.random.default_rng(0)
    cosines = rng.uniform(-1, 1, (2, 4, 3))  # seeds, people, relations
    cosines[0, 1, 0] = np.nan
    rows = [
        ("m", "mix", seed, "mix", 1.0, "out", False, person, RELATIONS[r], "all", "matched", value)
        for (seed, person, r), value in np.ndenumerate(cosines)
    ]
    table = pd.DataFrame(rows, columns=["model", "tuning", "seed", *GRADIENTS])
    other = table.assign(traced=True, cosine=np.nan)
    found = mean_cosines(pd.concat([table, other])).set_index("traced")
    assert list(found.reset_index()[list(GRADIENT_SUMMARY)].columns) == list(GRADIENT_SUMMARY)
    people = np.nanmean(cosines, axis=2)
    one = found.loc[False]
    assert one["cosine"] == pytest.approx(people.mean()) and one["facts"] == 23
    assert one["low"] < one["cosine"] < one["high"]
    assert np.isnan(found.loc[True, "cosine"]) and found.loc[True, "facts"] == 0


def test_people_who_were_not_traced_are_compared_at_the_end(tiny: Tiny, folder: Path) -> None:
    found = run(folder, GradientSimilaritySettings(individuals=2, untraced=2, sampled_parameters=9))
    traced = traced_individuals(tiny.facts.individuals, TRACE, 0)
    own, others = found[found["traced"]], found[~found["traced"]]
    assert set(own["individual"]) <= set(traced) and not set(others["individual"]) & set(traced)
    assert others[["phase", "share"]].drop_duplicates().to_numpy().tolist() == [["stage", 1.0]]
    assert own["phase"].nunique() == 2
    assert found.groupby(["split", "traced"])["individual"].nunique().tolist() == [2] * 4


def test_people_are_compared_in_groups_of_few(tiny: Tiny) -> None:
    settings = GradientSimilaritySettings(individuals=None, untraced=10**6)
    people = tiny.facts.individuals
    groups = list(compared_people(people, settings, TRACE, 0))
    assert all(0 < len(group) <= MOST for _, _, group in groups)
    for split in ("in", "out"):
        side = [person for s, _, group in groups if s == split for person in group]
        assert sorted(side) == sorted(people.loc[people["split"] == split, "individual"])
    again = GradientSimilaritySettings(individuals=None, untraced=2)
    assert [g for _, traced, g in compared_people(people, again, TRACE, 0) if traced] == [
        g for _, traced, g in groups if traced
    ]
