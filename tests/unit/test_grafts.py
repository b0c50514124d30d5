"""Grafting end to end on tiny models: what is grafted, chosen, checked and written."""

from __future__ import annotations

import copy
import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from factrecall.data.files import QA_COLUMNS
from factrecall.experiments.common.model_pair import open_pair
from factrecall.experiments.grafting.grafter import Grafter, outcomes, overlap
from factrecall.experiments.grafting.mask_checks import CHECKS, shuffled
from factrecall.experiments.grafting.mask_choice import mask_name, smallest, taken_apart
from factrecall.experiments.grafting.people import GraftedPeople
from factrecall.experiments.grafting.settings import DualAveraging, GraftingSettings, SigmoidSGD
from factrecall.experiments.grafting.stages import (
    Graft,
    graft,
    graft_without_shared,
    summarise_grafting,
)
from factrecall.experiments.grafting.summary import graft_outcomes
from factrecall.experiments.grafting.tables import GRAFTING, OUTCOMES, PER_MASK, RECOVERED, SHARES
from factrecall.models.loading import save_model
from factrecall.parameters.sets import ParameterSet, read_sets, write_sets
from factrecall.parameters.space import ParameterSpace
from factrecall.runtime.checkpoint import Checkpoint
from factrecall.runtime.errors import FactRecallError
from factrecall.runtime.job import Job
from factrecall.runtime.seeds import generator
from factrecall.runtime.storage import read_table, write_table
from factrecall.training.examples import training_set
from factrecall.training.loop import train
from tests.conftest import Tiny, recipe

CPU = torch.device("cpu")
ALPHAS = [0.02, 0.2]
SETTINGS = GraftingSettings(
    alphas=ALPHAS,
    fit_individuals=4,
    held_out_individuals=2,
    exclude_embeddings=False,
    optimiser=DualAveraging(method="dual_averaging", updates=2, batch_size=12),
)


def write_study(tiny: Tiny, folder: Path) -> None:
    """Write θpre, a θtask that knows the questions in distribution, facts and shared sets."""
    model = copy.deepcopy(tiny.model)
    save_model(folder / "base", model, tiny.tokenizer)
    lessons = recipe(updates=60, batch_size=24, learning_rate=1e-2)
    facts = tiny.facts
    train(model, training_set("stage", lessons, facts.bio, facts.qa, tiny.tokenizer), lessons, 0)
    save_model(folder / "tuned", model, tiny.tokenizer)
    write_table(folder / "qa.parquet", facts.qa, QA_COLUMNS)
    everything = ~ParameterSet.empty(ParameterSpace.of(model))
    write_sets(folder / "sets.safetensors", {"S": everything.sample(2000, generator(0))})


@pytest.fixture
def folder(tiny: Tiny, tmp_path: Path) -> Path:
    write_study(tiny, tmp_path)
    return tmp_path


def run_graft(
    folder: Path,
    settings: GraftingSettings,
    seed: int = 3,
    thorough: bool = True,
    checkpoint_interval_s: float = 1e9,
) -> None:
    out = folder / f"{seed}"
    graft(
        Job(CPU, state=folder / "state", checkpoint_interval_s=checkpoint_interval_s),
        grafting=settings, max_eval_tokens=512, study_seed=7, thorough=thorough,
        base=folder / "base", tuned=folder / "tuned", seed=seed, split="in",
        qa=folder / "qa.parquet", out=out / "masks", table=out / "table",
        examples=out / "examples", checks=out / "checks",
    )  # fmt: skip


def run_without(
    folder: Path, settings: GraftingSettings, seed: int = 3, checkpoint_interval_s: float = 1e9
) -> None:
    out = folder / f"{seed}"
    graft_without_shared(
        Job(CPU, state=folder / "state", checkpoint_interval_s=checkpoint_interval_s),
        grafting=settings, max_eval_tokens=512, study_seed=7, base=folder / "base",
        tuned=folder / "tuned", seed=seed, split="in", sets=folder / "sets.safetensors",
        outcomes=out / "table",
        qa=folder / "qa.parquet", out=out / "without.masks", table=out / "without",
        examples=out / "without.examples", shares=out / "shares",
    )  # fmt: skip


