"""Grafting end to end on tiny models: what is grafted, chosen, checked and written."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from factrecall.config import DualAveraging, Grafting, SigmoidSGD
from factrecall.errors import FactRecallError
from factrecall.experiments.checks import CHECKS, overlap, shuffled
from factrecall.experiments.grafting import Graft, graft, summarise_grafting
from factrecall.experiments.grafts import GRAFTING, OUTCOMES, PER_MASK, Grafter, outcomes
from factrecall.experiments.pair import open_pair
from factrecall.facts.forms import QA_COLUMNS
from factrecall.models.load import save_model
from factrecall.parameters.sets import ParameterSet, read_sets, write_sets
from factrecall.parameters.space import ParameterSpace
from factrecall.seeds import generator
from factrecall.storage import read_table, write_table
from factrecall.training.examples import training_set
from factrecall.training.loop import train
from tests.conftest import Tiny, recipe

CPU = torch.device("cpu")
ALPHAS = [0.02, 0.2]
SETTINGS = Grafting(
    alphas=ALPHAS,
    individuals=4,
    exclude_embeddings=False,
    optimiser=DualAveraging(method="dual_averaging", updates=2, batch_size=12),
)


@pytest.fixture
def folder(tiny: Tiny, tmp_path: Path) -> Path:
    """θpre, a θtask that knows the questions in distribution, facts and shared sets."""
    model = copy.deepcopy(tiny.model)
    save_model(tmp_path / "base", model, tiny.tokenizer)
    lessons = recipe(updates=60, batch_size=24, learning_rate=1e-2)
    facts = tiny.facts
    train(model, training_set("stage", lessons, facts.bio, facts.qa, tiny.tokenizer), lessons, 0)
    save_model(tmp_path / "tuned", model, tiny.tokenizer)
    write_table(tmp_path / "qa.parquet", facts.qa, QA_COLUMNS)
    everything = ~ParameterSet.nothing(ParameterSpace.of(model))
    write_sets(tmp_path / "sets.safetensors", {"S": everything.sample(2000, generator(0))})
    return tmp_path


def run(folder: Path, settings: Grafting, seed: int = 3, thorough: bool = True) -> Graft:
    files = {name: folder / f"{seed}.{name}" for name in ("masks", "table", "examples", "checks")}
    graft(
        settings, 512, 7, thorough, base=folder / "base", tuned=folder / "tuned", seed=seed,
        split="in", sets=folder / "sets.safetensors", qa=folder / "qa.parquet", out=files["masks"],
        table=files["table"], examples=files["examples"], checks=files["checks"],
        device=CPU, provenance={},
    )  # fmt: skip
    return Graft("m", "stage", seed, files["table"], "in", files["checks"], files["masks"])


def test_the_stage_writes_what_its_masks_recall(folder: Path, tiny: Tiny) -> None:
    done = run(folder, SETTINGS)
    table = read_table(done.table, OUTCOMES)
    masks = read_sets(done.masks)
    shared = read_sets(folder / "sets.safetensors")["S"]
    found = read_table(folder / "3.examples", PER_MASK)
    assert len(table) == 2 * (1 + 2 * len(ALPHAS))
    fitted = found[found["fitted"]]
    assert fitted["individual"].nunique() == 4
    assert not set(fitted["individual"]) & set(found.loc[~found["fitted"], "individual"])

    tokenizer, model, weights = open_pair(folder / "base", folder / "tuned", CPU)
    asked = tiny.facts.qa[tiny.facts.qa["individual"].isin(fitted["individual"].unique())]
    grafter = Grafter(SETTINGS, 512, tokenizer, model, weights, asked, asked[:0], CPU)
    with weights:
        whole = grafter.evaluator(asked).answers.right(model).mean()
        for row in table.itertuples():
            rows = fitted[
                (fitted["alpha"] == row.alpha)
                & (fitted["with_shared"] == row.with_shared)
                & (fitted["method"] == row.method)
            ]
            assert row.accuracy == rows["correct"].mean()
            assert row.recovery == pytest.approx(row.accuracy / whole)
            if row.method != "dual_averaging":
                continue
            mask = masks[f"{row.alpha!r}/{'with' if row.with_shared else 'without'}"]
            weights.hold(mask)
            assert grafter.evaluator(asked).answers.right(model).mean() == row.accuracy
            assert row.size == len(mask) and row.shared_fraction == overlap(mask, shared)
    whole_rows = table[table["method"] == "whole"].set_index("with_shared")
    assert whole_rows.loc[True, "recovery"] == 1.0
    assert whole_rows.loc[True, "size"] - whole_rows.loc[False, "size"] == 2000
    best = table[(table["method"] == "dual_averaging") & table["with_shared"]]
    moved = table[(table["method"] == "movement") & table["with_shared"]]
    assert best["accuracy"].max() > moved["accuracy"].max()  # fitting is worth something


def test_the_same_seed_gives_the_same_bytes(folder: Path) -> None:
    first = run(folder, SETTINGS)
    before = {p: p.read_bytes() for p in (first.masks, first.table, first.checks)}
    run(folder, SETTINGS)
    assert all(path.read_bytes() == content for path, content in before.items())


def test_seeds_and_checks_come_together(folder: Path) -> None:
    grafts = [run(folder, SETTINGS, seed, thorough=seed == 3) for seed in (3, 4)]
    out, checks = folder / "g.parquet", folder / "c.parquet"
    summarise_grafting(grafts, out, checks, {})
    assert set(read_table(out, GRAFTING)["seed"]) == {3, 4}
    found = read_table(checks, CHECKS)
    kinds = {"fine_tuned", "pre_trained", "others", "kept", "inclusion", "random", "overlap_seeds"}
    assert set(found["check"]) - {"gained"} == kinds | {"overlap_runs", "shuffled"}
    assert set(found.loc[found["check"] == "shuffled", "seed"]) == {3}
    one, other = (read_sets(g.masks)["0.2/with"] for g in grafts)
    said = found[(found["check"] == "overlap_seeds") & (found["alpha"] == 0.2)]
    assert said.set_index("seed")["value"].to_dict() == {
        3: overlap(one, other),
        4: overlap(other, one),
    }
    inside = found[(found["check"] == "inclusion") & (found["seed"] == 3)]
    small, large = (read_sets(grafts[0].masks)[f"{a!r}/with"] for a in ALPHAS)
    assert inside["value"].tolist() == [overlap(small, large)]
    assert found["value"].between(0, 1).all()


@pytest.mark.parametrize("individuals", [None, 8, 500])
def test_all_people_may_be_fitted(folder: Path, individuals: int | None) -> None:
    done = run(folder, SETTINGS.model_copy(update={"individuals": individuals}), thorough=False)
    found = read_table(folder / "3.examples", PER_MASK)
    assert found["fitted"].all() and found["individual"].nunique() == 8
    assert "others" not in set(read_table(done.checks)["check"])


def test_a_model_that_knows_nothing_is_grafted_all_the_same(folder: Path, tiny: Tiny) -> None:
    save_model(folder / "tuned", tiny.model, tiny.tokenizer)  # θtask = θpre: nothing moved
    done = run(folder, SETTINGS)
    table = read_table(done.table, OUTCOMES)
    assert not table["chosen"].any() and table["recovery"].isna().all()
    assert (table.loc[table["method"] != "whole", "size"] == 0).all()


def test_sets_of_another_file_are_told(folder: Path) -> None:
    done = run(folder, SETTINGS, thorough=False)
    (folder / "sets.safetensors").write_bytes(done.masks.read_bytes())
    with pytest.raises(FactRecallError, match="holds no set 'S'"):
        run(folder, SETTINGS)


def test_embeddings_can_be_left_out(folder: Path) -> None:
    done = run(folder, SETTINGS.model_copy(update={"exclude_embeddings": True}), thorough=False)
    masks = read_sets(done.masks)
    space = next(iter(masks.values())).space
    ends = [n for n in space.names if "embed" in n or n == "lm_head.weight"]
    assert len(ends) == 2
    assert all(mask.counts()[name] == 0 for mask in masks.values() for name in ends)
    table = read_table(done.table, OUTCOMES)
    whole = table[(table["method"] == "whole") & table["with_shared"]]
    assert whole["size"].item() == space.size - len(ParameterSet.tensors(space, ends))


def test_the_papers_optimiser_runs_in_the_stage(folder: Path) -> None:
    slow = SigmoidSGD(method="sigmoid_sgd", updates=4, check=2, learning_rate=1e6)
    done = run(folder, SETTINGS.model_copy(update={"optimiser": slow}), thorough=False)
    table = read_table(done.table, OUTCOMES)
    assert set(table["method"]) == {"whole", "movement", "sigmoid_sgd"}


def test_the_smallest_mask_that_recovers_enough_is_chosen() -> None:
    space = ParameterSpace(("a",), ((100,),))
    everything = ~ParameterSet.nothing(space)
    right = {(0.1, True): 5, (0.1, False): 1, (0.2, True): 9, (0.2, False): 9, (0.3, True): 10}
    masks, parts = {}, []
    for (alpha, with_shared), count in right.items():
        for method in ("movement", "fitted"):
            size = round(100 * alpha)
            masks[alpha, with_shared, method] = everything.sample(size, generator(0, size))
            correct = np.arange(10) < (count if method == "fitted" else 10)
            said = {"alpha": alpha, "with_shared": with_shared, "method": method, "fitted": True}
            parts.append(pd.DataFrame({"correct": correct}).assign(**said))
    found = pd.concat(parts)
    for least, alpha in ((0.9, 0.2), (0.5, 0.1), (0.95, 0.3), (1.1, None)):
        table = outcomes(masks, found, ParameterSet.nothing(space), 1.0, least)
        chosen = table[table["chosen"]]
        assert set(chosen["alpha"]) == ({alpha} if alpha else set())
        assert set(chosen["method"]) <= {"fitted"}
        assert len(chosen) == (2 if alpha in (0.1, 0.2) else bool(alpha))
    assert outcomes(masks, found, ParameterSet.nothing(space), 0.0, 0.5)["recovery"].isna().all()


def test_exchanged_answers_stay_within_their_relation(tiny: Tiny) -> None:
    qa = tiny.facts.qa[tiny.facts.qa["split"] == "in"]
    exchanged = shuffled(qa, generator(1))

    def cells(table: pd.DataFrame) -> list[tuple[str, str, str, str]]:
        columns = ("text", "attribute_start", "attribute_end", "terminator_end")
        rows = zip(*(table[c] for c in columns), strict=True)
        return [(t[:s], t[s:e], t[e:end], t[end:]) for t, s, e, end in rows]

    before, after = cells(qa), cells(exchanged)
    assert [(b[0], b[2], b[3]) for b in before] == [(a[0], a[2], a[3]) for a in after]
    for relation in qa["relation"].unique():
        mine = (qa["relation"] == relation).to_numpy()
        pairs = [
            sorted(c[1] for c in itertools.compress(cells_, mine)) for cells_ in (before, after)
        ]
        assert pairs[0] == pairs[1]
    assert [b[1] for b in before] != [a[1] for a in after]
