"""The whole graph on the smallest study: it runs and is complete."""

from __future__ import annotations

import itertools
from pathlib import Path

import pandas as pd
import pytest

from factrecall.config.study import Study
from factrecall.evaluation.exact_match import PER_EXAMPLE, SUMMARY
from factrecall.experiments.ablation.compute import ABLATION, SETS
from factrecall.experiments.ablation.resets import RESETS
from factrecall.experiments.circuits.continuity import CONTINUITY
from factrecall.experiments.circuits.summary import HEADS, INTERVENTIONS, SWEEPS
from factrecall.experiments.grafting.mask_choice import mask_name
from factrecall.experiments.grafting.tables import GRAFTING, OUTCOMES
from factrecall.experiments.shared_parameters.compute import SHARED as SHARED_TABLE
from factrecall.parameters.sets import read_sets
from factrecall.runtime.safetensors_writer import read_tensors
from factrecall.runtime.storage import read_provenance, read_table
from factrecall.vocabulary import INFLUENCES, RELATIONS, SPLITS
from tests.workflow.running import PRESET, snakemake


def test_recall_has_every_model_tuning_seed_split_and_relation(results: Path, study: Study) -> None:
    table = read_table(results / "tables" / "recall.parquet", SUMMARY)
    tuned = [(t, s) for t in ("bio", "stage", "mix") for s in study.training.seeds]
    runs = [*tuned, ("base", study.seed), ("majority", study.seed)]
    expected = {
        (m, t, s, split, r)
        for m in study.models
        for t, s in runs
        for split in SPLITS
        for r in RELATIONS
    }
    keys = ["model", "tuning", "seed", "split", "relation"]
    assert set(table[keys].itertuples(index=False, name=None)) == expected
    assert not table.duplicated(keys).any()
    assert (table["accuracy"] == table["correct"] / table["n"]).all()
    sides = study.facts.people * study.facts.in_distribution
    assert table.groupby("split")["n"].first().to_dict() == {
        "bio": study.facts.people,
        "qa_in": sides,
        "qa_out": study.facts.people - sides,
    }


def test_the_summary_counts_the_examples(results: Path) -> None:
    examples = read_table(results / "models/llama-tiny/mix/seed1.recall.parquet", PER_EXAMPLE)
    table = pd.read_parquet(results / "tables" / "recall.parquet")
    ours = table[(table.model == "llama-tiny") & (table.tuning == "mix") & (table.seed == 1)]
    counted = examples.groupby(["split", "relation"])["correct"].sum()
    summary = ours.set_index(["split", "relation"])["correct"]
    assert counted.sort_index().to_dict() == summary.sort_index().to_dict()


def test_each_tuning_traces_its_tasks(results: Path) -> None:
    tasks = {
        "bio": {"BIO_in", "BIO_out"},
        "stage": {"QA_in"},
        "mix": {"BIO_in", "BIO_out", "QA_in"},
    }
    for tuning, expected in tasks.items():
        for model in ("llama-tiny", "gpt-neox-tiny"):
            tensors, metadata = read_tensors(results / f"traces/{model}/{tuning}/seed0.safetensors")
            assert {name.split("/")[0] for name in tensors} == expected
            assert set(metadata["counts"]) == expected
            assert metadata["keep"] == round(0.2 * metadata["n"])


def test_the_seeds_of_a_tuning_differ_and_start_from_one_model(results: Path) -> None:
    first, second = (
        (results / f"models/llama-tiny/mix/seed{s}/model.safetensors").read_bytes() for s in (0, 1)
    )
    assert first != second
    assert len(list((results / "models/llama-tiny/base").glob("seed*/model.safetensors"))) == 1


def test_no_state_and_no_temporary_file_is_left(results: Path) -> None:
    assert not list((results / "state").iterdir())
    assert not [path for path in results.rglob("*") if path.name.endswith(".tmp")]


def test_shared_tables_have_every_row(results: Path, study: Study) -> None:
    seeds, models, tunings = study.training.seeds, list(study.models), ["stage", "mix"]
    curve = read_table(results / "tables/shared.parquet", SHARED_TABLE)
    keys = ["model", "tuning", "seed", "influence", "set"]
    expected = itertools.product(models, tunings, seeds, INFLUENCES, ("S_I", "S_II", "S"))
    assert set(curve[keys].itertuples(index=False, name=None)) == set(expected)
    assert not curve.duplicated([*keys, "k"]).any()
    assert (curve["ratio"] == curve["size"] / curve["k"]).all()

    ablation = read_table(results / "tables/ablation.parquet", ABLATION)
    keys = ["model", "tuning", "seed", "ablated", "influence", "draw", "split", "relation"]
    assert not ablation.duplicated(keys).any()
    for _, rows in ablation.groupby(["model", "tuning", "seed"]):
        names = set(rows["ablated"])
        transplanted = {n for n in names if "_into_" in n}
        assert set(RESETS) < names and len(transplanted) == 2
        assert set(rows["influence"]) == {"", *INFLUENCES}
        whole = rows[rows["ablated"].isin([n for n, r in RESETS.items() if r.everything])]
        assert set(whole["split"]) == set(SPLITS) and (rows.groupby(keys[3:7]).size() == 6).all()
        assert set(rows.loc[rows["ablated"] == "random", "draw"]) == {*range(study.ablation.draws)}
    sets = read_table(results / "tables/ablation_sets.parquet", SETS)
    random = sets[sets["ablated"].isin(["random", "random_same_rows", "mix_into_stage_random"])]
    assert len(random) and (random["shared"] == 0).all()
    recall = read_table(results / "tables/recall.parquet", SUMMARY)
    same = ["model", "tuning", "seed", "split", "relation"]
    both = ablation[ablation["ablated"] == "none"].merge(recall, on=same)
    assert (both["correct_x"] == both["correct_y"]).all() and (both["drop"] == 0).all()

    grafting = read_table(results / "tables/grafting.parquet", GRAFTING)
    keys = ["model", "tuning", "seed", "split", "alpha", "with_shared", "method", "objective"]
    alphas = study.grafting.alphas
    both = (("movement", ""), ("dual_averaging", "gold"))
    methods = [(a, s, *m) for a, s, m in itertools.product(alphas, (True, False), both)]
    methods += [(a, True, "dual_averaging", "distilled") for a in alphas]
    methods += [(1.0, True, "whole", ""), (1.0, False, "whole", "")]
    expected = {
        (*run, *method)
        for run in itertools.product(models, tunings, seeds, ("in", "out"))
        for method in methods
    }
    listed = grafting[grafting["alpha"].isin([*alphas, 1.0])]
    assert set(listed[keys].itertuples(index=False, name=None)) == expected
    assert set(grafting["alpha"]) <= {*study.grafting.sizes(), 1.0}
    assert not grafting.duplicated(keys).any()
    assert (grafting.loc[~grafting["with_shared"], "shared_fraction"] == 0).all()