def run(folder: Path, settings: GraftingSettings, seed: int = 3, thorough: bool = True) -> Graft:
    """Graft with S and without; all files of the two jobs are in a folder of their own."""
    run_graft(folder, settings, seed, thorough)
    run_without(folder, settings, seed)
    files = [folder / f"{seed}/{name}" for name in ("checks", "masks", "without", "shares")]
    table, sets = folder / f"{seed}/table", folder / "sets.safetensors"
    return Graft("m", "stage", seed, "in", table, *files, sets)


def summarised(grafts: list[Graft], folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    out, checks = folder / "g.parquet", folder / "c.parquet"
    summarise_grafting(Job(), grafts=grafts, out=out, checks=checks)
    return read_table(out, GRAFTING), read_table(checks, CHECKS)


@pytest.mark.parametrize("exclude_embeddings", [False, True])
def test_the_stages_write_what_their_masks_recall(
    folder: Path, tiny: Tiny, exclude_embeddings: bool
) -> None:
    settings = SETTINGS.model_copy(update={"exclude_embeddings": exclude_embeddings})
    done = run(folder, settings, thorough=False)
    table, _ = summarised([done], folder)
    shared = read_sets(folder / "sets.safetensors")["S"]
    masks = {True: read_sets(done.masks), False: read_sets(folder / "3/without.masks")}
    for with_shared, objectives in ((True, ("gold", "distilled")), (False, ("gold",))):
        names = {mask_name(o, alpha) for o in objectives for alpha in ALPHAS}
        assert set(masks[with_shared]) == names
    found = pd.concat(
        read_table(folder / f"3/{name}", PER_MASK) for name in ("examples", "without.examples")
    )
    assert table[["with_shared", "method", "objective", "alpha"]].apply(tuple, axis=1).tolist() == [
        (with_shared, method, objective, alpha)
        for with_shared in (True, False)
        for method, objective, alphas in (
            ("whole", "", [1.0]),
            ("movement", "", ALPHAS),
            ("dual_averaging", "gold", ALPHAS),
            *([("dual_averaging", "distilled", ALPHAS)] if with_shared else []),
        )
        for alpha in alphas
    ]
    fitted = found[found["fitted"]]
    assert fitted["individual"].nunique() == 4
    assert not set(fitted["individual"]) & set(found.loc[~found["fitted"], "individual"])
    # Others are asked of what may hold anything alone.
    held_out = found[~found["fitted"]]
    assert held_out["with_shared"].all() and held_out["individual"].nunique() == 2

    tokenizer, model, weights = open_pair(folder / "base", folder / "tuned", CPU)
    asked = tiny.facts.qa[tiny.facts.qa["individual"].isin(fitted["individual"].unique())]
    state = Checkpoint(folder / "no.safetensors", 1e9)
    people = GraftedPeople.of(tiny.facts.qa, settings, 7, "in")
    assert set(people.fitted["individual"]) == set(asked["individual"])
    assert set(people.held_out["individual"]) == set(held_out["individual"])
    # Nobody held out, of either side, is in the fit; everybody else is.
    assert people.distilled["individual"].nunique() == 16 - 2 * 2
    assert not set(people.distilled["individual"]) & set(people.held_out["individual"])
    grafter = Grafter(
        settings, 512, tokenizer, model, weights, people, CPU, state, 7, done.seed, "in"
    )
    with weights:
        whole = grafter.evaluator(asked).answers.right(model).mean()
        for row in table.itertuples():
            rows = fitted[
                (fitted["alpha"] == row.alpha)
                & (fitted["with_shared"] == row.with_shared)
                & (fitted["method"] == row.method)
                & (fitted["objective"] == row.objective)
            ]
            assert row.accuracy == rows["correct"].mean()
            assert row.recovery == pytest.approx(row.accuracy / whole)
            left_out = grafter.excluded() | (grafter.excluded() if row.with_shared else shared)
            mask = {
                "whole": lambda row, left_out: ~left_out,
                "movement": lambda row, left_out: weights.largest_change(row.size, left_out),
                "dual_averaging": lambda row, left_out: masks[row.with_shared][
                    mask_name(row.objective, row.alpha)
                ],
            }[row.method](row, left_out)
            weights.set(mask)
            assert grafter.evaluator(asked).answers.right(model).mean() == row.accuracy
            assert row.size == len(mask) and row.shared_fraction == overlap(mask, shared)
            assert not len(mask & left_out)
    assert (table["shared_fraction"] > 0).tolist() == table["with_shared"].tolist()
    both = table[table["method"] == "whole"].set_index("with_shared")["size"]
    assert both[True] - both[False] == len(shared - grafter.excluded())
    if not exclude_embeddings:
        assert table.loc[table["method"] == "whole", "recovery"].iloc[0] == 1.0
        best = table[(table["objective"] == "gold") & table["with_shared"]]
        moved = table[(table["method"] == "movement") & table["with_shared"]]
        assert best["accuracy"].max() > moved["accuracy"].max()  # fitting is worth something


def test_another_s_changes_nothing_of_what_may_hold_anything(folder: Path) -> None:
    done = run(folder, SETTINGS, thorough=False)
    before = {p: p.read_bytes() for p in (done.masks, done.table, done.checks)}
    table, checks = summarised([done], folder)
    everything = ~ParameterSet.empty(read_sets(done.masks)["gold 0.2"].space)
    write_sets(folder / "sets.safetensors", {"S": everything.sample(3000, generator(1))})
    assert run(folder, SETTINGS, thorough=False) == done
    assert all(path.read_bytes() == content for path, content in before.items())
    other, other_checks = summarised([done], folder)
    same = [name for name in GRAFTING if name != "shared_fraction"]
    allowed = table["with_shared"]
    assert other.loc[allowed, same].equals(table.loc[allowed, same])
    assert (other.loc[allowed, "shared_fraction"] > table.loc[allowed, "shared_fraction"]).all()
    assert other_checks.equals(checks)


def test_the_same_seed_gives_the_same_bytes(folder: Path) -> None:
    first = run(folder, SETTINGS)
    before = {path: path.read_bytes() for path in (folder / "3").iterdir()}
    assert len(before) == 8 and first.masks in before
    run(folder, SETTINGS)
    assert all(path.read_bytes() == content for path, content in before.items())


def test_seeds_and_checks_come_together(folder: Path) -> None:
    grafts = [run(folder, SETTINGS, seed, thorough=seed == 3) for seed in (3, 4)]
    table, found = summarised(grafts, folder)
    assert set(table["seed"]) == {3, 4}
    kinds = {"fine_tuned", "pre_trained", "held_out_people", "retained", "inclusion", "random"}
    others = {"overlap_seeds", "overlap_runs", "shuffled"}
    assert set(found["check"]) - {"newly_correct"} == kinds | others
    assert set(found.loc[found["check"] == "shuffled", "seed"]) == {3}
    one, other = (read_sets(g.masks)["distilled 0.2"] for g in grafts)
    said = found[(found["check"] == "overlap_seeds") & (found["alpha"] == 0.2)]
    said = said[said["objective"] == "distilled"]
    assert said.set_index("seed")["value"].to_dict() == {
        3: overlap(one, other),
        4: overlap(other, one),
    }
    # Another replicate has another θpre: masks of its seeds compare with none of these.
    _, more = summarised([*grafts, replace(grafts[0], seed=1003)], folder)
    pairs = more[more["check"] == "overlap_seeds"][["seed", "other"]]
    assert set(pairs.itertuples(index=False, name=None)) == {(3, 4), (4, 3)}
    inside = found[(found["check"] == "inclusion") & (found["seed"] == 3)]
    inside = inside[inside["objective"] == "gold"]
    small, large = (read_sets(grafts[0].masks)[mask_name("gold", a)] for a in ALPHAS)
    assert inside["value"].tolist() == [overlap(small, large)]
    assert found["value"].between(0, 1).all()


@pytest.mark.parametrize("individuals", [None, 8, 500])
def test_all_people_may_be_fitted(folder: Path, individuals: int | None) -> None:
    people = {"fit_individuals": individuals, "held_out_individuals": None}
    done = run(folder, SETTINGS.model_copy(update=people), thorough=False)
    found = read_table(folder / "3/examples", PER_MASK)
    assert found["fitted"].all() and found["individual"].nunique() == 8
    assert "held_out_people" not in set(read_table(done.checks)["check"])


def test_a_model_that_knows_nothing_is_grafted_all_the_same(folder: Path, tiny: Tiny) -> None:
    save_model(folder / "tuned", tiny.model, tiny.tokenizer)  # θtask = θpre: nothing moved
    table, _ = summarised([run(folder, SETTINGS)], folder)
    assert not table["chosen"].any() and table["recovery"].isna().all()
    assert (table.loc[table["method"] != "whole", "size"] == 0).all()
    assert (table.loc[table["method"] != "whole", "shared_fraction"] == 0).all()
    # Circuits take a gold mask: no other is better.
    assert table.loc[table["taken_apart"], "objective"].tolist() == ["gold"]


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
    whole = table[table["method"] == "whole"]
    assert whole["size"].item() == space.size - len(ParameterSet.tensors(space, ends))


def test_the_papers_optimiser_runs_in_the_stage(folder: Path) -> None:
    slow = SigmoidSGD(method="sigmoid_sgd", updates=4, check=2, learning_rate=1e6)
    done = run(folder, SETTINGS.model_copy(update={"optimiser": slow}), thorough=False)
    table = read_table(done.table, OUTCOMES)
    assert set(table["method"]) == {"whole", "movement", "sigmoid_sgd"}


def test_the_smallest_mask_that_recovers_enough_is_chosen(tmp_path: Path) -> None:
    space = ParameterSpace(("a",), ((100,),))
    everything = ~ParameterSet.empty(space)
    write_sets(tmp_path / "sets", {"S": everything.sample(10, generator(9))})
    right = {True: {0.1: 5, 0.2: 9, 0.3: 10}, False: {0.1: 1, 0.2: 9, 0.3: 10}}

    def recovered(with_shared: bool, whole: float) -> pd.DataFrame:
        masks, parts = {}, []
        for (alpha, count), method in itertools.product(
            right[with_shared].items(), ("movement", "fitted")
        ):
            objective = "gold" if method == "fitted" else ""
            masks[alpha, method, objective] = everything.sample(round(100 * alpha), generator(0))
            correct = np.arange(10) < (count if method == "fitted" else 10)
            said = {"alpha": alpha, "with_shared": with_shared, "method": method, "fitted": True}
            said["objective"] = objective
            parts.append(pd.DataFrame({"correct": correct}).assign(**said))
            asked = pd.DataFrame({"correct": [False]}).assign(**said | {"fitted": False})
            parts.append(asked)
        fitted = {
            mask_name("gold", alpha): mask
            for (alpha, method, _), mask in masks.items()
            if method == "fitted"
        }
        write_sets(tmp_path / "masks", fitted)
        return outcomes(masks, pd.concat(parts), whole)

    files = {name: tmp_path / name for name in ("table", "checks", "masks", "without", "shares")}
    shares = [(alpha, "movement", 0.5) for alpha in right[True]]
    write_table(files["shares"], pd.DataFrame(shares, columns=list(SHARES)), SHARES)
    write_table(files["without"], recovered(False, 1.0), RECOVERED)
    done = Graft("m", "mix", 1, "in", files.pop("table"), *files.values(), tmp_path / "sets")
    for least, alpha in ((0.9, 0.2), (0.5, 0.1), (0.95, 0.3), (1.1, None)):
        table = recovered(True, 1.0)
        table = table.assign(chosen=smallest(table, least), taken_apart=False)
        write_table(done.table, table, OUTCOMES)
        joined = graft_outcomes(done)
        chosen = joined[joined["chosen"]]
        assert chosen["alpha"].tolist() == ([alpha, alpha] if alpha else [])
        assert set(chosen["method"]) <= {"fitted"}
        assert chosen["with_shared"].tolist() == [True, False][: len(chosen)]
        moved = joined[(joined["method"] == "movement") & joined["with_shared"]]
        assert (moved["shared_fraction"] == 0.5).all()
    assert recovered(True, 0.0)["recovery"].isna().all()


def recovered(*rows: tuple[str, float, float, float]) -> pd.DataFrame:
    """Make outcomes: objective, α, recovery, that of held-out people."""
    table = pd.DataFrame(rows, columns=["objective", "alpha", "recovery", "held_out_recovery"])
    table = table.assign(with_shared=True, method="fitted")
    return table.assign(chosen=smallest(table, 0.9))


@pytest.mark.parametrize(
    ("rows", "taken"),
    [
        # Held-out people recover with both: what is fitted to own answers comes first.
        ([("gold", 0.1, 1.0, 1.0), ("distilled", 0.2, 1.0, 0.9)], ("distilled", 0.2)),
        ([("gold", 0.1, 1.0, 0.95), ("distilled", 0.2, 1.0, 0.8)], ("gold", 0.1)),
        # The chosen mask of an objective is the one that is tested, not a larger one.
        ([("gold", 0.1, 1.0, 0.1), ("distilled", 0.1, 0.9, 0.1), ("distilled", 0.2, 1.0, 1.0)],
         ("gold", 0.1)),
        ([("gold", 0.1, 0.2, np.nan), ("gold", 0.2, 0.3, np.nan), ("distilled", 0.1, 1.0, np.nan)],
         ("gold", 0.2)),
    ],
)  # fmt: skip
def test_circuits_take_masks_with_which_held_out_people_recover(
    rows: list[tuple[str, float, float, float]], taken: tuple[str, float]
) -> None:
    table = recovered(*rows)
    found = table[taken_apart(table, 0.9)]
    assert found[["objective", "alpha"]].apply(tuple, axis=1).tolist() == [taken]


def test_sizes_between_the_chosen_one_and_the_next_are_evaluated(folder: Path) -> None:
    settings = SETTINGS.model_copy(
        update={"refine": 2.0, "target_recovery": 0.01, "alphas": [0.001, 0.01, 0.2]}
    )
    sizes = settings.sizes()
    assert set(settings.alphas) < set(sizes) and sizes == sorted(sizes)
    assert max(large / small for small, large in itertools.pairwise(sizes)) <= 2.001
    done = run(folder, settings, thorough=False)
    table, _ = summarised([done], folder)
    for objective, rows in table[table["with_shared"]].groupby("objective"):
        if not objective:
            continue
        between = sorted(set(rows["alpha"]) - set(settings.alphas))
        enough = rows[rows["recovery"] >= 0.01]
        assert rows.loc[rows["chosen"], "alpha"].tolist() == [enough["alpha"].min()]
        first = min(enough.loc[enough["alpha"].isin(settings.alphas), "alpha"])
        before = max((a for a in settings.alphas if a < first), default=first)
        assert between == [a for a in sizes if before < a < first]
    # The size chosen with S is there without it.
    without = table[~table["with_shared"] & table["chosen"]]
    gold = table[table["with_shared"] & table["chosen"] & (table["objective"] == "gold")]
    assert without["alpha"].tolist() == gold["alpha"].tolist()


def test_gold_alone_gives_the_same_gold_masks(folder: Path) -> None:
    both = run(folder, SETTINGS, thorough=False)
    masks = read_sets(both.masks)
    alone = run(folder, SETTINGS.model_copy(update={"objectives": ["gold"]}), thorough=False)
    found = read_sets(alone.masks)
    assert set(found) == {mask_name("gold", alpha) for alpha in ALPHAS}
    assert all(mask == masks[name] for name, mask in found.items())


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