def test_circuits_have_every_sweep_and_agree_with_grafting(results: Path, study: Study) -> None:
    steps = read_table(results / "tables/interventions.parquet", INTERVENTIONS)
    keys = ["model", "tuning", "seed", "kind", "direction", "ranking", "random_order"]
    draws = [
        ("shared", 0),
        ("grafted", 0),
        *(("random", d) for d in range(study.circuits.random_orders)),
    ]
    runs = (study.models, ["stage", "mix"], study.training.seeds, ["attention", "unit"])
    expected = {
        (*run, direction, *draw)
        for run in itertools.product(*runs)
        for direction, draw in itertools.product(("forward", "backward"), draws)
    }
    assert set(steps[keys].itertuples(index=False, name=None)) == expected
    assert not steps.duplicated([*keys, "step"]).any()
    # Both ends of every sweep: nothing of the kind grafted, and everything.
    ends = steps.groupby(keys)["shared_fraction"].agg(["min", "max"])
    assert (ends["min"] == 0).all() and (ends["max"] == 1).all()
    heads = read_table(results / "tables/heads.parquet", HEADS)
    assert heads.groupby("model")["node"].nunique().to_dict() == {
        "llama-tiny": 2 * (4 + 2 + 2 + 4),
        "gpt-neox-tiny": 2 * 4 * 4,
    }
    sweeps = read_table(results / "tables/sweeps.parquet", SWEEPS)
    assert len(sweeps) == len(expected)
    tested = sweeps[sweeps["worst"].notna()]
    assert len(tested) and (tested["worst"] <= study.circuits.steps.tolerance).all()
    lasting = read_table(results / "tables/continuity.parquet", CONTINUITY)
    assert set(lasting["kind"]) == {"attention", "unit"} and set(lasting["shuffled"]) == {
        True,
        False,
    }


def test_masks_are_as_large_as_their_table_says(results: Path) -> None:
    folder = results / "grafting/gpt-neox-tiny/mix"
    masks = {
        True: read_sets(folder / "seed1.out.masks.safetensors"),
        False: read_sets(folder / "seed1.out.without.masks.safetensors"),
    }
    found = read_table(folder / "seed1.out.parquet", OUTCOMES)
    assert (found["objective"] != "").sum() == len(masks[True])
    assert found["taken_apart"].sum() == 1
    table = read_table(results / "tables/grafting.parquet", GRAFTING)
    shared = read_sets(results / "shared/gpt-neox-tiny/mix/seed1.sets.safetensors")["S"]
    of = "model == 'gpt-neox-tiny' and tuning == 'mix' and seed == 1 and split == 'out'"
    fitted = table.query(f"{of} and method == 'dual_averaging'")
    assert len(fitted) == sum(map(len, masks.values()))
    for row in fitted.itertuples():
        mask = masks[row.with_shared][mask_name(row.objective, row.alpha)]
        assert len(mask) == row.size == round(row.alpha * mask.space.size)
        assert row.shared_fraction == len(mask & shared) / len(mask)
        assert row.with_shared or not len(mask & shared)


def test_the_report_and_figures_are_there(results: Path) -> None:
    page = (results / "report.html").read_text(encoding="utf-8")
    assert "llama-tiny" in page and "gpt-neox-tiny" in page
    for kind in ("png", "svg", "parquet"):
        assert (results / f"figures/llama-tiny/recall.{kind}").stat().st_size > 1000


def test_tables_say_how_they_were_made(results: Path) -> None:
    said = read_provenance(results / "models/llama-tiny/mix/seed0.history.parquet")
    assert said["stage"] == "fine-tune"
    assert said["settings"]["recipe"]["updates"] == 60
    assert set(said["libraries"]) >= {"torch", "transformers"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nmae: x\n", "did you mean name?"),
        ("training: {bio: {learning_rate: 1e-4}}\n", "1.0e-4"),
        ("shared: {k: 0.5}\n", "trace.top_fraction"),
        ("facts: {people: 4000}\n", "names"),
        ("training: {mix: {batch_size: 0}}\n", "batch_size"),
        ("models: {x: {source: folder, path: no/such/folder}}\n", "no/such/folder"),
    ],
)
def test_a_mistake_ends_with_one_message_before_any_job(
    checkout: Path, text: str, said: str
) -> None:
    (checkout / "mistake.yaml").write_text(text)
    done = snakemake(checkout, "--cores", "1", "--configfile", PRESET, "mistake.yaml")
    assert done.returncode == 2
    assert said in done.stdout and "remedy:" in done.stdout
    assert "Traceback" not in done.stdout and "Building DAG" not in done.stdout
